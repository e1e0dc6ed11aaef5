"""The fixtures of conftest.py on a PostgreSQL of their own, for test modules that run what another module holds there, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from postgresql import fresh
from served import key_maker, starter

from tsuzuri.store import database, keys


@pytest.fixture(scope="module")
def db(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[database.Database]:
    with database.open(fresh(cluster), tmp_path_factory.mktemp("postgresql") / "secrets") as found:
        assert found.dialect == "postgresql"
        yield found


@pytest.fixture(scope="module")
def make_key(db: database.Database) -> Callable[..., tuple[keys.Key, str]]:
    return key_maker(db)


@pytest.fixture(scope="module")
def serving(db: database.Database) -> Callable[..., Any]:
    return starter(db)
