"""A model of Anthropic's, or of any server that speaks its Messages API, as a `Chat`.

In: an address (https://api.anthropic.com), the model's name, a key. Out: events as they come: text, thoughts, tool calls once they are
whole, usage (what was written to a cache or read from it is a part of the prompt), the end. Instructions go to their own place; those in
the middle of a conversation are refused. An answer needs a bound there: without `max_tokens` it is MAX_TOKENS.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tsuzuri.chat.providers import _wire
from tsuzuri.errors import Words
from tsuzuri.types import Chat, Done, Event, Finish, Message, Notice, Options, Text, Thought, ToolCall, Usage

ADDRESS: str | None = "https://api.anthropic.com"
VERSION = "2023-06-01"
MAX_TOKENS = 4096  # every model of theirs takes as many
NAMES = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "max_tokens": "max_tokens"}
FINISH: Mapping[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def chat(address: str, model: str, key: str | None = None) -> Chat:
    """Raises ConfigError for what is no address, and for a key that would travel in the clear to another machine."""
    url = _wire.checked(address, key).removesuffix("/v1")
    headers = {"anthropic-version": VERSION, **({"x-api-key": key} if key else {})}
    return _wire.RemoteChat(
        _wire.Place(f"{url}/v1/messages", headers, key), lambda messages, options: request(model, messages, options), Reading
    )


# ── there


def request(model: str, messages: Sequence[Message], options: Options) -> dict[str, Any]:
    """The JSON that is sent. Raises ConfigError for what cannot be asked."""
    system, rest = _wire.apart(messages)
    made: dict[str, Any] = {"model": model, "max_tokens": MAX_TOKENS, "stream": True, "messages": _messages(rest)}
    made |= _wire.settings(options.sampling, NAMES)
    if options.sampling.temperature > 1:
        raise _wire.unsupported("temperature", Words("このサービスでは 0〜1 です。", "This service takes it from 0 to 1."))
    constraint = options.sampling.constraint
    if constraint is not None and constraint.kind != "json_schema":
        raise _wire.no_form(constraint)
    if constraint is not None:
        made["output_config"] = {"format": {"type": "json_schema", "schema": json.loads(constraint.text)}}
    if system:
        made["system"] = system
    if options.stop:
        made["stop_sequences"] = list(options.stop)
    if options.tools:
        made["tools"] = [_tool(function) for function in _wire.functions(options.tools, ("name", "description", "parameters", "strict"))]
        least, most = options.calls
        if least or most is not None:
            one = {"disable_parallel_tool_use": True} if most == 1 else {}
            made["tool_choice"] = {"type": "any" if least else "auto", **one}
    return made


def _tool(function: Mapping[str, Any]) -> dict[str, Any]:
    made = {name: value for name, value in function.items() if name != "parameters"}
    return {**made, "input_schema": function.get("parameters") or {"type": "object", "properties": {}}}


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Results of tools are said by the user there, all that answer one turn together."""
    made: list[dict[str, Any]] = []
    for message in map(_wire.bare, messages):
        if message.role == "tool":
            result = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.content}
            if made and made[-1]["role"] == "user" and isinstance(made[-1]["content"], list):
                made[-1]["content"].append(result)
            else:
                made.append({"role": "user", "content": [result]})
        elif message.tool_calls:
            said = [{"type": "text", "text": message.content}] if message.content else []
            calls = [{"type": "tool_use", "id": c.id, "name": c.name, "input": _wire.arguments(c)} for c in message.tool_calls]
            made.append({"role": "assistant", "content": [*said, *calls]})
        else:
            made.append({"role": message.role, "content": message.content})
    return made


# ── and back


class Reading:
    """Lines of the stream in, events out."""

    def __init__(self) -> None:
        self._calls: dict[int, dict[str, str]] = {}
        self._usage: dict[str, Any] = {}
        self._finish: str | None = None
        self._over = False

    def __call__(self, line: str) -> list[Event]:
        """Raises RemoteError for what is no event, and for an error that the server tells halfway."""
        if self._over or not line.startswith("data:"):
            return []  # the names of events are in their data, too
        event = _wire.as_object(line[5:])
        match event.get("type"):
            case "error":
                raise _wire.gave_up(event)
            case "message_start":
                self._usage |= event["message"].get("usage") or {}
            case "content_block_start" if event["content_block"]["type"] == "tool_use":
                block = event["content_block"]
                given = json.dumps(block["input"], ensure_ascii=False) if block.get("input") else ""
                self._calls[event["index"]] = {"id": block["id"], "name": block["name"], "arguments": given}
            case "content_block_start":
                return _piece(event["content_block"])
            case "content_block_delta" if event["delta"]["type"] == "input_json_delta":
                self._calls[event["index"]]["arguments"] += event["delta"]["partial_json"]
            case "content_block_delta":
                return _piece(event["delta"])
            case "message_delta":
                self._finish = event["delta"].get("stop_reason") or self._finish
                self._usage |= {name: value for name, value in (event.get("usage") or {}).items() if value is not None}
                return [Notice(str(notice)) for notice in event.get("notices") or []]  # from a tsuzuri over there
            case "message_stop":
                self._over = True
        return []  # a ping, the end of a block, what is yet to be invented

    def end(self) -> list[Event]:
        """What is left when the stream is over. Raises RemoteError when it ended without an end."""
        if self._finish is None or not self._over:
            raise _wire.broke_off()
        finish = FINISH.get(self._finish, "stop")
        detail = {} if self._finish in FINISH else {"finish_reason": self._finish}
        calls = [ToolCall(**call) for _, call in sorted(self._calls.items())]
        return [*_wire.called(calls, finish), *([_usage(self._usage)] if self._usage else []), Done(finish, detail)]


def _piece(block: Mapping[str, Any]) -> list[Event]:
    """The beginning of a block, or a piece of it: one with nothing in it is none."""
    text, thought = block.get("text"), block.get("thinking")
    return [Text(str(text))] if text else [Thought(str(thought))] if thought else []


def _usage(found: Mapping[str, Any]) -> Usage:
    cached = _wire.count(found.get("cache_read_input_tokens"))
    prompt = _wire.count(found.get("input_tokens")) + _wire.count(found.get("cache_creation_input_tokens")) + cached
    return Usage(prompt, _wire.count(found.get("output_tokens")), cached)
