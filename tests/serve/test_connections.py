"""Connections to a model elsewhere: kept = one for each request, fewer of them; nothing of one request goes along with another, and
whoever leaves, waits too long or is cut off harms nobody else."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest
from served import Repeated, Running, until

from tsuzuri.chat.providers import _connections, openai_compatible
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import RemoteError
from tsuzuri.serve.models import Served
from tsuzuri.types import Done, Event, Message, Options, Text, Usage

PLAIN = Options(Sampling())


class Listening(ThreadingHTTPServer):
    request_queue_size = 64  # that may wait to be let in
    daemon_threads = True


class Upstream:
    """Answers what it is told to in the last message: `slow` goes on for ever, `silent` says nothing, `close` ends the connection after
    the answer without a word, `cookie` sets one, anything else is a word."""

    def __init__(self) -> None:
        self.connections = self.open = 0
        self.cookies: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                outer.connections += 1
                outer.open += 1

            def finish(self) -> None:
                outer.open -= 1
                with suppress(OSError):
                    super().finish()

            def do_POST(self) -> None:
                said = json.loads(self.rfile.read(int(self.headers["content-length"])))["messages"][-1]["content"]
                outer.cookies.append(self.headers["cookie"])
                if said == "silent":
                    self.rfile.read(1)  # until it is gone
                    self.close_connection = True
                    return
                self.send_response(200)
                self.send_header("transfer-encoding", "chunked")
                if said == "cookie":
                    self.send_header("set-cookie", "who=somebody; Path=/")
                self.end_headers()
                with suppress(ConnectionError):
                    while said == "slow":
                        self.piece({"choices": [{"index": 0, "delta": {"content": "あ"}}]})
                        time.sleep(0.01)
                    self.piece({"choices": [{"index": 0, "delta": {"content": said}}]})
                    self.piece({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1}})
                    self.wfile.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
                if said in ("slow", "close"):
                    self.close_connection = True

            def piece(self, chunk: dict[str, Any]) -> None:
                data = f"data: {json.dumps(chunk)}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

            def log_message(self, *_: object) -> None:
                pass

        self._server = Listening(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    found = Upstream()
    yield found
    found.close()


async def heard(chat: Any, said: str) -> list[Event]:
    return [event async for event in chat([Message("user", said)], PLAIN)]


def answer(said: str) -> list[Event]:
    return [Text(said), Usage(1, 0), Done("stop")]


@pytest.mark.parametrize("kept", [True, False])
def test_the_answers_are_the_same_with_fewer_connections(kept: bool, upstream: Upstream) -> None:
    chat = openai_compatible.chat(upstream.url, "m")

    async def work() -> None:
        for said in ("a", "b", "c", "d"):
            assert await heard(chat, said) == answer(said)

    async def held() -> None:
        async with chat:
            await work()

    asyncio.run(held() if kept else work())
    assert upstream.connections == (1 if kept else 4)
    assert until(lambda: upstream.open == 0), "none is left behind"


def test_many_at_once_each_have_their_own_answer_and_the_next_ones_use_what_is_there(upstream: Upstream) -> None:
    chat = openai_compatible.chat(upstream.url, "m")

    async def work() -> None:
        async with chat:
            for _ in range(2):
                found = await asyncio.gather(*(heard(chat, f"{number}") for number in range(20)))
                assert found == [answer(f"{number}") for number in range(20)]

    asyncio.run(work())
    assert upstream.connections <= 21


def test_a_connection_that_the_server_has_closed_is_noticed_and_nobody_waits(upstream: Upstream) -> None:
    chat = openai_compatible.chat(upstream.url, "m")

    async def work() -> None:
        async with chat:
            for said in ("close", "a", "close", "b"):
                assert await heard(chat, said) == answer(said), "without a notice of another try"
                assert said != "close" or await asyncio.to_thread(until, lambda: upstream.open == 0)

    asyncio.run(work())
    assert upstream.connections == 3


def test_a_cookie_is_not_taken_along(upstream: Upstream) -> None:
    chat = openai_compatible.chat(upstream.url, "m")

    async def work() -> None:
        async with chat:
            await heard(chat, "cookie")
            await heard(chat, "a")

    asyncio.run(work())
    assert upstream.connections == 1 and upstream.cookies == [None, None]


@pytest.mark.parametrize("way", ["closed", "cancelled"])
def test_who_leaves_ends_the_work_there_and_nobody_gets_the_rest(way: str, upstream: Upstream) -> None:
    chat = openai_compatible.chat(upstream.url, "m")

    async def first(events: Any) -> None:
        async for _ in events:
            if way == "closed":
                return
            await asyncio.sleep(10)

    async def work() -> None:
        async with chat:
            for _ in range(5):
                events = chat([Message("user", "slow")], PLAIN)
                task = asyncio.create_task(first(events))
                await asyncio.sleep(0.05)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await events.aclose()
                assert await asyncio.to_thread(until, lambda: upstream.open <= 1), "the connection is gone, and the work with it"
                assert await heard(chat, "a") == answer("a")

    asyncio.run(work())
    assert upstream.connections <= 6 and until(lambda: upstream.open == 0)


def test_a_silent_answer_is_left_after_its_time_and_the_next_one_is_not_affected(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_connections, "TIMEOUT", httpx2.Timeout(0.3))
    chat = openai_compatible.chat(upstream.url, "m")

    async def work() -> None:
        async with chat:
            await heard(chat, "a")
            with pytest.raises(RemoteError) as caught:
                await heard(chat, "silent")
            assert caught.value.code == "timeout"
            assert await heard(chat, "b") == answer("b")

    asyncio.run(work())
    assert upstream.connections == 2 and until(lambda: upstream.open == 0)


def test_held_twice_it_is_kept_until_both_let_go_and_another_loop_has_its_own(upstream: Upstream) -> None:
    chat = openai_compatible.chat(upstream.url, "m")

    async def work() -> None:
        async with chat:
            async with chat:
                await heard(chat, "a")
            await heard(chat, "b")
            assert upstream.connections == 1
            assert await asyncio.to_thread(lambda: asyncio.run(heard(chat, "c"))) == answer("c")
        await heard(chat, "d")

    asyncio.run(work())
    assert upstream.connections == 3 and until(lambda: upstream.open == 0)


def test_the_service_keeps_connections_until_it_ends(upstream: Upstream, serving: Callable[..., Any]) -> None:
    with serving(Served("far", openai_compatible.chat(upstream.url, "m"))) as running:
        for said in ("a", "b", "c"):
            assert asked(running, said) == said
        assert (upstream.connections, upstream.open) == (1, 1)
    assert until(lambda: upstream.open == 0), "at its end they are closed"


def test_over_our_own_server_twice(serving: Callable[..., Any]) -> None:
    with serving(Served("deep", Repeated(Text("は"), Text("い"), Done("stop")))) as far:
        chat = openai_compatible.chat(f"{far.url}/v1", "deep", far.key)
        with serving(Served("near", chat)) as running:
            assert [asked(running, "あ", "near") for _ in range(3)] == ["はい"] * 3


def asked(running: Running, said: str, model: str = "far") -> str:
    with running.client() as client:
        found = client.post("/v1/chat/completions", json={"model": model, "messages": [{"role": "user", "content": said}]})
    assert found.status_code == 200 and "notices" not in found.json(), found.text
    return str(found.json()["choices"][0]["message"]["content"])
