"""The door, by the official Anthropic client, and its wire form without a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic.types import message_count_tokens_params, message_create_params
from hypothesis import given
from hypothesis import strategies as st
from served import Repeated, Running

from tsuzuri.engine.sampling import Sampling
from tsuzuri.serve.models import Served, from_directory
from tsuzuri.serve.refusal import Refusal
from tsuzuri.serve.wire import anthropic_messages as wire
from tsuzuri.serve.wire.asked import Asked, Head
from tsuzuri.types import Done, Event, Message, Notice, Options, Text, Thought, ToolCall, Usage

HELLO = [{"role": "user", "content": "こんにちは"}]
TOOL = {"name": "weather", "description": "天気", "input_schema": {"type": "object", "properties": {"place": {"type": "string"}}}}
BASE: dict[str, Any] = {"model": "m", "max_tokens": 5, "messages": HELLO}


@pytest.fixture(scope="module")
def running(serving: Callable[..., Any], tiny: Path) -> Iterator[Running]:
    script = Repeated(Thought("ええと"), Text("こん"), Text("にちは。"), Notice("注意"), Usage(7, 3, 2), Done("stop", {"stop": "END"}))
    calls = Repeated(Text("調べます。"), ToolCall("c1", "weather", '{"place": "東京"}'), Usage(9, 8), Done("tool_calls"))
    late = Repeated(Text("あ"), ValueError("inside"))
    models = [
        Served("script", script, aliases=("claude-*",)),
        Served("caller", calls, tools=True),
        Served("late", late),
        from_directory(tiny),
    ]
    with serving(*models) as found:
        yield found


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=running.url, api_key=running.key, max_retries=0) as found:
        yield found


def test_an_answer_whole_and_by_another_name(client: anthropic.Anthropic) -> None:
    found = client.messages.create(model="claude-opus-9", max_tokens=50, messages=HELLO, system="短く", stop_sequences=["END"])
    assert [(block.type, getattr(block, "text", None) or block.thinking) for block in found.content] == [
        ("thinking", "ええと"),
        ("text", "こんにちは。"),
    ]
    assert (found.stop_reason, found.stop_sequence, found.model) == ("stop_sequence", "END", "script")
    assert (found.usage.input_tokens, found.usage.output_tokens, found.usage.cache_read_input_tokens) == (5, 3, 2)
    assert found.notices == ["注意"]


def test_the_models_are_listed(client: anthropic.Anthropic) -> None:
    found = list(client.models.list())
    assert found and all((model.type, model.display_name) == ("model", model.id) and model.created_at.tzinfo for model in found)
    assert client.models.retrieve(found[0].id).id == found[0].id


def test_streamed_is_whole(client: anthropic.Anthropic) -> None:
    for model, tools in (("script", []), ("caller", [TOOL])):
        whole = client.messages.create(model=model, max_tokens=50, messages=HELLO, tools=tools)
        with client.messages.stream(model=model, max_tokens=50, messages=HELLO, tools=tools) as stream:
            names = [event.type for event in stream]
            last = stream.get_final_message()
        assert [b.model_dump(exclude_none=True) for b in last.content] == [b.model_dump(exclude_none=True) for b in whole.content]
        assert (last.stop_reason, last.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
        assert names[0] == "message_start" and names[-1] == "message_stop"


def test_a_conversation_with_tools_comes_to_the_model_as_it_was(client: anthropic.Anthropic, running: Running) -> None:
    found = client.messages.create(model="caller", max_tokens=50, messages=HELLO, tools=[TOOL])
    call = found.content[1]
    assert (found.stop_reason, call.name, call.input) == ("tool_use", "weather", {"place": "東京"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "晴れ"}], "is_error": True}
    turns = [
        *HELLO,
        {"role": "assistant", "content": found.content},
        {"role": "user", "content": [{"type": "text", "text": "で？"}, result]},
    ]
    client.messages.create(model="caller", max_tokens=50, messages=turns, tools=[TOOL])
    messages, options = running.service.pool.get("caller").chat.calls[-1]
    assert messages[1:] == (
        Message("assistant", "調べます。", (ToolCall("c1", "weather", '{"place": "東京"}'),)),
        Message("tool", "[error] 晴れ", tool_call_id="c1"),
        Message("user", "で？"),
    )
    assert options.tools[0]["function"]["parameters"] == TOOL["input_schema"]


def test_counting_is_what_the_model_reads(client: anthropic.Anthropic) -> None:
    asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "system": "短く答えて"}
    count = client.messages.count_tokens(**asked).input_tokens
    found = client.messages.create(**asked, max_tokens=4)
    assert count == found.usage.input_tokens + (found.usage.cache_read_input_tokens or 0) > 0
    assert found.usage.output_tokens == 4 and found.stop_reason == "max_tokens"
    with client.messages.stream(**asked, max_tokens=4) as stream:
        begun = next(event for event in stream if event.type == "message_start")
        assert begun.message.usage.input_tokens == count


def test_errors_have_anthropics_shape(client: anthropic.Anthropic, running: Running) -> None:
    for change, kind, status in [
        ({"model": "none"}, "not_found_error", 404),
        ({"temprature": 1}, "invalid_request_error", 400),
        ({"model": "caller", "tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "invalid_request_error", 400),
    ]:
        with pytest.raises(anthropic.APIStatusError) as caught:
            client.messages.create(**{"model": "script", "max_tokens": 5, "messages": HELLO, "extra_body": change} | ({} if "temprature" in change else change))  # fmt: skip
        body: Any = caught.value.body
        assert (caught.value.status_code, body["type"], body["error"]["type"]) == (status, "error", kind)
        assert body["request_id"] == caught.value.response.headers["x-request-id"]
    with running.client() as raw:
        assert (
            raw.post("/v1/messages?beta=true", json=BASE, headers={"authorization": "Bearer x"}).json()["error"]["type"]
            == "authentication_error"
        )
        text = raw.post("/v1/messages", json={**BASE, "model": "late", "stream": True}).text
    assert text.split("\n\n")[-2].startswith("event: error\n") and "inside" not in text


# ── the wire


def test_every_field_of_the_official_client_has_its_place() -> None:
    theirs = {*message_create_params.MessageCreateParamsBase.__annotations__, "stream"}
    assert theirs <= {field.name for field in wire.FIELDS}
    assert set(message_count_tokens_params.MessageCountTokensParams.__annotations__) <= {field.name for field in wire.PROMPT}


WRONG = [
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": "a", "x": 1}]}, "messages[0].x"),
    ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "x": 1}]}]}, "messages[0].content[0].x"),
    ({"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "a"}]}]}, "messages[0].content[0].tool_use_id"),
    ({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "b", "input": 1}]}]}, "messages[0].content[0].input"),
    ({"system": 1}, "system"),
    ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools[0].name"),
    ({"tools": [{"name": "a"}]}, "tools[0].input_schema"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
    ({"tool_choice": {"type": "auto", "name": "weather"}}, "tool_choice.name"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "other"}}, "tool_choice"),
    ({"tools": [{**TOOL, "strict": True, "input_schema": {"type": "object", "not": {}}}]}, "tools[0].input_schema"),
    ({"output_config": {"format": {"type": "regex"}}}, "output_config.format.type"),
    ({"output_config": {"format": {"type": "json_schema", "schema": {"not": {}}}}}, "output_config.format.schema"),
    ({"output_config": {"effort": "low"}}, "output_config.effort"),
    ({"stop_sequences": "a" * 2000}, "stop_sequences"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1000}}, "thinking"),
    ({"temperature": 3}, "temperature"),
    ({"metadata": {"user_id": 1}}, "metadata"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "param"), WRONG, ids=lambda value: str(value)[:50])
def test_what_is_wrong_is_named(more: dict[str, Any], param: str) -> None:
    with pytest.raises(Refusal) as caught:
        wire.read({**BASE, **more})
    assert (caught.value.status, caught.value.param) == (400, param)


def test_what_clients_send_along_is_taken() -> None:
    asked = wire.read(
        {
            **BASE,
            "system": [{"type": "text", "text": "短く", "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "assistant", "content": [{"type": "thinking", "thinking": "x", "signature": "y"}, {"type": "text", "text": "は"}]}],
            "metadata": {"user_id": "u"},
            "thinking": {"type": "disabled"},
            "tools": [TOOL],
            "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
            "top_k": 5,
        }
    )  # fmt: skip
    assert asked.messages == (Message("system", "短く"), Message("assistant", "は"))
    assert asked.marks == {"metadata.user_id": "u"} and asked.options.calls == (0, 1) and asked.options.sampling.top_k == 5


event = st.one_of(
    st.builds(Text, st.text(max_size=3)), st.builds(Thought, st.text(max_size=3)), st.builds(ToolCall, st.just("c"), st.just("f"), st.just('{"a": 1}'))
)  # fmt: skip


@given(st.lists(event, max_size=8), st.sampled_from(["stop", "length", "content_filter"]), st.booleans())
def test_the_chunks_put_together_are_the_whole(events: list[Event], finish: Any, one_call: bool) -> None:
    script = [*events, Usage(3, 4, 1), Done(finish)]
    asked, head = Asked("m", Options(Sampling(), calls=(0, 1 if one_call else None))), Head("id", 1, "m")
    whole = wire.whole(head, asked, script)
    chunks = wire.Chunks(head, asked, 3)
    made = [chunk for event in script for chunk in chunks.event(0, event)] + chunks.end()
    blocks: list[dict[str, Any]] = []
    open_block = None
    for chunk in made[1:-2]:
        match chunk["type"]:
            case "content_block_start":
                assert open_block is None and chunk["index"] == len(blocks)
                open_block = chunk["index"]
                blocks.append(dict(chunk["content_block"]))
            case "content_block_delta":
                assert chunk["index"] == open_block
                delta, block = chunk["delta"], blocks[-1]
                if delta["type"] == "input_json_delta":
                    block["input"] = __import__("json").loads(delta["partial_json"])
                else:
                    field = delta["type"].removesuffix("_delta")
                    block[field] += delta[field]
            case "content_block_stop":
                open_block = None
    assert blocks == whole["content"] and open_block is None
    assert made[-2]["delta"]["stop_reason"] == whole["stop_reason"] and made[-2]["usage"] == whole["usage"]
