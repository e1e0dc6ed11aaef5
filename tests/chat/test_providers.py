"""One script of events for all providers: what each service sends in its own form is the same conversation here, cut anywhere."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from types import ModuleType
from typing import Any

import httpx2
import pytest
import replay

from tsuzuri.chat.providers import _connections, _wire
from tsuzuri.engine import constraint
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import ConfigError, ContextError, RemoteError, TsuzuriError
from tsuzuri.folder import find, names
from tsuzuri.types import Done, Event, Message, Notice, Options, Text, Thought, ToolCall, Usage

PROVIDERS = "tsuzuri.chat.providers"
EVERY = names(PROVIDERS)
SYSTEM = Message("system", "短く答えてください。")
ASKED = (SYSTEM, Message("user", "日本の首都は？"))
WEATHER = (SYSTEM, Message("user", "東京の天気は？"))
SCHEMA = {"type": "object", "properties": {"都市": {"type": "string"}}, "required": ["都市"]}
TOOL = {"type": "function", "function": {"name": "weather", "description": "都市の天気", "parameters": SCHEMA}}
TOKYO, OSAKA = ToolCall("call_1", "weather", '{"都市": "東京"}'), ToolCall("call_2", "weather", '{"都市": "大阪"}')
RESULTS = (
    *WEATHER,
    Message("assistant", "調べます。", (TOKYO, OSAKA)),
    Message("tool", "晴れ", tool_call_id="call_1"),
    Message("tool", "雨", tool_call_id="call_2"),
)
PLAIN, TOOLS = Options(Sampling()), Options(Sampling(), tools=(TOOL,))
ANSWER = (Text("東京"), Text("です。𠮷"))
SAID = [*ANSWER, Usage(21, 5, 4), Done("stop")]

# what is asked, and the events that come of it or the error with the events before it
WHOLE: dict[str, tuple[Sequence[Message], Options, list[Event]]] = {
    "text": (ASKED, Options(Sampling(temperature=0.5, max_tokens=50), stop=("終",)), SAID),
    "tool_call": (WEATHER, TOOLS, [Text("調べます。"), TOKYO, Usage(30, 12), Done("tool_calls")]),
    "tool_result": (RESULTS, TOOLS, [Text("晴れです。"), Usage(45, 4), Done("stop")]),
    "form": (
        ASKED,
        Options(Sampling(constraint=constraint.json_schema(SCHEMA))),
        [Text('{"都市": "東京"}'), Usage(21, 8), Done("stop")],
    ),
    "length": (ASKED, PLAIN, [*ANSWER, Usage(21, 5), Done("length")]),
    "thought": (ASKED, PLAIN, [Thought("首都は…"), *ANSWER, Usage(21, 9, 0, 4), Done("stop")]),
    "filtered": (ASKED, PLAIN, [Text("東京"), Usage(21, 2), Done("content_filter")]),
}
ERRORS: dict[str, tuple[type[TsuzuriError], str, list[Event], str]] = {
    "broken": (RemoteError, "broken", list(ANSWER), "途中で切れました"),
    "gave_up": (RemoteError, "failing", [Text("東京")], "The server had an error"),
    "refused": (ConfigError, "refused", [], "a field is wrong"),
    "too_long": (ContextError, "context", [], "100"),
    "denied": (RemoteError, "denied", [], "401"),
    "no_second_try": (RemoteError, "failing", [], "5"),
    "redirect": (RemoteError, "failing", [], "307"),
}
CALL_CUT = [name for name in EVERY if name != "gemini"]  # a call comes whole there or not at all


def test_every_provider_has_every_exchange_and_says_that_it_was_written() -> None:
    for name in EVERY:
        found = {path.stem for path in (replay.EXCHANGES / name).iterdir()}
        assert found >= {*WHOLE, *ERRORS, "busy"}, name
        for case in found:
            assert "not a capture" in replay.read(name, case).head


def chat(module: ModuleType, url: str, exchange: Any) -> Any:
    """The part of the path that all requests of a service share belongs to its address."""
    inner = exchange.path.split("/models/")[0].removesuffix("/chat/completions").removesuffix("/v1/messages")
    return module.chat(f"{url}{inner}", "m", "KEY")


def events(talk: Any, messages: Sequence[Message], options: Options) -> tuple[list[Event], TsuzuriError | None]:
    found: list[Event] = []

    async def all_of() -> None:
        async for event in talk(messages, options):
            found.append(event)

    try:
        asyncio.run(all_of())
    except TsuzuriError as error:
        return found, error
    return found, None


def played(name: str, case: str, messages: Sequence[Message], options: Options, cut: int = 0, **how: Any) -> Any:
    exchange = replay.read(name, case)
    with replay.replaying(exchange.responses, cut, **how) as server:
        found, error = events(chat(find(PROVIDERS, name), server.url, exchange), messages, options)
    assert len(server.seen) <= len(exchange.responses)
    for path, headers, body in server.seen:
        assert path == exchange.path
        assert {key: headers.get(key) for key in exchange.headers} == dict(exchange.headers)
        assert body == exchange.body
    return found, error, len(server.seen)


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
@pytest.mark.parametrize(("name", "case"), [*itertools.product(EVERY, WHOLE)])
def test_every_provider_gives_the_same_events_for_the_same_conversation(name: str, case: str, cut: int) -> None:
    messages, options, expected = WHOLE[case]
    if case == "thought" and name in ("openai", "azure_openai"):
        expected = expected[1:]  # thoughts are counted there, not shown
    if case == "thought" and name == "anthropic":
        expected = [replace(event, reasoning_tokens=0) if isinstance(event, Usage) else event for event in expected]  # shown, not counted
    found, error, _ = played(name, case, messages, options, cut)
    assert error is None
    assert found == expected


@pytest.mark.parametrize(("name", "case"), [*itertools.product(EVERY, ERRORS)])
def test_every_provider_fails_alike_in_the_servers_words_and_without_the_key(name: str, case: str) -> None:
    kind, code, before, words = ERRORS[case]
    found, error, tries = played(name, case, ASKED, PLAIN, cut=5)
    assert type(error) is kind and error.code == code
    assert words in str(error) and "KEY" not in str(error)
    assert found == before
    assert tries == 1, "what has begun, or will not get better, is not asked again"


@pytest.mark.parametrize("name", EVERY)
def test_a_connection_that_breaks_within_the_answer_is_told(name: str) -> None:
    found, error, tries = played(name, "broken", ASKED, PLAIN, unfinished=True)
    assert type(error) is RemoteError and found == list(ANSWER) and tries == 1


@pytest.mark.parametrize("name", EVERY)
def test_before_the_first_byte_a_busy_server_is_asked_again_and_that_is_told(name: str) -> None:
    found, error, tries = played(name, "busy", ASKED, PLAIN)
    assert error is None and tries == 3
    notices, rest = found[:2], found[2:]
    assert all(isinstance(notice, Notice) and "やり直します" in notice.text for notice in notices)
    assert rest == SAID


@pytest.mark.parametrize("name", ["azure_openai", "gemini"])
def test_a_question_that_the_service_filters_ends_as_a_filtered_answer(name: str) -> None:
    found, error, tries = played(name, "question_filtered", ASKED, PLAIN)
    assert error is None and tries == 1
    assert isinstance(found[0], Notice) and found[-1] == Done("content_filter")


@pytest.mark.parametrize("name", CALL_CUT)
def test_a_call_that_the_limit_cut_in_two_is_not_made(name: str) -> None:
    found, error, _ = played(name, "cut_call", WEATHER, TOOLS)
    assert error is None
    assert [type(event) for event in found] == [Notice, Usage, Done] and found[-1] == Done("length")


@pytest.mark.parametrize(("bound", "body"), [("MAX_LINE", b"data: " + b"x" * 5000), ("MAX_ANSWER", b": on and on\n" * 500)])
def test_a_server_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch, bound: str, body: bytes) -> None:
    monkeypatch.setattr(_wire, bound, 4000)
    with replay.replaying([replay.Response(200, {}, body)], cut=7) as server:
        found, error = events(find(PROVIDERS, "openai").chat(server.url, "m"), ASKED, PLAIN)
    assert isinstance(error, RemoteError) and "多すぎます" in str(error) and found == []


# ── what is asked


@pytest.mark.parametrize("name", [name for name in EVERY if name != "openai_compatible"])
@pytest.mark.parametrize(
    "given",
    [{"min_p": 0.1}, {"typical_p": 0.9}, {"repetition_penalty": 1.2}, {"min_tokens": 2}, {"ignore_eos": True}, {"stop_token_ids": (3,)}],
    ids=lambda given: next(iter(given)),
)
def test_what_a_service_does_not_have_is_refused_by_name_and_nothing_is_sent(name: str, given: dict[str, Any]) -> None:
    with replay.replaying([]) as server:
        _, error = events(find(PROVIDERS, name).chat(server.url, "m", "KEY"), ASKED, Options(Sampling(**given)))
    assert isinstance(error, ConfigError) and error.code == "unsupported" and next(iter(given)) in str(error)
    assert server.seen == []


@pytest.mark.parametrize("name", ["anthropic", "gemini"])
def test_what_has_no_place_in_a_conversation_there_is_refused(name: str) -> None:
    talk = find(PROVIDERS, name).chat("http://127.0.0.1:9", "m", "KEY")
    later = (*ASKED, Message("assistant", "東京"), SYSTEM, Message("user", "なぜ"))
    no_object = (*WEATHER, Message("assistant", "", (ToolCall("c", "weather", "[1]"),)))
    regex = Options(Sampling(constraint=constraint.Constraint("regex", "a+")))
    other = Options(Sampling(), tools=({"type": "custom", "custom": {}},))
    strange = Options(Sampling(), tools=({"type": "function", "function": {"name": "f", "weather": 1}},))
    for messages, options, word in (
        (later, PLAIN, "messages"),
        (no_object, PLAIN, "weather"),
        (ASKED, regex, "regex"),
        (ASKED, other, "tools[0]"),
        (ASKED, strange, "tools[0].function.weather"),
    ):
        _, error = events(talk, messages, options)
        assert isinstance(error, ConfigError) and word in str(error)


def test_a_temperature_beyond_what_the_service_takes_is_refused() -> None:
    _, error = events(find(PROVIDERS, "anthropic").chat("http://127.0.0.1:9", "m"), ASKED, Options(Sampling(temperature=1.5)))
    assert isinstance(error, ConfigError) and "temperature" in str(error)


def test_a_signature_goes_back_with_the_call_that_it_came_with() -> None:
    gemini = find(PROVIDERS, "gemini")
    reading = gemini.Reading()
    part = {"functionCall": {"name": "weather", "args": {"都市": "東京"}}, "thoughtSignature": "c2ln+/=="}
    reading("data: " + json.dumps({"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]}))
    call, done = reading.end()
    assert done == Done("tool_calls")
    sent = gemini.request((*WEATHER, Message("assistant", "", (call,)), Message("tool", "晴れ", tool_call_id=call.id)), PLAIN)
    _, asked, answered = sent["contents"]
    assert asked["parts"][0]["thoughtSignature"] == "c2ln+/=="
    assert asked["parts"][0]["functionCall"]["id"] == answered["parts"][0]["functionResponse"]["id"] != ""


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    "sent",
    ["nope", "[1]", '{"choices": 5}', '{"choices": [5], "candidates": [5], "type": "message_start"}', '{"type": "content_block_delta"}'],
)
def test_what_is_no_event_is_an_error_of_the_server_never_of_ours(name: str, sent: str) -> None:
    response = replay.Response(200, {}, f"data: {sent}\n\n".encode())
    with replay.replaying([response]) as server:
        found, error = events(find(PROVIDERS, name).chat(server.url, "m"), ASKED, PLAIN)
    assert isinstance(error, RemoteError) and found == []


def mutated(value: Any, draw: random.Random, chance: float) -> Any:
    """The same JSON with some values of another kind."""
    if draw.random() < chance:
        return draw.choice([None, True, -1, 1e400, "文", [], [5], {}, {"type": 5}, "x" * 50])
    if isinstance(value, dict):
        return {key: mutated(inner, draw, chance) for key, inner in value.items() if draw.random() > chance / 2}
    if isinstance(value, list):
        return [mutated(inner, draw, chance) for inner in value]
    return value


@pytest.mark.parametrize("name", EVERY)
def test_whatever_a_server_sends_what_comes_out_is_events_or_its_error(name: str) -> None:
    draw, module = random.Random(7), find(PROVIDERS, name)
    bodies = [replay.read(name, case).responses[0].body.decode() for case in ("text", "tool_call", "thought", "gave_up")]
    ends = {"events": 0, "error": 0}
    for turn in range(600):
        reading, found = module.Reading(), []
        try:
            for line in bodies[turn % 4].splitlines():
                if line.startswith("data: {"):
                    line = "data: " + json.dumps(mutated(json.loads(line[6:]), draw, 0.03))
                found += _wire._surely(partial(reading, line), "KEY")
            found += _wire._surely(reading.end, "KEY")
            ends["events"] += 1
        except RemoteError:
            ends["error"] += 1
        for event in found:
            parts = [getattr(event, each.name) for each in fields(event)]
            kinds = (str,) if isinstance(event, Text | Thought | Notice | ToolCall) else (int, str, dict)
            assert all(isinstance(part, (*kinds, tuple)) for part in parts), event
    assert min(ends.values()) > 50, ends


@pytest.mark.parametrize("name", EVERY)
def test_a_number_of_tokens_that_is_none_is_an_error(name: str) -> None:
    usage = {"prompt_tokens": -5, "promptTokenCount": -5, "input_tokens": -5}
    lines = [
        {
            "choices": [{"delta": {}, "finish_reason": "stop"}],
            "usage": usage,
            "candidates": [{"finishReason": "STOP"}],
            "usageMetadata": usage,
        }
        | {"type": "message_start", "message": {"usage": usage}},
        {"choices": [], "type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"choices": [], "type": "message_stop"},
    ]
    body = "".join(f"data: {json.dumps(line)}\n\n" for line in lines).encode()
    with replay.replaying([replay.Response(200, {}, body)]) as server:
        found, error = events(find(PROVIDERS, name).chat(server.url, "m"), ASKED, PLAIN)
    assert isinstance(error, RemoteError) and found == []


ONE_CALL = {
    "openai_compatible": {"tool_choice": "required", "parallel_tool_calls": False},
    "openai": {"tool_choice": "required", "parallel_tool_calls": False},
    "azure_openai": {"tool_choice": "required", "parallel_tool_calls": False},
    "anthropic": {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
    "gemini": {"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}},  # there is no way to ask it for few
}


@pytest.mark.parametrize("name", EVERY)
def test_how_many_calls_there_may_be_is_asked_in_the_words_of_the_service_and_held_here(name: str) -> None:
    exchange = replay.read(name, "tool_call")
    with replay.replaying(exchange.responses * 2) as server:
        talk = chat(find(PROVIDERS, name), server.url, exchange)
        found, error = events(talk, WEATHER, replace(TOOLS, calls=(1, 1)))
        none, _ = events(talk, WEATHER, replace(TOOLS, calls=(0, 0)))
    assert error is None and TOKYO in found and not any(isinstance(event, Notice) for event in found)
    assert server.seen[0][2] == {**exchange.body, **ONE_CALL[name]}
    assert TOKYO not in none and any(isinstance(event, Notice) and "除きました" in event.text for event in none)


@pytest.mark.parametrize("name", ["openai", "azure_openai", "anthropic"])
def test_what_another_service_wants_back_is_not_sent_to_this_one(name: str) -> None:
    exchange = replay.read(name, "tool_result")
    *before, call, one, two = RESULTS
    signed = replace(call, tool_calls=tuple(replace(each, id=f"{each.id}~c2ln+/==") for each in call.tool_calls))
    results = (replace(each, tool_call_id=f"{each.tool_call_id}~c2ln+/==") for each in (one, two))
    with replay.replaying(exchange.responses) as server:
        _, error = events(chat(find(PROVIDERS, name), server.url, exchange), [*before, signed, *results], TOOLS)
    assert error is None and server.seen[0][2] == exchange.body


@pytest.mark.parametrize("name", EVERY)
def test_an_error_within_the_answer_does_not_tell_the_key(name: str) -> None:
    body = json.dumps({"type": "error", "error": {"message": "bad key SECRET-KEY"}})
    with replay.replaying([replay.Response(200, {}, f"data: {body}\n\n".encode())]) as server:
        _, error = events(find(PROVIDERS, name).chat(server.url, "m", "SECRET-KEY"), ASKED, PLAIN)
    assert isinstance(error, RemoteError) and "bad key" in str(error) and "SECRET" not in str(error)


# ── patience


def test_nobody_listening_is_asked_again_and_then_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wire, "WAIT", 0.01)
    found, error = events(find(PROVIDERS, "openai").chat("http://127.0.0.1:9/v1", "m"), ASKED, PLAIN)
    assert len(found) == 2 and all(isinstance(event, Notice) for event in found)
    assert isinstance(error, RemoteError) and error.code == "unreachable"


@pytest.mark.parametrize("begun", [False, True])
def test_a_server_that_falls_silent_is_left_and_not_asked_again(monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
    """It may be working on it, and be paid for it."""
    monkeypatch.setattr(_connections, "TIMEOUT", httpx2.Timeout(0.3))
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def silent() -> None:
            connection, _ = listening.accept()
            asked.append(connection)
            connection.recv(1 << 16)
            if begun:
                connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")

        thread = threading.Thread(target=silent, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        found, error = events(find(PROVIDERS, "openai").chat(url, "m"), ASKED, PLAIN)
        thread.join(5)
        for connection in asked:
            connection.close()
    assert isinstance(error, RemoteError) and error.code == "timeout" and found == [] and len(asked) == 1


@pytest.mark.parametrize(
    ("status", "headers", "body", "tries"),
    [
        (503, {"retry-after": "21"}, "", 1),  # longer than anybody waits
        (429, {}, '{"error": {"code": "insufficient_quota", "message": "no money"}}', 1),
        (400, {"x-should-retry": "true", "retry-after": "0"}, "", 3),
        (503, {"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, "", 3),
        (503, {"retry-after": "nan", "retry-after-ms": "1"}, "", 3),
    ],
)
def test_the_server_says_whether_and_when_it_is_asked_again(status: int, headers: dict[str, str], body: str, tries: int) -> None:
    with replay.replaying([replay.Response(status, headers, body.encode())] * 5) as server:
        begun = time.monotonic()
        _, error = events(find(PROVIDERS, "openai").chat(server.url, "m"), ASKED, PLAIN)
        assert time.monotonic() - begun < 5
    assert error is not None and len(server.seen) == tries


def test_a_long_error_is_told_in_few_words() -> None:
    body = json.dumps({"error": {"message": "あ" * 100_000}}).encode()
    with replay.replaying([replay.Response(400, {}, body)]) as server:
        _, error = events(find(PROVIDERS, "anthropic").chat(server.url, "m"), ASKED, PLAIN)
    assert isinstance(error, ConfigError) and len(str(error)) < 1000


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    found, error, _ = played("anthropic", "text", *WHOLE["text"][:2])
    assert error is None and found == SAID


@pytest.mark.parametrize("name", EVERY)
def test_the_usual_address_is_a_safe_one_and_a_key_never_travels_in_the_clear(name: str) -> None:
    module = find(PROVIDERS, name)
    assert module.ADDRESS is None or module.ADDRESS.startswith("https://")
    with pytest.raises(ConfigError, match="暗号化"):
        module.chat("http://models.example/v1", "m", "KEY")
    with pytest.raises(ConfigError, match="文字"):
        module.chat("https://models.example/v1", "m", "KEY\r\nx: y")
    assert "KEY" not in repr(_wire.Place("https://models.example", {"x-api-key": "KEY"}, "KEY"))


def test_a_message_that_has_a_reason_to_stop_but_no_end_is_broken() -> None:
    exchange = replay.read("anthropic", "text")
    body = exchange.responses[0].body.partition(b"event: message_stop")[0]
    with replay.replaying([replay.Response(200, {}, body)]) as server:
        found, error = events(find(PROVIDERS, "anthropic").chat(server.url, "m"), ASKED, PLAIN)
    assert isinstance(error, RemoteError) and found == list(ANSWER)
