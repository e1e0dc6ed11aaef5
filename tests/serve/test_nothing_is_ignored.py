"""In every form, at every depth: a key that nobody knows is refused, and the refusal names where it stands."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tsuzuri.serve.refusal import Refusal
from tsuzuri.serve.wire import (
    anthropic_messages,
    ollama,
    openai_chat,
    openai_completions,
    openai_embeddings,
    openai_moderations,
    openai_responses,
    rerank,
    tokens,
)

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
FUNCTION = {"name": "f", "description": "d", "parameters": SCHEMA}
FREE = ("input_schema", "schema", "parameters", "arguments")  # what the client makes up: no keys of ours are in it
FORMS: dict[str, tuple[Callable[[Any], Any], dict[str, Any]]] = {
    "chat": (
        openai_chat.read,
        {
            "model": "m",
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "あ"}]},
                {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "tool", "tool_call_id": "c", "content": "い"},
            ],
            "tools": [{"type": "function", "function": FUNCTION}],
            "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]}},
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    ),
    "responses": (
        openai_responses.read,
        {
            "model": "m",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "あ"}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "い", "annotations": []}]},
                {"type": "reasoning", "id": "r", "summary": []},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "う"}]},
            ],
            "tools": [{"type": "function", **FUNCTION}],
            "tool_choice": {"type": "function", "name": "f"},
            "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
        },
    ),
    "messages": (
        anthropic_messages.read,
        {
            "model": "m",
            "max_tokens": 5,
            "system": [{"type": "text", "text": "あ"}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "あ"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "い"}, {"type": "tool_use", "id": "t", "name": "f", "input": {"a": "x"}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "う"}]}]},
            ],
            "tools": [{"name": "f", "description": "d", "input_schema": SCHEMA}],
            "tool_choice": {"type": "auto"},
            "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
        },
    ),
    "ollama, chat": (
        ollama.read_chat,
        {
            "model": "m",
            "messages": [
                {"role": "user", "content": "あ"},
                {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": "x"}}}]},
                {"role": "tool", "content": "い", "tool_name": "f"},
            ],
            "tools": [{"type": "function", "function": FUNCTION}],
            "options": {"seed": 1},
        },
    ),
    "ollama, generate": (ollama.read_generate, {"model": "m", "prompt": "あ", "options": {"seed": 1}}),
    "ollama, embed": (ollama.read_embed, {"model": "m", "input": ["あ"]}),
    "ollama, show": (ollama.read_show, {"model": "m"}),
    "completions": (openai_completions.read, {"model": "m", "prompt": "あ", "stream": True, "stream_options": {"include_usage": True}}),
    "embeddings": (openai_embeddings.read, {"model": "m", "input": ["あ"]}),
    "moderations": (openai_moderations.read, {"input": [{"type": "text", "text": "あ"}]}),
    "rerank": (rerank.read, {"model": "m", "query": "あ", "documents": ["い", {"text": "う"}]}),
    "tokenize": (tokens.read_tokenize, {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "あ"}]}]}),
    "detokenize": (tokens.read_detokenize, {"model": "m", "tokens": [1]}),
}  # fmt: skip


def objects(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The place of every object within whose keys are ours."""
    if isinstance(value, dict):
        yield path
        for key, inner in value.items():
            if key not in FREE and not (key == "input" and isinstance(inner, dict)):
                yield from objects(inner, (*path, key))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from objects(inner, (*path, at))


def spelled(path: tuple[str | int, ...]) -> str:
    return "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in path).removeprefix(".")


@pytest.mark.parametrize(("form", "path"), [(form, path) for form, (_, asked) in FORMS.items() for path in objects(asked)], ids=str)
def test_a_key_that_nobody_knows_is_refused_where_it_stands(form: str, path: tuple[str | int, ...]) -> None:
    read, asked = FORMS[form]
    read(copy.deepcopy(asked))
    changed = copy.deepcopy(asked)
    inner: Any = changed
    for step in path:
        inner = inner[step]
    inner["nobody_knows_this"] = 1
    with pytest.raises(Refusal) as caught:
        read(changed)
    assert (caught.value.status, caught.value.param) == (400, spelled((*path, "nobody_knows_this")))
