"""OpenAI's chat form without a server: every field has its place, every refusal names it, the chunks put together are the whole."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import typing_extensions
from hypothesis import given
from hypothesis import strategies as st
from openai.types import chat, shared_params
from openai.types.chat import completion_create_params
from openai.types.completion_create_params import CompletionCreateParamsBase

from tsuzuri.engine.constraint import Constraint
from tsuzuri.engine.sampling import Sampling
from tsuzuri.serve.refusal import Refusal
from tsuzuri.serve.wire import openai_chat, openai_completions
from tsuzuri.serve.wire.asked import Asked, Head, for_choice
from tsuzuri.types import Done, Event, Message, Notice, Options, Source, Text, Thought, Token, ToolCall, Usage

BASE: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "あ"}]}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
HEAD = Head("id", 1, "m", spell=lambda id: bytes([id % 256]))


def refusal(read: Any, request: dict[str, Any]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read(request)
    assert caught.value.status == 400
    return caught.value


# ── requests


def test_every_field_of_the_official_client_has_its_place() -> None:
    theirs = {*completion_create_params.CompletionCreateParamsBase.__annotations__, "stream"}
    ours = [field.name for field in openai_chat.FIELDS]
    assert theirs <= set(ours) and len(ours) == len(set(ours))
    assert {*CompletionCreateParamsBase.__annotations__, "stream"} <= {field.name for field in openai_completions.FIELDS}


@pytest.mark.parametrize("field", [field for field in openai_chat.FIELDS if field.use == "refused"], ids=lambda field: field.name)
def test_what_is_refused_is_refused_by_name_and_what_asks_for_nothing_is_taken(field: Any) -> None:
    found = refusal(openai_chat.read, {**BASE, field.name: "something else"})
    assert (found.param, found.code) == (field.name, "unsupported_parameter")
    for value in (None, *field.neutral):
        openai_chat.read({**BASE, field.name: value})


GOOD: dict[str, tuple[Any, Any]] = {  # field -> a value, and what it comes to
    "model": ("x", lambda a: a.model == "x"),
    "messages": ([{"role": "user", "content": "い"}], lambda a: a.messages == (Message("user", "い"),)),
    "max_completion_tokens": (5, lambda a: a.options.sampling.max_tokens == 5),
    "max_tokens": (5, lambda a: a.options.sampling.max_tokens == 5),
    "n": (3, lambda a: a.choices == 3),
    "stop": ("。", lambda a: a.options.stop == ("。",)),
    "logprobs": (True, lambda a: a.options.sampling.logprobs == 0),
    "top_logprobs": (None, lambda a: a.options.sampling.logprobs is None),
    "stream": (True, lambda a: a.stream),
    "stream_options": (None, lambda a: not a.usage_chunk),
    "tools": ([TOOL], lambda a: a.options.tools == (TOOL,)),
    "tool_choice": ("none", lambda a: a.options.tools == ()),
    "parallel_tool_calls": (False, lambda a: a.options.calls == (0, 1)),
    "response_format": ({"type": "json_object"}, lambda a: a.options.sampling.constraint == Constraint("json_object")),
    "structured_outputs": ({"regex": "a+"}, lambda a: a.options.sampling.constraint == Constraint("regex", "a+")),
    "temperature": (0.5, lambda a: a.options.sampling.temperature == 0.5),
    "top_k": (5, lambda a: a.options.sampling.top_k == 5),
    "top_p": (0.5, lambda a: a.options.sampling.top_p == 0.5),
    "min_p": (0.5, lambda a: a.options.sampling.min_p == 0.5),
    "typical_p": (0.5, lambda a: a.options.sampling.typical_p == 0.5),
    "logit_bias": ({"7": -3}, lambda a: a.options.sampling.logit_bias == ((7, -3.0),)),
    "repetition_penalty": (1.5, lambda a: a.options.sampling.repetition_penalty == 1.5),
    "presence_penalty": (1.5, lambda a: a.options.sampling.presence_penalty == 1.5),
    "frequency_penalty": (1.5, lambda a: a.options.sampling.frequency_penalty == 1.5),
    "seed": (5, lambda a: a.options.sampling.seed == 5),
    "min_tokens": (5, lambda a: a.options.sampling.min_tokens == 5),
    "ignore_eos": (True, lambda a: a.options.sampling.ignore_eos),
    "stop_token_ids": ([5], lambda a: a.options.sampling.stop_token_ids == (5,)),
    "user": ("u", lambda a: a.marks == {"user": "u"}),
    "safety_identifier": ("u", lambda a: a.marks == {"safety_identifier": "u"}),
    "metadata": ({"a": "b"}, lambda a: a.marks == {"metadata.a": "b"}),
    "prompt_cache_key": ("u", lambda a: a.marks == {}),
    "prompt_cache_options": ({"mode": "implicit"}, lambda a: a.marks == {}),
    "prompt_cache_retention": ("24h", lambda a: a.marks == {}),
}


@pytest.mark.parametrize("name", [field.name for field in openai_chat.FIELDS if field.use != "refused"])
def test_every_other_field_arrives(name: str) -> None:
    value, holds = GOOD[name]
    assert holds(openai_chat.read({**BASE, name: value}))


WRONG = [
    ({"model": 1}, "model"),
    ({"model": None}, "model"),
    ({"messages": []}, "messages"),
    ({"messages": "あ"}, "messages"),
    ({"messages": [1]}, "messages[0]"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"content": "あ"}]}, "messages[0].role"),
    ({"messages": [{"role": "robot", "content": "あ"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": "あ", "nmae": "x"}]}, "messages[0].nmae"),
    ({"messages": [{"role": "user", "content": "あ", "name": "x"}]}, "messages[0].name"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    ({"messages": [{"role": "user", "content": "x", "tool_call_id": "y"}]}, "messages[0].tool_call_id"),
    ({"messages": [{"role": "user", "content": "x", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": ""}}]}]}, "messages[0].tool_calls"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": ""}}]}]}, "messages[0].tool_calls[0].id"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, "max_completion_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"min_tokens": 9, "max_tokens": 3}, "min_tokens"),
    ({"temperature": 2.5}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"n": 0}, "n"),
    ({"n": 1000}, "n"),
    ({"stop": ["a"] * 5}, "stop"),
    ({"stop": [""]}, "stop"),
    ({"stop": 7}, "stop"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"logit_bias": {"1": 101}}, "logit_bias"),
    ({"logit_bias": [1]}, "logit_bias"),
    ({"stop_token_ids": [-1]}, "stop_token_ids"),
    ({"seed": 2**64}, "seed"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logprobs": 1}, "logprobs"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage"),
    ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
    ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"tools": [{"type": "function", "function": {"name": "a", "strict": "yes"}}]}, "tools[0].function.strict"),
    ({"tools": [{"type": "function", "function": {"name": "a", "strict": True, "parameters": {"not": {}}}}]}, "tools[0].function.parameters"),
    ({"tools": [{"type": "function", "function": {"name": "a", "strict": True, "parameters": {"type": "array"}}}]}, "tools[0].function.parameters"),
    ({"tools": [TOOL, TOOL]}, "tools[1]"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {}}}, "tool_choice.function.name"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "mode": "auto"}}, "tool_choice.mode"),
    ({"tools": [TOOL], "tool_choice": {"type": "custom", "custom": {"name": "f"}}}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "any", "tools": []}}}, "tool_choice.allowed_tools.mode"),
    ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "mcp"}]}}}, "tool_choice.allowed_tools.tools[0].type"),
    ({"response_format": {"type": "json_object", "x": 1}}, "response_format.x"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}, "response_format.json_schema.name"),
    ({"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}}, "structured_outputs"),
    ({"response_format": {"type": "json_object"}, "ignore_eos": True}, "ignore_eos"),
    ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
    ({"metadata": {"a": 1}}, "metadata"),
    ({"user": "x" * 513}, "user"),
    ({"temprature": 1}, "temprature"),
    ({"chat_template": "{{ 1 }}"}, "chat_template"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "param"), WRONG, ids=lambda value: str(value)[:50])
def test_what_is_wrong_is_named(more: dict[str, Any], param: str) -> None:
    assert refusal(openai_chat.read, {**BASE, **more}).param == param


FUNCTION = {"name": "f", "arguments": "{}"}
CALLED = {"id": "c", "type": "function", "function": FUNCTION}
Nested = tuple[Any, str, dict[str, Any], Callable[[Any], dict[str, Any]]]


def said(role: str, **more: Any) -> tuple[str, dict[str, Any], Callable[[Any], dict[str, Any]]]:
    return "messages[0]", {"role": role, "content": "あ", **more}, lambda value: {"messages": [value]}


def part(**of: Any) -> tuple[str, dict[str, Any], Callable[[Any], dict[str, Any]]]:
    return "messages[0].content[0]", of, lambda value: {"messages": [{"role": "user", "content": [value]}]}


NESTED: list[Nested] = [  # a type of the official client, where it stands, what of it is used, and a request around it
    (chat.ChatCompletionSystemMessageParam, *said("system")),
    (chat.ChatCompletionDeveloperMessageParam, *said("developer")),
    (chat.ChatCompletionUserMessageParam, *said("user")),
    (chat.ChatCompletionAssistantMessageParam, *said("assistant", refusal="だめ", tool_calls=[CALLED])),
    (chat.ChatCompletionToolMessageParam, *said("tool", tool_call_id="c")),
    (chat.ChatCompletionContentPartTextParam, *part(type="text", text="あ")),
    (chat.ChatCompletionContentPartRefusalParam, *part(type="refusal", refusal="だめ")),
    (chat.ChatCompletionMessageFunctionToolCallParam, "messages[0].tool_calls[0]", CALLED, lambda value: {"messages": [{"role": "assistant", "tool_calls": [value]}]}),
    (chat.chat_completion_message_function_tool_call_param.Function, "messages[0].tool_calls[0].function", FUNCTION, lambda value: {"messages": [{"role": "assistant", "tool_calls": [{**CALLED, "function": value}]}]}),
    (chat.ChatCompletionFunctionToolParam, "tools[0]", TOOL, lambda value: {"tools": [value]}),
    (shared_params.FunctionDefinition, "tools[0].function", {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": False}, lambda value: {"tools": [{"type": "function", "function": value}]}),
    (chat.ChatCompletionNamedToolChoiceParam, "tool_choice", {"type": "function", "function": {"name": "f"}}, lambda value: {"tools": [TOOL], "tool_choice": value}),
    (chat.chat_completion_named_tool_choice_param.Function, "tool_choice.function", {"name": "f"}, lambda value: {"tools": [TOOL], "tool_choice": {"type": "function", "function": value}}),
    (chat.ChatCompletionAllowedToolChoiceParam, "tool_choice", {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]}}, lambda value: {"tools": [TOOL], "tool_choice": value}),
    (chat.ChatCompletionAllowedToolsParam, "tool_choice.allowed_tools", {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]}, lambda value: {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": value}}),
    (chat.ChatCompletionStreamOptionsParam, "stream_options", {"include_usage": True}, lambda value: {"stream": True, "stream_options": value}),
    (shared_params.ResponseFormatText, "response_format", {"type": "text"}, lambda value: {"response_format": value}),
    (shared_params.ResponseFormatJSONObject, "response_format", {"type": "json_object"}, lambda value: {"response_format": value}),
    (shared_params.ResponseFormatJSONSchema, "response_format", {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}, lambda value: {"response_format": value}),
    (shared_params.response_format_json_schema.JSONSchema, "response_format.json_schema", {"name": "n", "schema": {}, "strict": True, "description": "d"}, lambda value: {"response_format": {"type": "json_schema", "json_schema": value}}),
]  # fmt: skip
ELSEWHERE = {  # types whose kind or field is refused as a whole
    "messages[0].role": [{"messages": [{"role": "function", "content": "あ"}]}],
    "messages[0].content[0].type": [
        {"messages": [{"role": "user", "content": [{"type": kind, kind: {}}]}]} for kind in ("image_url", "input_audio", "file")
    ],
    "messages[0].tool_calls[0].type": [{"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {}}]}]}],
    "messages[0].audio": [{"messages": [{"role": "assistant", "content": "あ", "audio": {"id": "a"}}]}],
    "tools[0].type": [{"tools": [{"type": "custom", "custom": {"name": "c"}}]}],
    "tool_choice": [{"tools": [TOOL], "tool_choice": {"type": "custom", "custom": {"name": "c"}}}],
}


@pytest.mark.parametrize(("theirs", "place", "taken", "around"), NESTED, ids=lambda value: getattr(value, "__name__", ""))
def test_every_field_within_a_field_is_used_or_refused_by_its_place(
    theirs: Any, place: str, taken: dict[str, Any], around: Callable[[Any], dict[str, Any]]
) -> None:
    openai_chat.read({**BASE, **around(taken)})
    for name in [*theirs.__annotations__, "nobody_knows_this"]:
        if name not in taken:
            value = True if name.startswith("include_") else "x"
            assert refusal(openai_chat.read, {**BASE, **around({**taken, name: value})}).param == f"{place}.{name}"


def test_what_is_refused_as_a_whole_is_named() -> None:
    for place, requests in ELSEWHERE.items():
        for more in requests:
            assert refusal(openai_chat.read, {**BASE, **more}).param == place


def test_no_type_of_the_official_client_is_forgotten_here() -> None:
    """Of all that a request is made of: what is neither in the table nor part of what is refused as a whole."""
    modules = [importlib.import_module(f"{chat.__name__}.{one.name}") for one in pkgutil.iter_modules(chat.__path__) if "param" in one.name]
    there = {
        kind
        for module in modules
        for kind in vars(module).values()
        if typing_extensions.is_typeddict(kind) and kind.__module__ == module.__name__ and not kind.__name__.startswith("CompletionCreate")
    }
    whole = ("Audio", "Voice", "Image", "File", "Custom", "FunctionCall", "FunctionMessage", "Prediction", "Moderation", "PromptCache", "WebSearch", "CompletionList", "CompletionUpdate")  # fmt: skip
    names = {kind.__name__ for kind in there - {row[0] for row in NESTED} if not any(word in kind.__name__ for word in whole)}
    assert names == {"Function"}, "that of the deprecated functions, which are refused"
    assert len(there) > 40


def test_a_field_nobody_knows_is_answered_with_the_nearest() -> None:
    assert "temperature" in refusal(openai_chat.read, {**BASE, "temprature": 1}).words.en


def test_a_new_sampling_field_would_be_new_in_http() -> None:
    names = {field.name for field in openai_chat.FIELDS}
    assert set(Sampling.__dataclass_fields__) - {"constraint"} <= names  # of the constraint there are `forms.FIELDS`


def test_parts_names_of_roles_and_echoed_answers_are_read() -> None:
    answer = {"role": "assistant", "content": None, "refusal": "だめ", "annotations": [], "audio": None, "function_call": None}
    asked = openai_chat.read(
        {
            **BASE,
            "messages": [
                {"role": "developer", "content": [{"type": "text", "text": "短"}, {"type": "text", "text": "く"}]},
                {**answer, "tool_calls": None},
                {"role": "user", "content": "あ"},
            ],
        }
    )
    assert asked.messages == (Message("system", "短\nく"), Message("assistant", "だめ"), Message("user", "あ"))


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt[1]"),
        ({"prompt": [[-1]]}, "prompt[0]"),
        ({"logprobs": 6}, "logprobs"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"best_of": 2}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"prompt": ["a"] * 64, "n": 2}, "n"),
        ({"prompt": ["a"] * 65}, "prompt"),
    ],
    ids=str,
)
def test_what_is_wrong_in_a_completion_is_named(more: dict[str, Any], param: str) -> None:
    assert refusal(openai_completions.read, {"model": "m", "prompt": "a", **more}).param == param


def test_prompts_are_texts_or_ids() -> None:
    for given_, found in [("a", ("a",)), (["a", "b"], ("a", "b")), ([1, 2], ((1, 2),)), ([[1], [2, 3]], ((1,), (2, 3)))]:
        assert openai_completions.read({"model": "m", "prompt": given_}).prompts == found
    assert openai_completions.read({"model": "m", "prompt": "a"}).options.sampling.max_tokens == 16


def test_choices_have_seeds_of_their_own_and_the_first_the_one_asked_for() -> None:
    options = Options(Sampling(seed=5))
    seeds = [for_choice(options, i).sampling.seed for i in range(4)]
    assert seeds[0] == 5 and len(set(seeds)) == 4 and seeds == [for_choice(options, i).sampling.seed for i in range(4)]
    assert for_choice(Options(Sampling()), 3).sampling.seed is None


# ── answers


def put_together(chunks: Sequence[dict[str, Any]], choices: int) -> list[dict[str, Any]]:
    """What a client makes of the chunks of each choice."""
    found: list[dict[str, Any]] = [{"content": None, "calls": [], "logprobs": None, "finish": None, "extra": {}} for _ in range(choices)]
    for chunk in chunks:
        for choice in chunk["choices"]:
            one, delta = found[choice["index"]], choice["delta"]
            if "content" in delta:
                one["content"] = (one["content"] or "") + delta["content"]
            for call in delta.get("tool_calls", []):
                if call["index"] == len(one["calls"]):
                    assert call["id"] and call["function"]["name"] and call["type"] == "function"
                    one["calls"].append({"id": call["id"], "type": "function", "function": dict(call["function"])})
                else:
                    one["calls"][call["index"]]["function"]["arguments"] += call["function"]["arguments"]
            for name in ("notices", "sources", "reasoning_content"):
                if name in delta:
                    one["extra"][name] = one["extra"][name] + delta[name] if name in one["extra"] else delta[name]
            if choice["logprobs"]:
                one["logprobs"] = (one["logprobs"] or []) + choice["logprobs"]["content"]
            one["finish"] = choice["finish_reason"] or one["finish"]
    return found


tokens = st.lists(st.builds(Token, st.integers(0, 255), st.floats(-9, 0)), max_size=3).map(tuple)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
event = st.one_of(
    st.builds(Text, words, tokens),
    st.builds(Thought, words),
    st.builds(Notice, words),
    st.builds(Source, words, words, words),
    st.builds(ToolCall, st.just("call"), st.just("f"), words),
)
scripts = st.lists(
    st.tuples(st.lists(event, max_size=8), st.sampled_from(["stop", "length", "tool_calls", "content_filter"])).map(
        lambda found: [*found[0], Usage(3, 4), Done(found[1])]
    ),
    min_size=1,
    max_size=3,
)


@given(scripts, st.booleans(), st.booleans(), st.booleans(), st.randoms())
def test_the_chunks_put_together_are_the_whole(
    answers: list[list[Event]], logprobs: bool, one_call: bool, usage_chunk: bool, random: Any
) -> None:
    asked = Asked(
        "m",
        Options(Sampling(logprobs=0 if logprobs else None), calls=(0, 1 if one_call else None)),
        choices=len(answers),
        usage_chunk=usage_chunk,
    )
    whole = openai_chat.whole(HEAD, asked, answers)
    writer, chunks = openai_chat.Chunks(HEAD, asked), []
    left = [list(answer) for answer in answers]
    while any(left):  # in any order
        index = random.choice([i for i, events in enumerate(left) if events])
        chunks += writer.event(index, left[index].pop(0))
    chunks += writer.end()
    json.dumps([whole, chunks], allow_nan=False)
    for choice, found in zip(whole["choices"], put_together(chunks, len(answers)), strict=True):
        message = choice["message"]
        assert (message["content"] or "") == (found["content"] or "")
        assert message.get("tool_calls", []) == found["calls"]
        assert choice["finish_reason"] == found["finish"]
        assert ((choice["logprobs"] or {}).get("content") or None) == found["logprobs"]
        assert {name: message[name] for name in ("notices", "sources", "reasoning_content") if name in message} == {
            name: value for name, value in found["extra"].items() if value
        }
    assert all(chunk["choices"] for chunk in chunks[: len(chunks) - usage_chunk])
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert (chunks[-1].get("usage") == whole["usage"]) is usage_chunk
    assert all("usage" in chunk for chunk in chunks) is usage_chunk


def test_the_reason_of_the_end() -> None:
    asked, call = Asked("m", Options(Sampling())), ToolCall("a", "f", "{}")

    def reason(*events: Event) -> str:
        return openai_chat.whole(HEAD, asked, [events])["choices"][0]["finish_reason"]

    assert reason(call, Done("stop")) == reason(call, Done("tool_calls")) == "tool_calls"
    assert reason(call, Done("length")) == "length", "cut off stays cut off"
    assert reason(Done("tool_calls")) == "stop", "no call, no reason"
    for events in ([Text("あ")], [Text("あ"), Done("cancelled")]):
        with pytest.raises(Refusal) as caught:
            reason(*events)
        assert caught.value.status == 503, "half an answer is none"


def test_a_model_that_does_not_count_has_no_usage() -> None:
    asked = Asked("m", Options(Sampling()), choices=2)
    assert openai_chat.whole(HEAD, asked, [[Usage(1, 2), Done("stop")], [Done("stop")]])["usage"] is None
    found = openai_chat.whole(HEAD, asked, [[Usage(5, 2, 1), Done("stop")], [Usage(5, 3), Done("stop")]])["usage"]
    assert (found["prompt_tokens"], found["completion_tokens"], found["total_tokens"]) == (5, 5, 10), "the prompt counts once"


def test_infinitely_improbable_is_a_number_and_half_characters_are_bytes() -> None:
    asked = Asked("m", Options(Sampling(logprobs=1)))
    token = Token(0xE3, float("-inf"), ((0x41, -0.5),))
    found = openai_chat.whole(HEAD, asked, [[Text("", (token,)), Done("stop")]])["choices"][0]["logprobs"]["content"][0]
    assert found == {
        "token": "bytes:\\xe3",
        "logprob": -9999.0,
        "bytes": [0xE3],
        "top_logprobs": [{"token": "A", "logprob": -0.5, "bytes": [0x41]}],
    }


@given(scripts)
def test_the_chunks_of_a_completion_put_together_are_the_whole(answers: list[list[Event]]) -> None:
    asked = Asked("m", Options(Sampling(logprobs=0)), prompts=tuple("p" * len(answers)))
    echoed = [f"前{i}" for i in range(len(answers))]
    whole = openai_completions.whole(HEAD, asked, answers, echoed)
    writer = openai_completions.Chunks(HEAD, asked, echoed)
    chunks = [chunk for index, events in enumerate(answers) for event in events for chunk in writer.event(index, event)]
    for index, choice in enumerate(whole["choices"]):
        mine = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert "".join(one["text"] for one in mine) == choice["text"]
        assert mine[-1]["finish_reason"] == choice["finish_reason"]
        for name in ("tokens", "token_logprobs", "text_offset"):
            assert [x for one in mine if one["logprobs"] for x in one["logprobs"][name]] == choice["logprobs"][name]
