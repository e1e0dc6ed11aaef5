"""Nobody goes around the door: every route with every kind of key, hosts and paths that pretend, limits, and what errors tell."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from served import Repeated, Running, until

from tsuzuri.errors import RemoteError, Words
from tsuzuri.folder import find, names
from tsuzuri.serve.access import OPEN
from tsuzuri.serve.app import ROUTES, doors
from tsuzuri.serve.models import Served
from tsuzuri.store import keys
from tsuzuri.types import Done, Text, Usage

BODY = {"model": "script", "messages": [{"role": "user", "content": "あ"}]}
ROUTE_NAMES = names(ROUTES)
LEAK = re.compile(r"0x[0-9a-f]{6,}|/home/|/tmp/|/usr/|Traceback|SELECT|\.py\b|tsz_")


@pytest.fixture(scope="module")
def running(serving: Callable[..., Any]) -> Iterator[Running]:
    words = {"asked": Words("尋ねました。", "Asked."), "found": Words("来ません。", "Nothing."), "todo": Words("後で。", "Later.")}
    models = [
        Served("script", Repeated(Text("はい"), Usage(1, 1), Done("stop"))),
        Served("other", Repeated(text="べつ")),
        Served("fault", Repeated(ValueError("/home/secret SELECT * tsz_abc"))),
        Served("late", Repeated(Text("あ"), ValueError("/home/secret SELECT *"))),
        Served("far", Repeated(RemoteError(**words))),
        Served("slow", Repeated(0.6, Text("あ"), Done("stop"))),
    ]
    with serving(*models) as found:
        yield found


# ── routes and policies


def filled(path: str) -> str:
    return re.sub(r"\{\w+\}", "none", path.replace("{model:path}", "script").replace("{response}", "resp_none"))


def test_a_route_without_a_policy_does_not_start() -> None:
    def route(**more: Any) -> ModuleType:
        module = ModuleType("tsuzuri.serve.routes.new")
        module.__dict__.update({"METHOD": "GET", "PATHS": ("/new",), "answer": None, **more})
        return module

    for wrong in ({}, {"POLICY": ()}, {"POLICY": "open"}, {"POLICY": ("chat", "everything")}, {"POLICY": None}):
        with pytest.raises(TypeError, match="new declares no policy"):
            doors([route(**wrong)])
    assert doors([route(POLICY=("chat",))])[0].policy == ("chat",)


@pytest.mark.parametrize("name", ROUTE_NAMES)
def test_every_path_of_every_route_wants_a_key_with_its_scope(name: str, running: Running, make_key: Callable[..., Any]) -> None:
    module = find(ROUTES, name)
    scopes = [word for word in module.POLICY if word in keys.SCOPES]
    if module.POLICY == OPEN or not scopes:  # nobody's, or people's: test_attack_matrix.py
        return
    right, wrong = (make_key(scope)[1] for scope in (scopes[0], next(s for s in keys.SCOPES if s not in scopes)))
    with running.client() as client:
        for path in map(filled, module.PATHS):
            for headers, status in [
                ({"authorization": ""}, 401),
                ({"authorization": "Bearer"}, 401),
                ({"authorization": "Bearer tsz_wrong"}, 401),
                ({"authorization": f"Basic {right}"}, 401),
                ({"authorization": f"Bearer {right[:-1]}x"}, 401),
                ({"authorization": f"Bearer {wrong}"}, 403),
                ({"authorization": f"Bearer {wrong}", "x-api-key": right}, 401),
            ]:
                assert client.request(module.METHOD, path, headers=headers, content=b"{").status_code == status, (path, headers)
            for headers in ({"authorization": f"Bearer {right}"}, {"authorization": "", "x-api-key": right}):
                good = (404,) if "resp_none" in path else (200, 404) if path.endswith("none") and module.METHOD == "DELETE" else (200, 400)
                assert client.request(module.METHOD, path, headers=headers, content=b"{").status_code in good, path


def test_only_health_asks_for_no_key(running: Running) -> None:
    with running.client() as client:
        found = client.get("/health", headers={"authorization": ""})
        assert (found.status_code, found.json()) == (200, {"status": "ok"})
        for path in ("/", "/v1", "/docs", "/openapi.json", "/v1/unknown", "/health/", "/HEALTH", "/v1/chat/completions/"):
            assert client.get(path).status_code == 404, path
        found = client.get("/v1/chat/completions")
        assert (found.status_code, found.headers["allow"]) == (405, "POST")


def test_a_revoked_key_ends_with_the_next_request(running: Running, make_key: Callable[..., Any], db: Any) -> None:
    key, secret = make_key("chat")
    with running.client() as client:
        ask = lambda: client.get("/v1/models", headers={"authorization": f"Bearer {secret}"}).status_code  # noqa: E731
        assert ask() == 200
        keys.revoke(db, key.id)
        assert ask() == 401


def test_a_key_sees_and_uses_only_its_models(running: Running, make_key: Callable[..., Any]) -> None:
    _, secret = make_key("chat", models=["script"])
    headers = {"authorization": f"Bearer {secret}"}
    with running.client() as client:
        assert [m["id"] for m in client.get("/v1/models", headers=headers).json()["data"]] == ["script"]
        there, nowhere = (client.post("/v1/chat/completions", json={**BODY, "model": m}, headers=headers) for m in ("other", "none_"))
        assert there.status_code == nowhere.status_code == 404
        assert there.json()["error"]["message"].replace("other", "none_") == nowhere.json()["error"]["message"], "no word of what exists"
        assert client.get("/v1/models/other", headers=headers).status_code == 404


# ── hosts, paths and headers that pretend


def raw(running: Running, request: bytes) -> int:
    """The status of bytes as they are."""
    import socket

    with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2])), timeout=10) as connection:
        connection.sendall(request)
        answer = connection.recv(4096)
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


HOSTS = [
    b"evil.example", b"127.0.0.1.evil.example", b"127.0.0.1/v1", b"127.0.0.1?x", b"127.0.0.1#", b"localhost@evil", b"evil@localhost", b"", b" ",
    b"127.0.0.1:x", b"127.0.0.1:", b"[::1", b"localhost, evil", b"localhost\tevil", b"\xff", b"127.0.0.1:80:80", b"0x7f.1", b"2130706433",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_that_is_not_this_server_is_refused(host: bytes, running: Running) -> None:
    key = running.key.encode()
    assert raw(running, b"GET /v1/models HTTP/1.1\r\nHost: " + host + b"\r\nAuthorization: Bearer " + key + b"\r\n\r\n") == 400


@pytest.mark.parametrize("host", [b"localhost", b"LOCALHOST:99", b"127.0.0.1:1", b"[::1]:8000"])
def test_its_own_names_are_taken(host: bytes, running: Running) -> None:
    assert raw(running, b"GET /health HTTP/1.1\r\nHost: " + host + b"\r\n\r\n") == 200


@pytest.mark.parametrize(
    "lines",
    [
        b"Host: localhost\r\nHost: localhost",
        b"Host: localhost\r\nHost: evil",
        b"X-Y: 1",
        b"Host: localhost\r\nContent-Length: 1\r\nContent-Length: 2",
        b"Host: localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"Host : localhost",
        b"Host: localhost\r\nX: " + b"a" * 100_000,
    ],
    ids=lambda lines: lines[:50].decode(),
)
def test_malformed_requests_are_refused(lines: bytes, running: Running) -> None:
    assert raw(running, b"GET /health HTTP/1.1\r\n" + lines + b"\r\n\r\n") in (400, 431)


PATHS = [
    "//v1/models", "/v1//models", "/./v1/models", "/v1/../v1/models", "/v1/models;x", "/v1/models%00", "/%2e/v1/models", "/v1/models.",
    "/v1/models%20", "/health/../v1/models", "/health%2f..%2fv1/models", "/health;/v1/models", "/V1/models", "/v1/mod%65ls", "/v1\\models",
    "/v1/%E2%80%A4/models", "/health?/v1/models", "/v1/models?path=/health", "/metrics", "/v1/models/", "/health#/v1/models",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_no_way_of_writing_a_path_goes_around_the_key(path: str, running: Running) -> None:
    status = raw(running, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert status in ((200,) if path.startswith("/health?") else (400, 401, 404)), status


HEADERS = [
    {"x-original-url": "/health"}, {"x-rewrite-url": "/health"}, {"x-forwarded-for": "127.0.0.1"}, {"x-forwarded-host": "localhost"},
    {"x-http-method-override": "GET"}, {"forwarded": "for=127.0.0.1"}, {"x-forwarded-user": "admin"}, {"cookie": "admin=1"},
    {"authorization": "Bearer null"}, {"authorization": "Bearer undefined"}, {"x-api-key": "' OR 1=1 --"}, {"x-api-key": "a" * 5000},
]  # fmt: skip


@pytest.mark.parametrize("headers", HEADERS, ids=str)
def test_no_header_stands_for_a_key(headers: dict[str, str], running: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", int(running.url.rpartition(":")[2]), timeout=10)
    connection.request("GET", "/v1/models", headers=headers)
    assert connection.getresponse().status == 401
    connection.close()


def test_an_unknown_route_is_answered_before_its_body_is_read(running: Running) -> None:
    """The body is announced and never sent: who waited for it would wait for ever."""
    start = b"POST /v1/nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    assert raw(running, start) == 404
    assert raw(running, start.replace(b"/v1/nowhere", b"/v1/chat/completions")) == 401


# ── limits


def test_requests_a_minute_and_what_the_headers_say_of_them(running: Running, make_key: Callable[..., Any]) -> None:
    _, secret = make_key("chat", requests_per_minute=3)
    with running.client() as client:
        found = [client.get("/v1/models", headers={"authorization": f"Bearer {secret}"}) for _ in range(4)]
        assert [one.status_code for one in found] == [200, 200, 200, 429]
        assert [one.headers["x-ratelimit-remaining-requests"] for one in found] == ["2", "1", "0", "0"]
        assert found[0].headers["x-ratelimit-limit-requests"] == "3"
        assert 0 < int(found[3].headers["retry-after"]) <= 60 and found[3].headers["x-should-retry"] == "true"
        assert found[3].json()["error"]["code"] == "rate_limit_exceeded"
        assert client.get("/v1/models").status_code == 200, "another key is not held up"


def test_tokens_a_minute(running: Running, make_key: Callable[..., Any]) -> None:
    """A request that begins while something is left is answered; the next waits."""
    _, secret = make_key("chat", tokens_per_minute=3)
    with running.client() as client:
        ask = {"json": BODY, "headers": {"authorization": f"Bearer {secret}"}}  # two tokens each
        found = []
        for _ in range(3):
            found.append(client.post("/v1/chat/completions", **ask))
            assert until(lambda: running.service.access.under_way == 0)  # what it came to counts when it is over
        assert [one.status_code for one in found] == [200, 200, 429]
        assert [one.headers["x-ratelimit-remaining-tokens"] for one in found] == ["3", "1", "0"]
        assert found[2].json()["error"]["code"] == "rate_limit_exceeded" and 0 < int(found[2].headers["retry-after"]) <= 60
        assert client.post("/v1/chat/completions", json=BODY).status_code == 200, "another key is not held up"


def test_requests_at_once(running: Running, make_key: Callable[..., Any]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    _, secret = make_key("chat", concurrent=2)
    with running.client() as client, ThreadPoolExecutor(5) as pool:
        ask = lambda _: client.post("/v1/chat/completions", json={**BODY, "model": "slow"}, headers={"authorization": f"Bearer {secret}"})  # noqa: E731
        found = sorted(one.status_code for one in pool.map(ask, range(5)))
        assert found == [200, 200, 429, 429, 429]
        assert ask(0).status_code == 200, "a place is given back"


@pytest.mark.parametrize(("shared", "let_in"), [(True, 4), (False, 8)])
def test_two_servers_on_one_sqlite_count_together_where_they_are_told_to(
    shared: bool, let_in: int, serving: Callable[..., Any], make_key: Callable[..., Any]
) -> None:
    """On PostgreSQL they do without being told: test_two_servers.py."""
    _, secret = make_key("chat", requests_per_minute=4)
    model = Served("script", Repeated(Text("はい"), Done("stop")))
    with serving(model, shared_limits=shared) as one, serving(model, shared_limits=shared) as two, one.client() as a, two.client() as b:
        headers = {"authorization": f"Bearer {secret}"}
        found = [client.get("/v1/models", headers=headers).status_code for _ in range(6) for client in (a, b)]
    assert found.count(200) == let_in and set(found) == {200, 429}


def test_the_whole_server_has_an_end_too(serving: Callable[..., Any]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    slow = Served("slow", Repeated(0.6, Text("あ"), Done("stop")))
    with serving(slow, at_once=1) as one, one.client() as client, ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: client.post("/v1/chat/completions", json={**BODY, "model": "slow"}), range(3)))
    assert sorted(answer.status_code for answer in found) == [200, 503, 503]
    assert all("retry-after" in answer.headers for answer in found if answer.status_code == 503)


# ── errors


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"model": "none"}, 404, "model_not_found", "model"),
        ({"model": "fault"}, 500, "internal_error", None),
        ({"model": "far"}, 502, "upstream", None),
        ({"temperature": 9}, 400, "invalid_value", "temperature"),
        ({"temprature": 1}, 400, "unknown_parameter", "temprature"),
        ({"logprobs": True}, 400, "unsupported_parameter", "logprobs"),
        ({"response_format": {"type": "json_object"}}, 400, "unsupported_parameter", "response_format"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_have_one_shape_and_tell_nothing_of_the_inside(
    change: dict[str, Any], status: int, code: str, param: str | None, stream: bool, running: Running
) -> None:
    with running.client() as client:
        found = client.post("/v1/chat/completions", json={**BODY, **change, "stream": stream})
    error = found.json()["error"]
    assert (found.status_code, set(error), error["code"], error["param"]) == (status, {"message", "type", "param", "code"}, code, param)
    assert not LEAK.search(found.text)
    assert re.fullmatch(r"req_[0-9a-f]{24}", found.headers["x-request-id"])
    assert found.headers["x-should-retry"] in ("true", "false")


def test_an_error_after_the_first_byte_is_an_event_and_then_the_end(running: Running) -> None:
    with running.client() as client:
        found = client.post("/v1/chat/completions", json={**BODY, "model": "late", "stream": True})
    lines = [line for line in found.text.split("\n\n") if line]
    assert found.status_code == 200
    assert '"error"' in lines[-2] and "internal_error" in lines[-2] and lines[-1] == "data: [DONE]"
    assert not LEAK.search(found.text)


def test_the_funnel_logs_where_and_not_what(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    with running.client() as client:
        client.post("/v1/chat/completions", json={**BODY, "model": "fault"})
    assert "ValueError at " in caplog.text and "serve/call.py:" in caplog.text
    assert not re.search(r"/home/|SELECT|tsz_", caplog.text)


# ── what is counted


def test_metrics_count_requests_and_tokens(serving: Callable[..., Any]) -> None:
    model = Served("counted", Repeated(Text("は"), Text("い"), Usage(11, 2, 3), Done("stop")))
    with serving(model) as running, running.client() as client:
        for stream in (False, True):
            client.post("/v1/chat/completions", json={**BODY, "model": "counted", "stream": stream})
        client.post("/v1/chat/completions", json={**BODY, "model": "none"})
        time.sleep(0.05)
        text = client.get("/metrics").text
    assert 'tsuzuri_requests_total{route="chat_completions",status="200"} 2.0' in text
    assert 'tsuzuri_requests_total{route="chat_completions",status="404"} 1.0' in text
    assert 'tsuzuri_tokens_total{kind="prompt_tokens",model="counted"} 22.0' in text
    assert 'tsuzuri_tokens_total{kind="completion_tokens",model="counted"} 4.0' in text
    assert 'tsuzuri_first_event_seconds_count{model="counted"} 2.0' in text
    assert running.key not in text
