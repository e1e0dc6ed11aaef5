"""A model of Google's behind the Gemini API, as a `Chat`.

In: an address (https://generativelanguage.googleapis.com/v1beta), the model's name, a key. Out: events as they come: text, thoughts, tool
calls, usage (thoughts count as completion), the end. Newer models want back, with the result of a tool, the signature that came with
its call: it travels in the id of the call, behind a ~, so that nothing has to be remembered here.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from tsuzuri.chat.providers import _wire
from tsuzuri.engine.constraint import Constraint
from tsuzuri.errors import ConfigError, Words
from tsuzuri.types import Chat, Done, Event, Finish, Message, Notice, Options, Text, Thought, ToolCall, Usage

ADDRESS: str | None = "https://generativelanguage.googleapis.com/v1beta"
MODEL = re.compile(r"[A-Za-z0-9._-]{1,128}")  # it becomes a part of the address
NAMES = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "seed": "seed",
    "max_tokens": "maxOutputTokens",
}
FINISH: Mapping[str, Finish] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY"), "content_filter"),
}


def chat(address: str, model: str, key: str | None = None) -> Chat:
    """Raises ConfigError for what is no address or no name, and for a key that would travel in the clear to another machine."""
    url, name = _wire.checked(address, key), model.removeprefix("models/")
    if not MODEL.fullmatch(name):
        raise ConfigError(
            Words(f"モデル「{model[:80]}」を指定しました。", f"Named the model '{model[:80]}'."),
            found=Words("名前に使えるのは英数字と . _ - だけです。", "A name may have letters, digits and . _ - only."),
            todo=Words("モデルの名前を確かめてください。", "Check the name of the model."),
        )
    place = _wire.Place(f"{url}/models/{name}:streamGenerateContent?alt=sse", {"x-goog-api-key": key} if key else {}, key)
    return _wire.RemoteChat(place, request, Reading)


# ── there


def request(messages: Sequence[Message], options: Options) -> dict[str, Any]:
    """The JSON that is sent. Raises ConfigError for what cannot be asked."""
    system, rest = _wire.apart(messages)
    made: dict[str, Any] = {"contents": _contents(rest)}
    if system:
        made["systemInstruction"] = {"parts": [{"text": system}]}
    config = _wire.settings(options.sampling, NAMES)
    if options.stop:
        config["stopSequences"] = list(options.stop)
    if options.sampling.constraint is not None:
        config |= _form(options.sampling.constraint)
    if config:
        made["generationConfig"] = config
    if options.tools:
        functions = _wire.functions(options.tools, ("name", "description", "parameters"))
        made["tools"] = [{"functionDeclarations": [_declared(function) for function in functions]}]
        if options.calls[0]:
            made["toolConfig"] = {"functionCallingConfig": {"mode": "ANY"}}
    return made


def _form(constraint: Constraint) -> dict[str, Any]:
    if constraint.kind == "json_object":
        return {"responseMimeType": "application/json"}
    if constraint.kind == "json_schema":
        return {"responseMimeType": "application/json", "responseJsonSchema": json.loads(constraint.text)}
    raise _wire.no_form(constraint)


def _declared(function: Mapping[str, Any]) -> dict[str, Any]:
    return {("parametersJsonSchema" if name == "parameters" else name): value for name, value in function.items()}


def _contents(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Results name the function that was called, and those that answer one turn stand together."""
    made: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for message in messages:
        if message.role == "tool":
            part = _result(message, names)
            if made and "functionResponse" in made[-1]["parts"][-1]:
                made[-1]["parts"].append(part)
            else:
                made.append({"role": "user", "parts": [part]})
            continue
        names |= {call.id: call.name for call in message.tool_calls}
        said = [{"text": message.content}] if message.content or not message.tool_calls else []
        made.append({"role": "model" if message.role == "assistant" else "user", "parts": [*said, *map(_call, message.tool_calls)]})
    return made


def _call(call: ToolCall) -> dict[str, Any]:
    id, signed, signature = call.id.partition(_wire.SIGNED)
    part: dict[str, Any] = {"functionCall": {"id": id, "name": call.name, "args": _wire.arguments(call)}}
    return part | ({"thoughtSignature": signature} if signed else {})


def _result(message: Message, names: Mapping[str, str]) -> dict[str, Any]:
    id = message.tool_call_id or ""
    if id not in names:
        raise ConfigError(
            Words("ツールの結果を渡そうとしました。", "Sending the result of a tool."),
            found=Words("どの呼び出しの結果なのかわかりません。", "There is no call that it answers."),
            todo=Words("tool_call_id を、前の呼び出しの id にしてください。", "Let tool_call_id be the id of a call before it."),
        )
    return {"functionResponse": {"id": id.partition(_wire.SIGNED)[0], "name": names[id], "response": {"result": message.content}}}


# ── and back


class Reading:
    """Lines of the stream in, events out."""

    def __init__(self) -> None:
        self._calls: list[ToolCall] = []
        self._usage: Usage | None = None
        self._finish: str | None = None
        self._blocked = False

    def __call__(self, line: str) -> list[Event]:
        """Raises RemoteError for what is no event, and for an error that the server tells halfway."""
        if not line.startswith("data:"):
            return []
        chunk = _wire.as_object(line[5:])
        if chunk.get("error"):
            raise _wire.gave_up(chunk)
        if chunk.get("usageMetadata"):
            self._usage = _usage(chunk["usageMetadata"])
        self._blocked = self._blocked or bool((chunk.get("promptFeedback") or {}).get("blockReason"))
        candidates = chunk.get("candidates") or [{}]
        self._finish = candidates[0].get("finishReason") or self._finish
        parts = (candidates[0].get("content") or {}).get("parts") or []
        return [event for part in parts for event in self._part(part)]

    def _part(self, part: Mapping[str, Any]) -> list[Event]:
        if "functionCall" in part:
            call = part["functionCall"]
            id = str(call.get("id") or f"call_{secrets.token_hex(8)}")
            signature = part.get("thoughtSignature")
            id = f"{id}{_wire.SIGNED}{signature}" if signature else id
            self._calls.append(ToolCall(id, str(call["name"]), json.dumps(call.get("args") or {}, ensure_ascii=False)))
        text = part.get("text")
        return [] if not text else [Thought(str(text))] if part.get("thought") else [Text(str(text))]

    def end(self) -> list[Event]:
        """What is left when the stream is over. Raises RemoteError when it ended without an end, or with a call that is none."""
        usage = [self._usage] if self._usage else []
        if self._blocked:
            return [Notice(str(_wire.told_filtered())), *usage, Done("content_filter")]
        if self._finish is None:
            raise _wire.broke_off()
        if self._finish in ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL"):
            raise _wire.broken(Words("ツールの呼び出しになっていないものが届きました。", "What came is no call of a tool."))
        finish = FINISH.get(self._finish, "stop")
        detail = {} if self._finish in FINISH else {"finish_reason": self._finish}
        if finish == "stop" and self._calls:
            finish = "tool_calls"
        return [*_wire.called(self._calls, finish), *usage, Done(finish, detail)]


def _usage(found: Mapping[str, Any]) -> Usage:
    """The prompt holds what was cached; thoughts are counted beside what is said."""
    prompt = _wire.count(found.get("promptTokenCount")) + _wire.count(found.get("toolUsePromptTokenCount"))
    thought = _wire.count(found.get("thoughtsTokenCount"))
    said = _wire.count(found.get("candidatesTokenCount"))
    return Usage(prompt, said + thought, _wire.count(found.get("cachedContentTokenCount")), thought)
