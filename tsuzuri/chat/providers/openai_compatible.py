"""A model behind an OpenAI-compatible server (vLLM, llama.cpp, Ollama, tsuzuri itself), as a `Chat`.

In: an address such as http://127.0.0.1:8000/v1, the model's name there, a key. Out: events as they come over the wire: text, thoughts,
tool calls once they are whole, usage, the end. Settings that are not asked for are not sent. What the server refuses as wrong becomes
a ConfigError in its own words, everything else that goes wrong a RemoteError. It gives no tokens: those of a stranger are unknown.
`openai.py` and `azure_openai.py` are this with small differences.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeGuard, get_args

from tsuzuri.chat.providers import _wire
from tsuzuri.engine.constraint import Constraint
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import Words
from tsuzuri.types import Chat, Done, Event, Finish, Message, Notice, Options, Text, Thought, ToolCall, Usage

ADDRESS: str | None = None  # wherever it runs
NAMES = {each.name: each.name for each in fields(Sampling)}  # ours are those of vLLM


def chat(address: str, model: str, key: str | None = None) -> Chat:
    """Raises ConfigError for what is no address, and for a key that would travel in the clear to another machine."""
    place = _wire.Place(f"{_wire.checked(address, key)}/chat/completions", bearer(key), key)
    return _wire.RemoteChat(place, lambda messages, options: request(model, messages, options, NAMES), Reading)


async def first_model(address: str, key: str | None = None) -> str:
    """The name of the first model that the server lists. Raises ConfigError, RemoteError."""
    listed = (await _wire.got(_wire.Place(f"{_wire.checked(address, key)}/models", bearer(key), key))).get("data")
    names = [model.get("id") for model in listed if isinstance(model, dict)] if isinstance(listed, list) else []
    if not names or not isinstance(names[0], str):
        raise _wire.broken(Words("モデルが一つもありません。", "It has no model."))
    return names[0]


def bearer(key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


# ── there


def request(model: str, messages: Sequence[Message], options: Options, names: Mapping[str, str]) -> dict[str, Any]:
    """The JSON that is sent; `names`: what settings are called there. Raises ConfigError for what cannot be asked."""
    made: dict[str, Any] = {"model": model, "messages": [_message(message) for message in messages], "stream": True}
    made["stream_options"] = {"include_usage": True}
    made |= _wire.settings(options.sampling, names)
    if options.sampling.constraint is not None:
        made["response_format"] = _form(options.sampling.constraint)
    if options.stop:
        made["stop"] = list(options.stop)
    if options.tools:
        made["tools"] = [dict(tool) for tool in options.tools]
        least, most = options.calls
        made |= ({"tool_choice": "required"} if least else {}) | ({"parallel_tool_calls": False} if most == 1 else {})
    return made


def _form(constraint: Constraint) -> dict[str, Any]:
    if constraint.kind == "json_object":
        return {"type": "json_object"}
    if constraint.kind == "json_schema":
        return {"type": "json_schema", "json_schema": {"name": "output", "strict": True, "schema": json.loads(constraint.text)}}
    raise _wire.no_form(constraint)


def _message(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        calls = [{"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in message.tool_calls]
        made |= {"tool_calls": calls, "content": message.content or None}
    if message.tool_call_id is not None:
        made["tool_call_id"] = message.tool_call_id
    return made


# ── and back


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: str = ""


class Reading:
    """Lines of the stream in, events out. Calls are given out when they are whole, the end when the usage has come, too."""

    def __init__(self) -> None:
        self._calls: dict[int, _Call] = {}
        self._usage: Usage | None = None
        self._finish: str | None = None
        self._over = False

    def __call__(self, line: str) -> list[Event]:
        """Raises RemoteError for what is no event, and for an error that the server tells halfway."""
        if self._over or not line.startswith("data:"):
            return []  # comments keep the connection alive
        data = line[5:].strip()
        if data == "[DONE]":
            self._over = True
            return []
        chunk = _wire.as_object(data)
        if chunk.get("error"):
            raise _wire.gave_up(chunk)
        if chunk.get("usage"):
            self._usage = _usage(chunk["usage"])
        choices = chunk.get("choices") or []
        return self._choice(choices[0]) if choices else []

    def _choice(self, choice: Mapping[str, Any]) -> list[Event]:
        delta = choice.get("delta") or {}
        found: list[Event] = []
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if thought:
            found.append(Thought(str(thought)))
        if delta.get("content"):
            found.append(Text(str(delta["content"])))
        if delta.get("refusal"):
            found.append(Text(str(delta["refusal"])))
        found += [Notice(str(notice)) for notice in delta.get("notices") or []]
        for piece in delta.get("tool_calls") or []:
            self._piece(piece)
        self._finish = choice.get("finish_reason") or self._finish
        return found

    def _piece(self, piece: Mapping[str, Any]) -> None:
        call = self._calls.setdefault(int(piece.get("index") or 0), _Call())
        function = piece.get("function") or {}
        call.id = piece.get("id") or call.id
        call.name = function.get("name") or call.name
        call.arguments += function.get("arguments") or ""

    def end(self) -> list[Event]:
        """What is left when the stream is over. Raises RemoteError when it ended without an end."""
        if self._finish is None:
            raise _wire.broke_off()
        detail = {} if _is_finish(self._finish) else {"finish_reason": self._finish}
        finish: Finish = self._finish if _is_finish(self._finish) else "stop"
        calls = [ToolCall(call.id, call.name, call.arguments) for _, call in sorted(self._calls.items())]
        return [*_wire.called(calls, finish), *([self._usage] if self._usage else []), Done(finish, detail)]


def _is_finish(reason: str) -> TypeGuard[Finish]:
    return reason in get_args(Finish)


def _usage(found: Mapping[str, Any]) -> Usage:
    cached = _wire.count((found.get("prompt_tokens_details") or {}).get("cached_tokens"))
    reasoning = _wire.count((found.get("completion_tokens_details") or {}).get("reasoning_tokens"))
    return Usage(_wire.count(found.get("prompt_tokens")), _wire.count(found.get("completion_tokens")), cached, reasoning)
