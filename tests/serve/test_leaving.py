"""Whoever goes away ends the work, and whoever waits hears something, in every format and in both ways."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served import Repeated, Running, until

from tsuzuri.serve import sending
from tsuzuri.serve.models import Served, from_directory
from tsuzuri.types import Done, Text, Usage

STEP = 0.02  # seconds a token
SAID = [{"role": "user", "content": "あ"}]
WIRES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": SAID},
    "/v1/messages": {"messages": SAID, "max_tokens": 200},
    "/v1/responses": {"input": "あ"},
    "/v1/completions": {"prompt": "あ"},
}
OF_ALL = [path for path in WIRES if path != "/v1/completions"]  # which is for models of our own


def left(running: Running, path: str, body: dict[str, Any], heard: Callable[[socket.socket], object]) -> None:
    """Asks, waits for `heard`, and goes away."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {running.key}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2])), timeout=10) as connection:
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        heard(connection)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", OF_ALL)
def test_a_model_is_stopped_within_one_token(path: str, stream: bool, serving: Callable[..., Any]) -> None:
    chat = Repeated(*[part for _ in range(500) for part in (STEP, Text("あ"))], Usage(1, 500), Done("stop"))
    with serving(Served("slow", chat)) as running:
        left(running, path, {**WIRES[path], "model": "slow", "stream": stream}, lambda _: until(lambda: chat.passed >= 3))
        passed = chat.passed
        assert until(lambda: chat.closed == 1)
        assert passed >= 3 and chat.passed - passed <= 2, "the one under way, and the one that was coming as the connection closed"
        assert until(lambda: running.service.access.under_way == 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_of_our_own_is_stopped_in_every_format(stream: bool, serving: Callable[..., Any], tiny: Path) -> None:
    with serving(from_directory(tiny)) as running:
        engine = running.service.pool.get("tiny").tokens._together.engine
        for path in WIRES:
            length = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
            body = {**WIRES[path], "model": "tiny", "stream": stream, length: 200, "ignore_eos": True}
            if path in ("/v1/messages", "/v1/responses"):
                body.pop("ignore_eos")
            left(running, path, body, lambda _: until(lambda: running.service.access.under_way == 1))
            assert until(lambda: running.service.access.under_way == 0), path
            assert until(lambda: not engine._running), path
        with running.client() as client:
            used = re.search(r'kind="completion_tokens",model="tiny"} ([\d.]+)', client.get("/metrics").text)
        assert used and float(used[1]) < 200, "of four times two hundred"


@pytest.mark.parametrize("path", OF_ALL)
def test_a_long_silence_is_filled_in_every_format(path: str, serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PING", 0.1)
    chat = Repeated(0.45, Text("はい"), Usage(1, 1), Done("stop"))
    with serving(Served("slow", chat)) as running, running.client() as client:
        parts = client.post(path, json={**WIRES[path], "model": "slow", "stream": True}).text.split("\n\n")
    first = next(i for i, part in enumerate(parts) if "はい" in part)
    assert sum(part == ": ping" for part in parts[:first]) >= 3
