"""OpenAI's responses: by the official client, and the order of their events without a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import response_create_params
from served import Repeated, Running

from tsuzuri.engine.sampling import Sampling
from tsuzuri.serve.models import Served, from_directory
from tsuzuri.serve.refusal import Refusal
from tsuzuri.serve.wire import openai_responses as wire
from tsuzuri.serve.wire.asked import Asked, Head
from tsuzuri.types import Done, Event, Message, Options, Text, Thought, ToolCall, Usage

TOOL = {"type": "function", "name": "weather", "description": "天気", "parameters": {"type": "object"}, "strict": False}
BASE: dict[str, Any] = {"model": "m", "input": "あ"}


@pytest.fixture(scope="module")
def running(serving: Callable[..., Any], tiny: Path) -> Iterator[Running]:
    script = Repeated(Thought("ええと"), Text("こん"), Text("にちは。"), Usage(7, 3, 2), Done("stop"))
    calls = Repeated(Text("調べます。"), ToolCall("c1", "weather", '{"place": "東京"}'), Usage(9, 8), Done("tool_calls"))
    late = Repeated(Text("あ"), ValueError("inside"))
    with serving(Served("script", script), Served("caller", calls, tools=True), Served("late", late), from_directory(tiny)) as found:
        yield found


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0) as found:
        yield found


def test_whole_and_streamed_are_the_same(client: openai.OpenAI) -> None:
    for model, tools in (("script", []), ("caller", [TOOL])):
        found = client.responses.create(model=model, input="こんにちは", tools=tools, metadata={"a": "b"})
        with client.responses.stream(model=model, input="こんにちは", tools=tools, metadata={"a": "b"}) as stream:
            names = [event.type for event in stream]
            last = stream.get_final_response()
        assert names[:2] == ["response.created", "response.in_progress"] and names[-1] == "response.completed"
        strip = lambda item: {k: v for k, v in item.model_dump(exclude_none=True).items() if k not in ("id", "parsed", "parsed_arguments")}  # noqa: E731
        texts = [[strip(item)["type"] for item in one.output] for one in (found, last)]
        assert texts[0] == texts[1] and found.output_text == last.output_text and found.usage == last.usage
    assert (found.output[1].name, found.output[1].arguments, found.status) == ("weather", '{"place": "東京"}', "completed")
    assert found.metadata == {"a": "b"}


def test_a_conversation_with_calls_comes_to_the_model_as_it_was(client: openai.OpenAI, running: Running) -> None:
    found = client.responses.create(model="caller", input="天気は", tools=[TOOL])
    items: list[Any] = [
        {"role": "user", "content": "天気は"},
        *found.output,
        {"type": "function_call_output", "call_id": "c1", "output": "晴れ"},
    ]
    client.responses.create(model="caller", input=items, instructions="短く", tools=[TOOL, {"type": "web_search"}])
    messages, options = running.service.pool.get("caller").chat.calls[-1]
    assert messages == (
        Message("system", "短く"),
        Message("user", "天気は"),
        Message("assistant", "調べます。", (ToolCall("c1", "weather", '{"place": "東京"}'),)),
        Message("tool", "晴れ", tool_call_id="c1"),
    )
    assert [tool["function"]["name"] for tool in options.tools] == ["weather"]
    told = client.responses.create(model="caller", input="あ", tools=[{"type": "web_search"}]).model_dump()
    assert "web_search" in told["notices"][0]


def test_a_model_of_our_own_and_its_limit(client: openai.OpenAI) -> None:
    found = client.responses.create(model="tiny", input="こんにちは", max_output_tokens=16, temperature=0)
    assert (found.status, found.incomplete_details.reason, found.usage.output_tokens) == ("incomplete", "max_output_tokens", 16)
    chat = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "こんにちは"}], max_tokens=16, temperature=0)
    assert found.output_text == chat.choices[0].message.content


def test_an_error_after_the_first_byte_reaches_the_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError) as caught:
        list(client.responses.create(model="late", input="あ", stream=True))
    assert "inside" not in str(caught.value)


def test_every_field_of_the_official_client_has_its_place() -> None:
    theirs = {*response_create_params.ResponseCreateParamsBase.__annotations__, "stream"}
    assert theirs <= {field.name for field in wire.FIELDS}


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "robot", "content": "a"}]}, "input[0].role"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": ""}]}, "input[0].call_id"),
        ({"previous_response_id": 1}, "previous_response_id"),
        ({"store": "yes"}, "store"),
        ({"background": True}, "background"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_object", "name": "a"}}}, "text.format.name"),
        ({"text": {"format": {"type": "json_schema", "name": "a b", "schema": {}}}}, "text.format.name"),
        ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {"not": {}}}}}, "text.format.schema"),
        ({"text": {"verbosity": "high"}}, "text.verbosity"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
        ({"tools": [{**TOOL, "strict": True, "parameters": {"not": {}}}]}, "tools[0].parameters"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function"}]}},
            "tool_choice.tools[0].name",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"inptu": 1}, "inptu"),
        ({"input": [{"role": "user", "content": "あ", "weight": 2}]}, "input[0].weight"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "あ", "weight": 2}]}]}, "input[0].content[0].weight"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "", "x": 1}]}, "input[0].x"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "", "x": 1}]}, "input[0].x"),
        ({"input": [{"type": "reasoning", "id": "r", "summary": [], "x": 1}]}, "input[0].x"),
        ({"tools": [{**TOOL, "defer_loading": True}]}, "tools[0].defer_loading"),
        (
            {
                "tools": [TOOL],
                "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f", "x": 1}]},
            },
            "tool_choice.tools[0].x",
        ),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(more: dict[str, Any], param: str) -> None:
    with pytest.raises(Refusal) as caught:
        wire.read({**BASE, **more})
    assert (caught.value.status, caught.value.param) == (400, param)


event = st.one_of(
    st.builds(Text, st.text(max_size=3)), st.builds(Thought, st.text(max_size=3)), st.builds(ToolCall, st.just("c"), st.just("f"), st.text(max_size=3))
)  # fmt: skip


@given(st.lists(event, max_size=8), st.sampled_from(["stop", "length", "content_filter"]))
def test_the_deltas_put_together_are_the_last_event(events: list[Event], finish: Any) -> None:
    asked, head = Asked("m", Options(Sampling())), Head("resp_1", 1, "m")
    chunks = wire.Chunks(head, asked)
    script = [*events, Usage(1, 2), Done(finish)]
    made = [chunk for event in script for chunk in chunks.event(0, event)] + chunks.end()
    assert [chunk["sequence_number"] for chunk in made] == list(range(len(made)))
    texts: dict[int, str] = {}
    done: dict[int, Any] = {}
    for chunk in made:
        if chunk["type"].endswith(".delta"):
            texts[chunk["output_index"]] = texts.get(chunk["output_index"], "") + chunk["delta"]
        if chunk["type"] == "response.output_item.done":
            done[chunk["output_index"]] = chunk["item"]
    output = made[-1]["response"]["output"]
    assert [done[i] for i in range(len(output))] == output, "every item was begun and ended"
    for i, item in enumerate(output):
        kept = item["arguments"] if item["type"] == "function_call" else (item.get("content") or item.get("summary"))[0]["text"]
        assert texts[i] == kept
    assert wire.whole(head, asked, script) == made[-1]["response"]
    assert made[0]["response"]["output"] == [], "what an event held does not change later"


def test_half_an_answer_is_none() -> None:
    with pytest.raises(Refusal) as caught:
        wire.whole(Head("resp_1", 1, "m"), Asked("m", Options(Sampling())), [Text("あ")])
    assert caught.value.status == 503
