"""Real servers on 127.0.0.1: scripted models and a tiny one with random weights, keys in a real database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import toy
from served import key_maker, starter

from tsuzuri.store import database, keys


@pytest.fixture(scope="session")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[database.Database]:
    place = tmp_path_factory.mktemp("service")
    with database.open(place / "data", place / "secrets") as found:
        yield found


@pytest.fixture(scope="session")
def make_key(db: database.Database) -> Callable[..., tuple[keys.Key, str]]:
    return key_maker(db)


@pytest.fixture(scope="session")
def serving(db: database.Database) -> Callable[..., Any]:
    """`with serving(model, …) as running:`"""
    return starter(db)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.make(tmp_path_factory.mktemp("models") / "tiny")
