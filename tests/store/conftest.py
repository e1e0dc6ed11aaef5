"""Both databases: an SQLite of its own for each test, and a private PostgreSQL cluster for the session, with a database for each test.

Where PostgreSQL is not installed its half is skipped and says so.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from postgresql import fresh

from tsuzuri.store import database
from tsuzuri.store.database import Database


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | Path]:
    """By kind, a database with the schema and no rows, copied for each test: the migrations run once."""
    return {"sqlite": tmp_path_factory.mktemp("template") / "data"}


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path, templates: dict[str, str | Path]) -> str | Path:
    """Of a database without rows."""
    kind: str = request.param
    if kind == "postgresql" and kind not in templates:
        templates[kind] = fresh(request.getfixturevalue("cluster"))
    template = templates[kind]
    with closing(database.connect(template, tmp_path / "none")) as opened:
        database.upgrade(opened)
    if isinstance(template, Path):
        shutil.copytree(template, tmp_path / "data")
        return tmp_path / "data"
    return fresh(request.getfixturevalue("cluster"), template)


@pytest.fixture
def secret_place(tmp_path: Path) -> Path:
    return tmp_path / "secrets"


@pytest.fixture
def db(address: str | Path, secret_place: Path) -> Iterator[Database]:
    with database.open(address, secret_place) as opened:
        yield opened


@pytest.fixture
def another(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str | Path]:
    """A second empty database, of the kind that is named."""

    def made(kind: str) -> str | Path:
        return tmp_path / f"data-{secrets.token_hex(4)}" if kind == "sqlite" else fresh(request.getfixturevalue("cluster"))

    return made
