"""Real servers on 127.0.0.1: scripted models and a tiny one with random weights, keys in a real database."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import toy
from served import Running

from tsuzuri.serve.app import Service
from tsuzuri.serve.models import Pool, Served
from tsuzuri.serve.server import Address, Server, listen
from tsuzuri.serve.terms import Terms
from tsuzuri.store import database, keys


@pytest.fixture(scope="session")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[database.Database]:
    place = tmp_path_factory.mktemp("service")
    with database.open(place / "data", place / "secrets") as found:
        yield found


@pytest.fixture(scope="session")
def make_key(db: database.Database) -> Callable[..., tuple[keys.Key, str]]:
    def make(*scopes: str, **limits: Any) -> tuple[keys.Key, str]:
        return keys.create(db, "test", scopes=scopes or keys.SCOPES, **limits)

    return make


@pytest.fixture(scope="session")
def serving(db: database.Database) -> Callable[..., Any]:
    """`with serving(model, …) as running:`"""
    _, secret = keys.create(db, "all", scopes=keys.SCOPES, concurrent=64)

    @contextmanager
    def start(*models: Served, grace: float = 0.2, on: database.Database | None = None, **how: Any) -> Iterator[Running]:
        service = Service(Pool(models), on or db, Terms(**how))
        at = listen(Address(port=0))
        server = Server(service, Address(), grace)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [at]}, daemon=True)
        thread.start()
        running = Running(f"http://127.0.0.1:{at.getsockname()[1]}", secret, service, server, thread)
        _until_up(at.getsockname()[1])
        try:
            yield running
        finally:
            if thread.is_alive():
                running.stop()

    return start


def _until_up(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            continue
        return
    pytest.fail("the server does not come up")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.make(tmp_path_factory.mktemp("models") / "tiny")
