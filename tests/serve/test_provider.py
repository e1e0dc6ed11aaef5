"""A model elsewhere: the same events over real HTTP as from the Chat behind it, and every way in which it can fail told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from served import Repeated, Running, until

from tsuzuri.chat.local import LocalModel
from tsuzuri.chat.providers import anthropic
from tsuzuri.chat.providers import openai_compatible as provider
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import ConfigError, RemoteError
from tsuzuri.serve.models import Served, from_directory
from tsuzuri.types import Done, Event, Message, Notice, Options, Text, Thought, ToolCall, Usage

ASKED = [Message("system", "短く"), Message("user", "こんにちは\u2028。")]
SCRIPT = (
    Thought("ええと"),
    Text("はい、\u2028"),
    Text("どうぞ\n。"),
    Notice("注意"),
    ToolCall("c1", "f", '{"あ": 1}'),
    ToolCall("c2", "g", "{}"),
)
TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.fixture(scope="module")
def running(serving: Callable[..., Any], tiny: Path) -> Iterator[Running]:
    models = [
        Served("script", Repeated(*SCRIPT, Usage(5, 4, 1), Done("tool_calls")), tools=True),
        Served("half", Repeated(Text("途中"), RuntimeError("/secret/path"))),
        Served("endless", Repeated(*[part for _ in range(2000) for part in (0.01, Text("あ"))], Done("stop"))),
        Served("filter", Repeated(Text("あ"), Done("content_filter"))),
        from_directory(tiny),
    ]
    with serving(*models) as found:
        yield found


def events(
    running: Running,
    model: str,
    options: Options | None = None,
    key: str | None = None,
    module: ModuleType = provider,
    asked: Sequence[Message] = ASKED,
) -> list[Event]:
    chat = module.chat(f"{running.url}/v1", model, running.key if key is None else key)

    async def all_of() -> list[Event]:
        return [event async for event in chat(asked, options or Options(Sampling()))]

    return asyncio.run(all_of())


def test_the_same_events_as_from_the_chat_behind_it(running: Running) -> None:
    found = events(running, "script", Options(Sampling(), tools=(TOOL,)))
    assert found == [*SCRIPT, Usage(5, 4, 1), Done("tool_calls")]
    assert running.service.pool.get("script").chat.calls[-1][0] == tuple(ASKED)


def test_the_same_events_in_the_other_form(running: Running) -> None:
    """Over /v1/messages a Notice comes with the end: that form has no other place for it."""
    found = events(running, "script", Options(Sampling(max_tokens=9), tools=(TOOL,)), module=anthropic)
    notices = [event for event in SCRIPT if isinstance(event, Notice)]
    calls = [event for event in SCRIPT if isinstance(event, ToolCall)]
    said = [event for event in SCRIPT if event not in notices + calls]
    found = [replace(e, arguments=e.arguments.replace('":', '": ')) if isinstance(e, ToolCall) else e for e in found]  # objects there
    assert found == [*said, *notices, *calls, Usage(5, 4, 1), Done("tool_calls")]
    messages, options = running.service.pool.get("script").chat.calls[-1]
    assert messages == tuple(ASKED) and options.sampling.max_tokens == 9
    assert options.tools[0]["function"]["name"] == "f"


def test_results_of_tools_come_back_in_both_forms(running: Running) -> None:
    call = ToolCall("c1", "f", '{"あ": 1}')
    talk = [*ASKED, Message("assistant", "見ます", (call,)), Message("tool", "結果", tool_call_id="c1")]
    for module in (provider, anthropic):
        events(running, "script", Options(Sampling(), tools=(TOOL,)), module=module, asked=talk)
        assert running.service.pool.get("script").chat.calls[-1][0] == tuple(talk), module.__name__


def test_both_forms_give_the_text_of_the_model_itself_and_end_where_it_is_cut(running: Running) -> None:
    options = Options(Sampling(temperature=0, max_tokens=7))
    other_talk = [Message("user", "べつの話")]  # what is read here is found again, and counted as that
    one, other = (events(running, "tiny", options, module=module, asked=other_talk) for module in (provider, anthropic))
    texts = ["".join(event.text for event in found if isinstance(event, Text)) for found in (one, other)]
    assert texts[0] == texts[1] != ""
    assert one[-1] == other[-1]
    read = [(event.prompt_tokens, event.completion_tokens) for event in (one[-2], other[-2]) if isinstance(event, Usage)]
    assert read[0] == read[1] and read[0][1] > 0


@pytest.mark.parametrize("module", [provider, anthropic], ids=["openai_compatible", "anthropic"])
def test_whoever_stops_listening_ends_the_work_over_there(running: Running, module: ModuleType) -> None:
    chat, script = module.chat(f"{running.url}/v1", "endless", running.key), running.service.pool.get("endless").chat

    async def two() -> None:
        answer = chat(ASKED, Options(Sampling()))
        async for event in answer:
            if isinstance(event, Text):
                await answer.aclose()
                return

    closed = script.closed
    asyncio.run(two())
    assert until(lambda: script.closed == closed + 1)


def test_settings_arrive_and_an_answer_is_that_of_the_model_itself(running: Running, tiny: Path) -> None:
    options = Options(
        Sampling(temperature=0.8, seed=5, max_tokens=20, logit_bias={300: -2.5}, top_k=40, repetition_penalty=1.2, stop_token_ids=(7,)),
        stop=("ほげほげ",),
    )

    async def direct() -> list[Event]:
        return [event async for event in LocalModel(tiny).chat_events(ASKED, options)]

    def text(events: list[Event]) -> str:
        return "".join(event.text for event in events if isinstance(event, Text))

    own = asyncio.run(direct())
    found = events(running, "tiny", options)
    assert text(found) == text(own)
    assert found[-2:] == own[-2:], "usage and end"


@pytest.mark.parametrize("module", [provider, anthropic], ids=["openai_compatible", "anthropic"])
def test_a_cut_answer_is_an_error_and_tells_no_secrets(running: Running, module: ModuleType) -> None:
    with pytest.raises(RemoteError) as caught:
        events(running, "half", module=module)
    assert "secret" not in str(caught.value)


def test_ends_are_told_as_they_are(running: Running) -> None:
    assert events(running, "filter")[-1] == Done("content_filter")


def test_refusals_come_in_the_servers_words(running: Running) -> None:
    with pytest.raises(ConfigError, match="モデル「none」"):
        events(running, "none")
    with pytest.raises(RemoteError, match="401"):
        events(running, "script", key="tsz_wrong")
    with pytest.raises(ConfigError, match="logprobs"):
        events(running, "script", Options(Sampling(logprobs=1)))


def test_nobody_there_is_told() -> None:
    async def ask() -> None:
        async for _ in provider.chat("http://127.0.0.1:9/v1", "x")(ASKED, Options(Sampling())):
            pass

    with pytest.raises(RemoteError, match="接続"):
        asyncio.run(ask())


@pytest.mark.parametrize("address", ["", "localhost:8000", "ftp://host/v1", "http://", "http://u:p@127.0.0.1/v1", "http://h/v1?x=1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError):
        provider.chat(address, "x")


def test_a_key_does_not_travel_in_the_clear() -> None:
    with pytest.raises(ConfigError, match="暗号化"):
        provider.chat("http://models.example/v1", "x", "secret")
    provider.chat("https://models.example/v1", "x", "secret")


@pytest.mark.parametrize(
    "lines",
    [
        ["data: {nope"],
        ["data: [1]"],
        ['data: {"choices":[{"delta":{"content":"a"}}]}'],  # no end
        ['data: {"error":{"message":"out of memory"}}'],
        ["data: [DONE]"],
    ],
)
def test_a_stream_that_is_none_is_told(lines: list[str]) -> None:
    reading = provider.Reading()
    with pytest.raises(RemoteError):
        for line in lines:
            reading(line)
        reading.end()


def test_calls_in_pieces_are_put_together_by_their_index() -> None:
    reading = provider.Reading()
    pieces = [(1, "b", "g", ""), (0, "a", "f", '{"x"'), (1, None, None, "{}"), (0, None, None, ": 1}")]
    for index, id, name, arguments in pieces:
        call = {"index": index, "id": id, "function": {"name": name, "arguments": arguments}}
        reading("data: " + provider.json.dumps({"choices": [{"delta": {"tool_calls": [call]}}]}))
    reading('data: {"choices":[{"delta":{},"finish_reason":"tool_calls"}]}')
    assert reading.end() == [ToolCall("a", "f", '{"x": 1}'), ToolCall("b", "g", "{}"), Done("tool_calls")]


def test_a_reason_that_nobody_knows_is_kept() -> None:
    reading = provider.Reading()
    reading('data: {"choices":[{"delta":{},"finish_reason":"weather"}]}')
    assert reading.end() == [Done("stop", {"finish_reason": "weather"})]


def test_a_signature_in_the_id_of_a_call_comes_back_through_the_service(running: Running) -> None:
    """Gemini's newer models want one back of some kilobytes."""
    call = ToolCall("c1~" + "s" * 20_000, "f", "{}")
    talk = [*ASKED, Message("assistant", "", (call,)), Message("tool", "結果", tool_call_id=call.id)]
    events(running, "script", Options(Sampling(), tools=(TOOL,)), asked=talk)
    assert running.service.pool.get("script").chat.calls[-1][0] == tuple(talk)
