"""Tools and forms through the door, by the official clients, on a model of our own with random weights: what is asked for is kept to."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import anthropic
import jsonschema
import openai
import pytest
import toy
from pydantic import BaseModel, Field
from served import Repeated, Running

from tsuzuri.chat.providers import openai_compatible as provider
from tsuzuri.engine.sampling import Sampling
from tsuzuri.serve.models import Served, from_directory
from tsuzuri.types import Done, Message, Options, Text, Usage

HELLO: list[Any] = [{"role": "user", "content": "天気は？"}]
PLACE = {
    "type": "object",
    "properties": {"place": {"enum": ["東京", "大阪"]}, "day": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["place", "day"],
    "additionalProperties": False,
}
WEATHER: dict[str, Any] = {"name": "weather", "description": "天気", "parameters": PLACE}
CLOCK: dict[str, Any] = {"name": "clock", "description": "時刻"}
TOOLS: list[Any] = [{"type": "function", "function": tool} for tool in (WEATHER, CLOCK)]
FLAT: list[Any] = [{"type": "function", "strict": False, "parameters": None, **tool} for tool in (WEATHER, CLOCK)]
THEIRS: list[Any] = [
    {"name": "weather", "description": "天気", "input_schema": PLACE},
    {"name": "clock", "description": "時刻", "input_schema": {"type": "object", "additionalProperties": False}},
]
MODEL: dict[str, Any] = {"model": "m", "seed": 1}


@pytest.fixture(scope="module")
def running(serving: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    script = Repeated(Text("はい"), Usage(1, 1), Done("stop"))
    with serving(from_directory(toy.make(tmp_path_factory.mktemp("tools") / "m", 2048)), Served("script", script, tools=True)) as found:
        yield found


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0) as found:
        yield found


@pytest.fixture(scope="module")
def theirs(running: Running) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=running.url, api_key=running.key, max_retries=0) as found:
        yield found


def valid(name: str, arguments: Any) -> bool:
    jsonschema.validate(arguments, PLACE if name == "weather" else {"type": "object", "maxProperties": 0})
    return True


NAMED = {"type": "function", "function": {"name": "clock"}}
ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}


@pytest.mark.parametrize(("choice", "names"), [("required", {"weather", "clock"}), (NAMED, {"clock"}), (ALLOWED, {"clock"})], ids=str)
def test_a_choice_of_the_chat_form_is_kept_to(client: openai.OpenAI, choice: Any, names: set[str]) -> None:
    asked = {**MODEL, "messages": HELLO, "tools": TOOLS, "tool_choice": choice, "max_tokens": 700}
    found = client.chat.completions.create(**asked)
    calls = found.choices[0].message.tool_calls
    assert calls and found.choices[0].finish_reason == "tool_calls" and found.choices[0].message.content is None
    assert all(call.function.name in names and valid(call.function.name, json.loads(call.function.arguments)) for call in calls)
    assert len(calls) == 1 or choice != NAMED
    with client.chat.completions.stream(**asked) as stream:
        chunks = [event.chunk for event in stream if event.type == "chunk"]
        last = stream.get_final_completion().choices[0]
    same = [(call.function.name, call.function.arguments) for call in calls]
    assert [(call.function.name, call.function.arguments) for call in last.message.tool_calls] == same, "streamed = whole"
    deltas = [delta for chunk in chunks for choice in chunk.choices for delta in choice.delta.tool_calls or []]
    for index in range(len(calls)):
        mine = [delta for delta in deltas if delta.index == index]
        assert mine[0].id and mine[0].function.name and all(delta.id is None and delta.function.name is None for delta in mine[1:])


def test_none_and_auto(client: openai.OpenAI) -> None:
    asked = {**MODEL, "messages": HELLO, "tools": TOOLS, "max_tokens": 8}
    none = client.chat.completions.create(**asked, tool_choice="none")
    plain = client.chat.completions.create(**{**asked, "tools": openai.NOT_GIVEN})
    auto = client.chat.completions.create(**asked)
    assert none.usage == plain.usage and none.choices[0].message.content == plain.choices[0].message.content
    assert auto.usage.prompt_tokens > none.usage.prompt_tokens + 100, "the model reads of them"


def test_not_in_parallel_is_one(client: openai.OpenAI) -> None:
    asked = {**MODEL, "messages": HELLO, "tools": TOOLS, "tool_choice": "required", "max_tokens": 1000}
    several = [len(client.chat.completions.create(**{**asked, "seed": seed}).choices[0].message.tool_calls) for seed in range(8)]
    assert max(several) > 1, "otherwise nothing is shown here"
    seed = several.index(max(several))
    alone = client.chat.completions.create(**{**asked, "seed": seed}, parallel_tool_calls=False)
    assert len(alone.choices[0].message.tool_calls) == 1


def test_the_answer_of_a_tool_is_read_and_counted(client: openai.OpenAI, running: Running) -> None:
    called = client.chat.completions.create(**MODEL, messages=HELLO, tools=TOOLS, tool_choice="required", max_tokens=700).choices[0].message
    answers = [{"role": "tool", "tool_call_id": call.id, "content": "晴れ"} for call in called.tool_calls]
    talk = [*HELLO, called.model_dump(exclude_none=True), *answers]
    found = client.chat.completions.create(**MODEL, messages=talk, tools=TOOLS, max_tokens=4)
    with running.client() as raw:
        count = lambda **more: raw.post("/tokenize", json={"model": "m", **more}).json()["count"]  # noqa: E731
        assert count(messages=talk, tools=TOOLS) == found.usage.prompt_tokens > count(messages=talk) > count(messages=HELLO) + 20
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**MODEL, messages=[*HELLO, *answers], tools=TOOLS)


def test_a_call_cut_off_is_length(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(**MODEL, messages=HELLO, tools=TOOLS, tool_choice="required", max_tokens=12).choices[0]
    assert found.finish_reason == "length" and not found.message.tool_calls


def test_choices_of_anthropics_form(theirs: anthropic.Anthropic) -> None:
    asked: dict[str, Any] = {"model": "m", "messages": HELLO, "tools": THEIRS, "max_tokens": 900, "extra_body": {"seed": 3}}
    for choice, names in (({"type": "any"}, {"weather", "clock"}), ({"type": "tool", "name": "weather"}, {"weather"})):
        found = theirs.messages.create(**asked, tool_choice={**choice, "disable_parallel_tool_use": True})
        assert found.stop_reason == "tool_use" and [block.type for block in found.content] == ["tool_use"]
        assert found.content[0].name in names and valid(found.content[0].name, found.content[0].input)
        with theirs.messages.stream(**asked, tool_choice={**choice, "disable_parallel_tool_use": True}) as stream:
            pieces = [event.delta.partial_json for event in stream if event.type == "content_block_delta"]
            last = stream.get_final_message()
        assert json.loads("".join(pieces)) == found.content[0].input == last.content[0].input
    counted = theirs.messages.count_tokens(model="m", messages=HELLO, tools=THEIRS)
    assert counted.input_tokens == found.usage.input_tokens + found.usage.cache_read_input_tokens + (
        counted.input_tokens - theirs.messages.count_tokens(model="m", messages=HELLO, tools=THEIRS[:1]).input_tokens
    ), "a tool by name is the only one that is shown"
    both = theirs.messages.create(**{**asked, "max_tokens": 4})
    assert both.usage.input_tokens + both.usage.cache_read_input_tokens == counted.input_tokens


def test_choices_of_the_responses_form(client: openai.OpenAI) -> None:
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]}
    for choice in ("required", {"type": "function", "name": "weather"}, allowed):
        asked: dict[str, Any] = {"model": "m", "input": "天気は？", "tools": FLAT, "tool_choice": choice, "max_output_tokens": 900}
        found = client.responses.create(**asked, extra_body={"seed": 3})
        calls = [item for item in found.output if item.type == "function_call"]
        assert calls and all(valid(call.name, json.loads(call.arguments)) for call in calls)
        assert choice == "required" or {call.name for call in calls} == {"weather"}
        with client.responses.stream(**asked, extra_body={"seed": 3}) as stream:
            names = [event.type for event in stream]
        assert names.index("response.output_item.added") < names.index("response.function_call_arguments.delta")
        assert names.index("response.function_call_arguments.done") < names.index("response.output_item.done")
        assert found.tool_choice == choice or found.tool_choice.type == choice["type"]


def test_a_strict_tool_is_held_and_parsed(client: openai.OpenAI) -> None:
    class Where(BaseModel):
        place: City
        day: int | None = Field(ge=1, le=31)

    tool = openai.pydantic_function_tool(Where, name="where", description="天気")
    found = client.chat.completions.parse(**MODEL, messages=HELLO, tools=[tool], tool_choice="required", max_tokens=900)
    parsed = found.choices[0].message.tool_calls[0].function.parsed_arguments
    assert isinstance(parsed, Where) and parsed.place in City


def test_a_model_elsewhere_is_asked_for_the_same(running: Running) -> None:
    """Through our own server: what arrives there is what was asked for here."""
    script, tool = running.service.pool.get("script").chat, {"type": "function", "function": {**WEATHER, "strict": True}}
    for calls in ((0, None), (1, None), (0, 1), (1, 1)):
        options = Options(Sampling(), tools=(tool,), calls=calls)

        async def ask(options: Options = options) -> None:
            async for _ in provider.chat(f"{running.url}/v1", "script", running.key)([Message("user", "a")], options):
                pass

        asyncio.run(ask())
        assert script.calls[-1][1] == options


def test_without_the_package_it_is_named(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    tools = [{"type": "function", "function": {"name": "new"}}]
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(**MODEL, messages=HELLO, tools=tools, tool_choice="required")
    assert caught.value.status_code == 501 and "tsuzuri[constrain]" in caught.value.message


# ── forms, by Pydantic


class City(Enum):
    tokyo = "東京"
    osaka = "大阪"


class Stop(BaseModel):
    city: City
    note: str | None = Field(max_length=3)


class Tree(BaseModel):
    kind: City
    inner: Tree | None


class Route(BaseModel):
    """Without bounds: Anthropic's client takes them out of the schema and checks them alone."""

    legs: list[list[City]]
    sunny: bool | None
    tree: Tree


class Trip(BaseModel):
    stops: list[list[Stop]] = Field(max_length=2)
    days: int = Field(ge=1, le=9)
    tree: Tree


@pytest.mark.parametrize("seed", range(3))
def test_an_answer_is_parsed_by_each_client(client: openai.OpenAI, theirs: anthropic.Anthropic, seed: int) -> None:
    """$defs, anyOf with null, enums, lists in lists, recursion."""
    known: dict[str, Any] = {"model": "m", "extra_body": {"seed": seed}}
    chat = client.chat.completions.parse(**known, messages=HELLO, response_format=Trip, max_tokens=1500)
    responses = client.responses.parse(**known, input="旅", text_format=Trip, max_output_tokens=1500)
    message = theirs.messages.parse(**known, messages=HELLO, output_format=Route, max_tokens=1500)
    assert isinstance(message.parsed_output, Route)
    for found in (chat.choices[0].message.parsed, responses.output_parsed):
        assert isinstance(found, Trip) and 1 <= found.days <= 9
    assert responses.text.format.type == "json_schema", "said back"


def test_any_json_and_no_form(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "m", "input": "あ", "extra_body": {"seed": 1, "logit_bias": {}}, "max_output_tokens": 6}
    text = client.responses.create(**asked, text={"format": {"type": "text"}, "verbosity": "medium"})
    assert text.output_text == client.responses.create(**asked).output_text
    assert client.responses.create(**asked, text={"format": {"type": "json_object"}}).output_text.lstrip().startswith("{")


def test_a_form_beside_tools_is_the_answer_or_a_call(client: openai.OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer", "minimum": 1, "maximum": 9}}}
    met = set()
    for seed in range(8):
        asked = {**MODEL, "messages": HELLO, "tools": TOOLS, "response_format": form, "max_tokens": 900, "seed": seed}
        found = client.chat.completions.create(**asked).choices[0]
        met.add(found.finish_reason)
        assert found.message.tool_calls or 1 <= json.loads(found.message.content or "") <= 9
    assert met <= {"stop", "tool_calls"}


def test_a_hostile_form_is_refused_and_a_bystander_is_answered(client: openai.OpenAI) -> None:
    """What the bounds see, at once; what they let through and the other process ends, a little later."""
    known = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer", "maximum": 9}}}
    client.chat.completions.create(**MODEL, messages=HELLO, response_format=known, max_tokens=2)
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(40):
        deep = {"type": "array", "items": deep}
    for text in ({"json": deep}, {"regex": "(a{0,50}){0,50}" * 40}, {"grammar": "start: " + "(" * 500 + ")" * 500}, {"regex": "(?=a)b"}):
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(**MODEL, messages=HELLO, extra_body={"structured_outputs": text})
    assert client.chat.completions.create(**MODEL, messages=HELLO, response_format=known, max_tokens=2).choices
