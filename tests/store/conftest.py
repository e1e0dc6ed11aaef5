"""Both databases: an SQLite of its own for each test, and a private PostgreSQL cluster for the session, with a database for each test.

The cluster is started here, as an unprivileged user, on a socket in a temporary directory: no service is needed, none is touched.
Where PostgreSQL is not installed its half is skipped and says so.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tsuzuri.store import database
from tsuzuri.store.database import Database

BINARIES = [Path(found).parent for found in (shutil.which("initdb"),) if found] + sorted(Path("/usr/lib/postgresql").glob("*/bin"))[::-1]
QUICK = "-c fsync=off -c full_page_writes=off -c listen_addresses='' -c max_connections=200 -c unix_socket_directories={place}"


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """Address of the server, without the name of a database."""
    binaries = next((found.resolve() for found in BINARIES if (found / "pg_ctl").exists()), None)
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    pytest.importorskip("psycopg")
    place = Path(tempfile.mkdtemp(prefix="tsuzuri-postgresql-", dir="/tmp"))  # short: the path of a socket has at most 107 bytes
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL does not run as root
        found = pwd.getpwnam("postgres")
        os.chown(place, found.pw_uid, found.pw_gid)
        owner = {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    run = {"check": True, "cwd": place, "stdout": subprocess.DEVNULL, "timeout": 120, **owner}
    try:
        subprocess.run([binaries / "initdb", "-D", place / "data", "-U", "tsuzuri", "-A", "trust", "-E", "UTF8", "--no-sync"], **run)
        options = QUICK.format(place=place)
        subprocess.run(
            [binaries / "pg_ctl", "-D", place / "data", "-o", options, "-l", place / "log", "-w", "-t", "60", "start"],
            **run,
        )
        try:
            yield f"postgresql://tsuzuri@/{{name}}?host={place}"
        finally:
            subprocess.run([binaries / "pg_ctl", "-D", place / "data", "-m", "immediate", "-w", "stop"], **run)
    finally:
        shutil.rmtree(place, ignore_errors=True)


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


def fresh(cluster: str, template: str = "/template1?") -> str:
    """Address of a new database, a copy of that of `template`."""
    import psycopg

    name, copied = f"test_{secrets.token_hex(6)}", template.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(cluster.format(name="postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{copied}"')
    return cluster.format(name=name)
