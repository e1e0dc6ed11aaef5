"""Anthropic's Messages.

In: the JSON of POST /v1/messages (and …/count_tokens) -> `Asked`. In: events -> the answer, whole (`whole`) or as its named
stream events (`Chunks`). Content blocks become our messages: a tool_result is a message of its own, before the text beside it.
`notices` and `sources`, for which Anthropic has no place, stand in fields of their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.serve.wire import fields, forms
from tsuzuri.serve.wire.asked import Asked, Head, dumps, finish_reason, kept
from tsuzuri.serve.wire.fields import JSON, Field, hint, invalid, mapping, needed, recorded, refused, several, string, used
from tsuzuri.serve.wire.openai_tools import MOST_ID, MOST_MESSAGES, MOST_TOOLS, Choice, choice_of, tool_form
from tsuzuri.types import Done, Event, Message, Notice, Options, Source, Text, Thought, ToolCall, Usage

REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
PROMPT: tuple[Field, ...] = (  # what counting takes, too
    used("model", "モデルの名前", "the name of a model"),
    used("messages", "会話", "the conversation"),
    used("system", "最初の指示", "instructions that come first"),
    used("tools", "呼び出せるツール（使えるモデルだけ）", "tools that may be called, where the model can"),
    used("tool_choice", "auto、any、tool、none。disable_parallel_tool_use も", "auto, any, tool or none; disable_parallel_tool_use too"),
    hint("cache_control", "入力の使い回し", "how prompts are kept"),
    recorded("user_profile_id", "利用者の印", "who it is for"),
    recorded("workspace_id", "利用者の印", "who it is for"),
    refused("thinking", "考えさせるかどうかは選べません。", "Thinking cannot be chosen.", {"type": "disabled"}),
    used("output_config", "format：答えをスキーマに従う JSON にする", "format: an answer that is JSON of a schema"),
    refused("speed", "選べません。", "It cannot be chosen.", "standard"),
    refused("context_management", "会話は書き換えません。", "Conversations are not edited."),
    refused("mcp_servers", "ほかのサーバーには接続しません。", "Other servers are not contacted.", []),
)
FIELDS: tuple[Field, ...] = (
    *PROMPT,
    *fields.sampling_fields("logprobs"),
    used("stop_sequences", "答えを終える文字列", "strings that end the answer"),
    used("stream", "できた分から送る", "send it as it comes"),
    recorded("metadata", "user_id：利用者の印", "user_id: who it is for"),
    refused("service_tier", "扱いに段階はありません。", "There are no tiers.", "auto", "standard_only"),
    refused("container", "実行環境はありません。", "There is no container."),
    refused("diagnostics", "診断は添えません。", "There are no diagnostics."),
    refused("inference_geo", "計算の場所は選べません。", "The place cannot be chosen."),
)


def read(request: JSON) -> Asked:
    """Raises Refusal."""
    fields.check(request, FIELDS)
    if request.get("max_tokens") is None:
        raise invalid("max_tokens", Words("必ず要ります。", "It is required."), code="missing_required_parameter")
    choice = _tools(request)
    sampling = fields.sampling(request, FIELDS, constraint=forms.of_output_config(request))
    return Asked(
        model=needed(request, "model", most=256),
        messages=_messages(request),
        options=Options(sampling, fields.stops(request, "stop_sequences", most=16), choice.tools, choice.calls),
        stream=fields.boolean(request, "stream"),
        marks=fields.marks(request, FIELDS),
    )


def read_count(request: JSON) -> Asked:
    """What is to be counted: a request without an answer. Raises Refusal."""
    fields.check(request, PROMPT)
    forms.of_output_config(request)  # it takes no room in the prompt
    options = Options(fields.sampling({}, ()), (), _tools(request).tools)
    return Asked(model=needed(request, "model", most=256), messages=_messages(request), options=options)


def _messages(request: JSON) -> tuple[Message, ...]:
    system = request.get("system")
    found = [] if system is None or system == [] else [Message("system", _text(system, "system"))]
    turns = several(request.get("messages"), "messages", least=1, most=MOST_MESSAGES)
    for i, turn in enumerate(turns):
        found += _turn(mapping(turn, f"messages[{i}]"), f"messages[{i}]")
    return tuple(found)


def _turn(turn: JSON, place: str) -> list[Message]:
    _only(turn, ("role", "content"), place)
    role, content = needed(turn, "role", most=20, place=f"{place}."), turn.get("content")
    if role not in ("user", "assistant", "system"):
        raise invalid(f"{place}.role", Words("user、assistant、system のどれかです。", "It is user, assistant or system."))
    if role == "system":
        return [Message("system", _text(content, f"{place}.content"))]
    if isinstance(content, str):
        return [Message("user" if role == "user" else "assistant", content)]
    blocks = several(content, f"{place}.content", least=1, most=MOST_MESSAGES)
    named = [(mapping(block, f"{place}.content[{i}]"), f"{place}.content[{i}]") for i, block in enumerate(blocks)]
    return _user(named) if role == "user" else [_assistant(named)]


def _user(blocks: Sequence[tuple[JSON, str]]) -> list[Message]:
    results, texts = [], []
    for block, place in blocks:
        if block.get("type") == "tool_result":
            results.append(_result(block, place))
        else:
            texts.append(_text_block(block, place))
    return [*results, *([Message("user", "\n".join(texts))] if texts else [])]


def _result(block: JSON, place: str) -> Message:
    _only(block, ("type", "tool_use_id", "content", "is_error", "cache_control"), place)
    content = block.get("content")
    text = "" if content is None or content == [] else _text(content, f"{place}.content")
    failed = fields.boolean(block, "is_error", place=f"{place}.")
    return Message(
        "tool", f"[error] {text}" if failed else text, tool_call_id=needed(block, "tool_use_id", most=MOST_ID, place=f"{place}.")
    )


def _assistant(blocks: Sequence[tuple[JSON, str]]) -> Message:
    texts, calls = [], []
    for block, place in blocks:
        match block.get("type"):
            case "tool_use":
                _only(block, ("type", "id", "name", "input", "cache_control", "caller"), place)
                arguments = json.dumps(mapping(block.get("input"), f"{place}.input"), ensure_ascii=False)
                calls.append(
                    ToolCall(
                        needed(block, "id", most=MOST_ID, place=f"{place}."), needed(block, "name", most=256, place=f"{place}."), arguments
                    )
                )
            case "thinking" | "redacted_thinking":
                continue  # no model reads its earlier thoughts again
            case _:
                texts.append(_text_block(block, place))
    return Message("assistant", "\n".join(texts), tuple(calls))


def _text(value: object, place: str) -> str:
    if isinstance(value, str):
        return value
    parts = several(value, place, least=1, most=MOST_MESSAGES)
    return "\n".join(_text_block(mapping(part, f"{place}[{i}]"), f"{place}[{i}]") for i, part in enumerate(parts))


def _text_block(block: JSON, place: str) -> str:
    kind = needed(block, "type", most=40, place=f"{place}.")
    if kind != "text":
        words = Words("ここに置けるのは text だけです。", "Only text can stand here.")
        raise invalid(f"{place}.type", words, code="unsupported_content")
    _only(block, ("type", "text", "cache_control"), place, empty=("citations",))
    return needed(block, "text", place=f"{place}.")


def _only(block: JSON, known: Sequence[str], place: str, empty: Sequence[str] = ()) -> None:
    for name, value in block.items():
        if name not in known and not (name in empty and not value):
            words = Words("そのような項目はありません。", "There is no such field.")
            raise invalid(f"{place}.{name[:80]}", words, code="unknown_parameter")


def _tools(request: JSON) -> Choice:
    """The tools, and which of them may or must be called. Raises Refusal."""
    value, choice = request.get("tools"), mapping(request.get("tool_choice") or {"type": "auto"}, "tool_choice")
    found = [] if value is None else several(value, "tools", most=MOST_TOOLS)
    made = [(f"tools[{i}].input_schema", _tool(mapping(one, f"tools[{i}]"), f"tools[{i}]")) for i, one in enumerate(found)]
    one = fields.boolean(choice, "disable_parallel_tool_use", place="tool_choice.")
    kind = choice.get("type")
    _only(choice, ("type", "disable_parallel_tool_use", *(("name",) if kind == "tool" else ())), "tool_choice")
    match kind:
        case "none":
            return Choice((), (0, 1 if one else None))
        case "auto" | "any":
            return choice_of(made, None, required=kind == "any", one=one)
        case "tool":
            return choice_of(made, [needed(choice, "name", most=64, place="tool_choice.")], required=True, one=one)
    raise invalid("tool_choice.type", Words("auto、any、tool、none のどれかです。", "It is auto, any, tool or none."))


def _tool(tool: JSON, place: str) -> JSON:
    if tool.get("type") not in (None, "custom"):
        words = Words("サーバー側のツールはありません。", "There are no tools on the server's side.")
        raise invalid(f"{place}.type", words, code="unsupported_content")
    _only(tool, ("type", "name", "description", "input_schema", "strict", "cache_control"), place, empty=("defer_loading",))
    return tool_form(
        needed(tool, "name", most=64, place=f"{place}."),
        string(tool, "description", most=1 << 16, place=f"{place}."),
        mapping(tool.get("input_schema"), f"{place}.input_schema"),
        place,
        strict=fields.boolean(tool, "strict", place=f"{place}."),
        field="input_schema",
    )


# ── the answer, whole


def whole(head: Head, asked: Asked, events: Sequence[Event]) -> dict[str, Any]:
    """Raises Refusal for an answer that was stopped halfway."""
    blocks: list[dict[str, Any]] = []
    calls = 0
    for event in events:
        if isinstance(event, ToolCall) and kept(event, calls, asked):
            calls += 1
            blocks.append({"type": "tool_use", "id": event.id, "name": event.name, "input": _arguments(event)})
        elif isinstance(event, Text | Thought) and event.text:
            kind, field = ("text", "text") if isinstance(event, Text) else ("thinking", "thinking")
            if not blocks or blocks[-1]["type"] != kind:
                blocks.append({"type": kind, field: ""} | ({"signature": ""} if kind == "thinking" else {}))
            blocks[-1][field] += event.text
    done = next((event for event in events if isinstance(event, Done)), Done("cancelled"))
    used = next((event for event in events if isinstance(event, Usage)), None)
    return {**_message(head), "content": blocks, **_ending(done, calls), "usage": _usage(used), **_more(events)}


def _message(head: Head) -> dict[str, Any]:
    return {"id": head.id, "type": "message", "role": "assistant", "model": head.model}


def _ending(done: Done, calls: int) -> dict[str, Any]:
    stop = done.detail.get("stop") if done.finish == "stop" else None
    reason = REASONS[finish_reason(done.finish, calls)]
    return {"stop_reason": "stop_sequence" if stop is not None and reason == "end_turn" else reason, "stop_sequence": stop}


def _arguments(call: ToolCall) -> Any:
    """A tool's input is an object here; arguments that are none are shown as they are, for the caller to refuse."""
    try:
        found = json.loads(call.arguments or "{}")
    except ValueError:
        found = call.arguments
    return found if isinstance(found, dict) else {"arguments": call.arguments}


def _usage(found: Usage | None) -> dict[str, Any]:
    """Zero where the model does not count: the form knows no empty place."""
    found = found or Usage(0, 0)
    fresh = found.prompt_tokens - found.cached_tokens
    cached = {"cache_read_input_tokens": found.cached_tokens, "cache_creation_input_tokens": 0}
    return {"input_tokens": fresh, "output_tokens": found.completion_tokens, **cached}


def _more(events: Sequence[Event]) -> dict[str, Any]:
    notices = [event.text for event in events if isinstance(event, Notice)]
    sources = [asdict(event) for event in events if isinstance(event, Source)]
    return {name: value for name, value in {"notices": notices, "sources": sources}.items() if value}


# ── the answer, in chunks


class Chunks:
    """Feed it events; what it gives are the named events of the stream, in order."""

    def __init__(self, head: Head, asked: Asked, prompt_tokens: int) -> None:
        """`prompt_tokens`: the message begins with how much was read; 0 where the model does not count."""
        self._head, self._asked, self._prompt = head, asked, prompt_tokens
        self._begun = False
        self._open: str | None = None  # the kind of the block under way
        self._blocks = self._calls = 0
        self._usage: Usage | None = None
        self._more: list[Event] = []
        self._done: Done | None = None

    def event(self, index: int, event: Event) -> list[dict[str, Any]]:
        """Raises Refusal for an end that is none."""
        made = [] if self._begun else [self._start()]
        self._begun = True
        match event:
            case Text(text) if text:
                made += self._piece("text", {"type": "text", "text": ""}, {"type": "text_delta", "text": text})
            case Thought(text) if text:
                block = {"type": "thinking", "thinking": "", "signature": ""}
                made += self._piece("thinking", block, {"type": "thinking_delta", "thinking": text})
            case ToolCall() if kept(event, self._calls, self._asked):
                made += self._call(event)
            case Usage():
                self._usage = event
            case Notice() | Source():
                self._more.append(event)
            case Done():
                _ending(event, self._calls)
                self._done = event
        return made

    def end(self) -> list[dict[str, Any]]:
        delta = _ending(self._done or Done("cancelled"), self._calls)
        return [
            *self._close(),
            {"type": "message_delta", "delta": delta, "usage": _usage(self._usage), **_more(self._more)},
            {"type": "message_stop"},
        ]

    def _start(self) -> dict[str, Any]:
        empty: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": _usage(Usage(self._prompt, 0))}
        return {"type": "message_start", "message": {**_message(self._head), **empty}}

    def _piece(self, kind: str, block: Mapping[str, Any], delta: Mapping[str, Any]) -> list[dict[str, Any]]:
        made = []
        if self._open != kind:
            made = [*self._close(), {"type": "content_block_start", "index": self._blocks, "content_block": block}]
            self._open = kind
        return [*made, {"type": "content_block_delta", "index": self._blocks, "delta": delta}]

    def _call(self, call: ToolCall) -> list[dict[str, Any]]:
        self._calls += 1
        block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": dumps(_arguments(call))}
        made = self._close()
        self._open = None
        made += [*self._piece("tool_use", block, delta)]
        return [*made, *self._close()]

    def _close(self) -> list[dict[str, Any]]:
        if self._open is None:
            return []
        self._open = None
        self._blocks += 1
        return [{"type": "content_block_stop", "index": self._blocks - 1}]
