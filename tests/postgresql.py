"""A private PostgreSQL, started as an unprivileged user on a socket in a temporary directory: no service is needed, none is touched."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BINARIES = [Path(found).parent for found in (shutil.which("initdb"),) if found] + sorted(Path("/usr/lib/postgresql").glob("*/bin"))[::-1]
QUICK = "-c fsync=off -c full_page_writes=off -c listen_addresses='' -c max_connections=200 -c unix_socket_directories={place}"


def programs() -> Path | None:
    """The directory of its programs, where it is installed."""
    return next((found.resolve() for found in BINARIES if (found / "pg_ctl").exists()), None)


@contextmanager
def cluster() -> Iterator[str]:
    """Address of the server, without the name of a database."""
    binaries = programs()
    assert binaries is not None, "PostgreSQL is not installed"
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


def fresh(cluster: str, template: str = "/template1?") -> str:
    """Address of a new database, a copy of that of `template`."""
    import psycopg

    name, copied = f"test_{secrets.token_hex(6)}", template.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(cluster.format(name="postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{copied}"')
    return cluster.format(name=name)
