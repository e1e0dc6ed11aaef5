"""What the tests of the service share: a scripted model that answers every call alike, and a running server."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from tsuzuri.chat.scripted import Scripted
from tsuzuri.serve.app import Service
from tsuzuri.serve.models import Pool, Served
from tsuzuri.serve.server import Address, Server, listen
from tsuzuri.serve.terms import Terms
from tsuzuri.store import keys
from tsuzuri.store.database import Database
from tsuzuri.types import Event, Message, Options


class Repeated:
    """The same scripted answer to every call; what it was asked is in `calls`, how many streams were closed early in `closed`."""

    def __init__(self, *events: Event | Exception | float, text: str | None = None) -> None:
        self.events, self.text = events, text
        self.calls: list[tuple[tuple[Message, ...], Options]] = []
        self.passed = self.ended = self.closed = 0

    async def __call__(self, messages: Sequence[Message], options: Options) -> Any:
        self.calls.append((tuple(messages), options))
        script = Scripted(self.text) if self.text is not None else None
        try:
            if script:
                async for event in script(messages, options):
                    yield event
            for event in self.events:
                if isinstance(event, int | float):
                    await asyncio.sleep(event)
                elif isinstance(event, Exception):
                    raise event
                else:
                    self.passed += 1
                    yield event
            self.ended += 1
        except (GeneratorExit, asyncio.CancelledError):
            self.closed += 1
            raise


@dataclass
class Running:
    """A server and a key that may do everything."""

    url: str
    key: str
    service: Service
    server: Server
    thread: threading.Thread

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def client(self, **how: Any) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, headers=self.bearer, timeout=30, **how)

    def stop(self) -> None:
        self.server.handle_exit(signal.SIGTERM, None)
        self.thread.join(20)
        assert not self.thread.is_alive()


def key_maker(db: Database) -> Callable[..., tuple[keys.Key, str]]:
    def make(*scopes: str, **limits: Any) -> tuple[keys.Key, str]:
        return keys.create(db, "test", scopes=scopes or keys.SCOPES, **limits)

    return make


def starter(db: Database) -> Callable[..., Any]:
    """`with starter(db)(model, …) as running:`"""
    _, secret = keys.create(db, "all", scopes=keys.SCOPES, concurrent=64)

    @contextmanager
    def start(*models: Served, grace: float = 0.2, on: Database | None = None, **how: Any) -> Iterator[Running]:
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
    raise AssertionError("the server does not come up")


def request(running: Running, body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {running.key}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


def until(condition: Callable[[], bool], seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()
