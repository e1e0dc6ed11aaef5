"""A tiny model with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.make(tmp_path_factory.mktemp("models") / "toy")
