"""The life of a request: whoever goes away ends the work, whoever waits hears something, and the end of the server is an end of all."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from served import Repeated, request, until

from tsuzuri.serve import heads, sending
from tsuzuri.serve.models import Served, from_directory
from tsuzuri.types import Done, Text, Usage

BODY = {"model": "slow", "messages": [{"role": "user", "content": "あ"}]}
STEP = 0.02  # seconds a token


def slow(tokens: int = 500) -> Repeated:
    return Repeated(*[part for _ in range(tokens) for part in (STEP, Text("あ"))], Usage(1, tokens), Done("stop"))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choices", [1, 3])
def test_whoever_goes_away_ends_the_work_within_one_token(stream: bool, choices: int, serving: Callable[..., Any]) -> None:
    chat = slow()
    with serving(Served("slow", chat)) as running:
        with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2])), timeout=10) as connection:
            connection.sendall(request(running, {**BODY, "stream": stream, "n": choices}))
            assert until(lambda: chat.passed >= 3)
        passed = chat.passed
        assert until(lambda: chat.closed == choices), "every stream is closed"
        assert chat.passed - passed <= 2 * choices, "the one under way, and the one that was coming as the connection closed"
        assert until(lambda: running.service.access.under_way == 0)
        time.sleep(3 * STEP)
        assert chat.ended == 0
        with running.client() as client:
            assert 'tsuzuri_tokens_total{kind="completion_tokens",model="slow"}' in client.get("/metrics").text, "what was used is counted"


def test_what_is_written_goes_out_at_once(serving: Callable[..., Any]) -> None:
    """A connection that is kept would otherwise wait 40 ms for each answer, until the other side has told what it got (Nagle)."""
    with serving(Served("slow", Repeated(text="は"))) as running, running.client() as client:
        assert client.post("/v1/chat/completions", json=BODY).status_code == 200
        (held,) = running.server.server_state.connections
        connection: Any = held.transport.get_extra_info("socket")  # type: ignore[union-attr]
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_a_model_of_our_own_stops_too(serving: Callable[..., Any], tiny: Path) -> None:
    model = from_directory(tiny)
    with serving(model) as running:
        body = {"model": "tiny", "messages": BODY["messages"], "ignore_eos": True, "min_tokens": 200, "stream": True}
        with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2])), timeout=10) as connection:
            connection.sendall(request(running, body))
            connection.recv(1000)
        assert until(lambda: running.service.access.under_way == 0)
        with running.client() as client:
            text = client.get("/metrics").text
        used = float(re.search(r'kind="completion_tokens",model="tiny"} ([\d.]+)', text)[1])
        assert 0 < used < 200
        assert re.search(r'kind="prompt_tokens",model="tiny"} ([\d.]+)', text)[1] != "0.0", "what was read is counted, too"


def test_silence_is_filled_with_comments(serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PING", 0.1)
    with serving(Served("slow", Repeated(0.45, Text("はい"), 0.25, Done("stop")))) as running, running.client() as client:
        text = client.post("/v1/chat/completions", json={**BODY, "stream": True}).text
    parts = [part for part in text.split("\n\n") if part]
    assert parts[:3] == [": ping"] * 3, "before the first token"
    assert parts.count(": ping") >= 4 and parts[-1] == "data: [DONE]"


def test_the_others_are_not_held_up(serving: Callable[..., Any]) -> None:
    models = Served("slow", slow(30)), Served("quick", Repeated(text="は"))
    with serving(*models) as running, running.client() as client, ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(client.post, "/v1/chat/completions", json=BODY) for _ in range(20)]
        begun = time.monotonic()
        assert client.post("/v1/chat/completions", json={**BODY, "model": "quick"}).status_code == 200
        assert time.monotonic() - begun < 0.5
        assert all(one.result().json()["choices"][0]["message"]["content"] == "あ" * 30 for one in waiting)


def test_a_body_in_drips_and_chunks_is_read_and_one_without_end_is_not(serving: Callable[..., Any]) -> None:
    with serving(Served("slow", Repeated(text="は"))) as running, running.client() as client:

        def drips() -> Any:
            for byte in json.dumps(BODY).encode():
                yield bytes([byte])

        assert client.post("/v1/chat/completions", content=drips(), headers={"content-type": "application/json"}).status_code == 200
        with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2])), timeout=20) as connection:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {running.key}\r\n"
            connection.sendall(f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            sent = 0
            try:
                while sent < 64 << 20:
                    connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
                    sent += 65536
            except OSError:
                pass
            assert sent < 32 << 20, "it is cut off soon after it passes 10 MiB"


def test_a_connection_without_a_request_is_not_kept_and_one_with_a_slow_answer_is(
    serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "SECONDS", 0.3)
    with serving(Served("slow", Repeated(1.0, Text("は"), Done("stop")))) as running:
        place = ("127.0.0.1", int(running.url.rpartition(":")[2]))
        silent, half, drips, again = (socket.create_connection(place, timeout=10) for _ in range(4))
        half.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ")
        again.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea")
        begun = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - begun < 3:
                drips.sendall(b"G")
                time.sleep(0.05)
        assert time.monotonic() - begun < 3, "drips do not make it longer"
        assert silent.recv(100) == half.recv(100) == b""
        assert again.recv(1000).startswith(b"HTTP/1.1 200") and again.recv(100) == b""
        for connection in (silent, half, drips, again):
            connection.close()
        with running.client() as client:
            for _ in range(2):  # on one connection
                found = client.post("/v1/chat/completions", json=BODY)
                assert found.json()["choices"][0]["message"]["content"] == "は"


def test_an_answer_that_takes_longer_than_it_may_is_cut_off_and_says_so(serving: Callable[..., Any]) -> None:
    chat = slow(2000)
    with serving(Served("slow", chat), deadline=0.5) as running, running.client() as client, ThreadPoolExecutor(2) as pool:
        whole = pool.submit(client.post, "/v1/chat/completions", json=BODY)
        stream = pool.submit(client.post, "/v1/chat/completions", json={**BODY, "stream": True})
        answer = whole.result()
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert answer.headers["x-should-retry"] == "false", "it would take as long again"
        lines = [line for line in stream.result().text.split("\n\n") if line]
        assert "deadline_exceeded" in lines[-2] and lines[-1] == "data: [DONE]" and len(lines) > 4
        assert until(lambda: chat.closed == 2 and running.service.access.under_way == 0), "and the model no longer works on it"


# ── the end of the server


def test_at_the_end_what_is_under_way_may_finish(serving: Callable[..., Any]) -> None:
    with serving(Served("slow", slow(20)), grace=5) as running, running.client() as client, ThreadPoolExecutor(2) as pool:
        whole = pool.submit(client.post, "/v1/chat/completions", json=BODY)
        stream = pool.submit(client.post, "/v1/chat/completions", json={**BODY, "stream": True})
        assert until(lambda: running.service.access.under_way == 2)
        running.stop()
        assert whole.result().json()["choices"][0]["finish_reason"] == "stop"
        assert stream.result().text.endswith("data: [DONE]\n\n")


def test_what_takes_too_long_ends_with_a_terminator_and_new_requests_are_told(serving: Callable[..., Any]) -> None:
    with serving(Served("slow", slow(2000)), grace=0.3) as running, running.client() as client, ThreadPoolExecutor(2) as pool:
        whole = pool.submit(client.post, "/v1/chat/completions", json=BODY)
        stream = pool.submit(client.post, "/v1/chat/completions", json={**BODY, "stream": True})
        assert until(lambda: running.service.access.under_way == 2)
        stopper = threading.Thread(target=running.stop)
        stopper.start()
        answer = whole.result()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
        assert answer.headers["x-should-retry"] == "true"
        lines = [line for line in stream.result().text.split("\n\n") if line]
        assert "shutting_down" in lines[-2] and lines[-1] == "data: [DONE]"
        stopper.join()
    assert not running.thread.is_alive()


def test_once_it_is_ending_nothing_new_begins(serving: Callable[..., Any]) -> None:
    with serving(Served("slow", Repeated(text="は"))) as running, running.client() as client:
        running.service.draining = True
        assert client.get("/health").status_code == 503
        found = client.post("/v1/chat/completions", json=BODY)
        assert (found.status_code, found.json()["error"]["code"]) == (503, "shutting_down")
