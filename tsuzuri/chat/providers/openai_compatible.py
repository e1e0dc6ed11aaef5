"""A model behind an OpenAI-compatible server (vLLM, llama.cpp, Ollama, OpenAI, tsuzuri itself), as a `Chat`.

In: an address such as http://127.0.0.1:8000/v1, the model's name there, a key. Out: events as they come over the wire: text, thoughts,
tool calls once they are whole, usage, the end. Settings that are not asked for are not sent. What the server refuses as wrong becomes
a ConfigError in its own words, everything else that goes wrong a RemoteError. It gives no tokens: those of a stranger are unknown.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeGuard, get_args

import httpx2

from tsuzuri import __version__
from tsuzuri.engine.constraint import Constraint
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import ConfigError, RemoteError, Words
from tsuzuri.types import Chat, Done, Event, Finish, Message, Notice, Options, Text, Thought, ToolCall, Usage

TIMEOUT = httpx2.Timeout(600, connect=15)  # seconds without a byte, seconds to connect
MAX_LINE = 4 << 20  # bytes of one event
MAX_TOLD = 500  # characters of what a server says of an error
ASKED = Words("モデルのサーバーに尋ねました。", "Asking the server of the model.")


def chat(address: str, model: str, key: str | None = None) -> Chat:
    """Raises ConfigError for what is no address, and for a key that would travel in the clear to another machine."""
    url = _checked(address, key)
    headers = {"user-agent": f"tsuzuri/{__version__}"} | ({"authorization": f"Bearer {key}"} if key else {})

    async def answered(messages: Sequence[Message], options: Options) -> AsyncIterator[Event]:
        """A `Chat`. Whoever stops listening closes the connection, which ends the work over there."""
        body = request(model, messages, options)
        try:
            async with (
                httpx2.AsyncClient(timeout=TIMEOUT, follow_redirects=False, trust_env=False) as client,
                client.stream("POST", f"{url}/chat/completions", json=body, headers=headers) as response,
            ):
                if response.status_code != 200:
                    raise _refused(response.status_code, await _start(response))
                reading = Reading()
                async for line in _lines(response):
                    for event in reading(line):
                        yield event
                for event in reading.end():
                    yield event
        except httpx2.HTTPError as error:
            raise _unreachable(error) from error

    return answered


async def first_model(address: str, key: str | None = None) -> str:
    """The name of the first model that the server lists. Raises ConfigError, RemoteError."""
    url = _checked(address, key)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        async with (
            httpx2.AsyncClient(timeout=TIMEOUT, follow_redirects=False, trust_env=False) as client,
            client.stream("GET", f"{url}/models", headers=headers) as response,
        ):
            text = await _start(response)
    except httpx2.HTTPError as error:
        raise _unreachable(error) from error
    if response.status_code != 200:
        raise _refused(response.status_code, text)
    listed = _object(text).get("data")
    names = [model.get("id") for model in listed if isinstance(model, dict)] if isinstance(listed, list) else []
    if not names or not isinstance(names[0], str):
        raise _broken(Words("モデルが一つもありません。", "It has no model."))
    return names[0]


# ── there


def request(model: str, messages: Sequence[Message], options: Options) -> dict[str, Any]:
    """The JSON that is sent. Raises ConfigError for what cannot be asked of another's model."""
    if options.sampling.logprobs is not None:
        raise ConfigError(
            Words("設定 logprobs が指定されました。", "The setting logprobs was given."),
            found=Words("よそのモデルのトークンはわかりません。", "The tokens of a model elsewhere are not known."),
            todo=Words("logprobs を外してください。", "Leave logprobs out."),
        )
    made: dict[str, Any] = {"model": model, "messages": [_message(message) for message in messages], "stream": True}
    made["stream_options"] = {"include_usage": True}
    for each in fields(Sampling):
        value = getattr(options.sampling, each.name)
        if each.name == "constraint" and value is not None:
            made["response_format"] = _form(value)
        elif value != each.default:
            made[each.name] = {str(id): number for id, number in value} if each.name == "logit_bias" else value
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
    raise ConfigError(
        Words(f"出力の形（{constraint.kind}）が指定されました。", f"A form of the output, {constraint.kind}, was given."),
        found=Words("よそのモデルに頼めるのは JSON の形だけです。", "A model elsewhere can be asked for JSON only."),
        todo=Words("JSON スキーマを使うか、形の指定を外してください。", "Use a JSON schema, or leave the form out."),
    )


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
        chunk = _object(data)
        if chunk.get("error"):
            raise _broken(Words(f"途中で断られました（{_told(chunk)}）。", f"It gave up halfway ({_told(chunk)})."))
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
            raise _broken(Words("答えが途中で切れました。", "The answer broke off."))
        calls = [ToolCall(call.id, call.name, call.arguments) for _, call in sorted(self._calls.items())]
        detail = {} if _is_finish(self._finish) else {"finish_reason": self._finish}
        done = Done(self._finish if _is_finish(self._finish) else "stop", detail)
        return [*calls, *([self._usage] if self._usage else []), done]


def _is_finish(reason: str) -> TypeGuard[Finish]:
    return reason in get_args(Finish)


def _usage(found: Mapping[str, Any]) -> Usage:
    cached = (found.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Usage(int(found.get("prompt_tokens") or 0), int(found.get("completion_tokens") or 0), int(cached))


async def _lines(response: httpx2.Response) -> AsyncIterator[str]:
    """Lines of the body, cut at line feeds alone: a line end that only Unicode knows is part of a text."""
    held = bytearray()
    async for piece in response.aiter_bytes():
        held += piece
        *whole, rest = held.split(b"\n")
        held = bytearray(rest)
        if len(held) > MAX_LINE:
            raise _broken(Words("一度に送られる量が多すぎます。", "It sends too much at once."))
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
    yield held.decode(errors="replace")


async def _start(response: httpx2.Response) -> str:
    """The first bytes of a refusal."""
    found = bytearray()
    async for piece in response.aiter_bytes():
        found += piece
        if len(found) > 1 << 16:
            break
    return found.decode(errors="replace")


def _object(data: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _broken(Words("JSON ではないものが届きました。", "What came is no JSON."))
    return found


def _told(body: Mapping[str, Any]) -> str:
    """What a server says of its error, on one line."""
    error = body.get("error")
    text = error.get("message") if isinstance(error, dict) else error
    return " ".join(str(text or body.get("message") or body.get("detail") or "").split())[:MAX_TOLD]


def _refused(status: int, text: str) -> ConfigError | RemoteError:
    try:
        body = json.loads(text)
        told = _told(body) if isinstance(body, dict) else ""
    except (ValueError, RecursionError):
        told = ""
    if status in (400, 404, 422):
        return ConfigError(
            ASKED,
            found=Words(f"{status}：{told}", f"{status}: {told}"),
            todo=Words("モデルの名前と設定を確かめてください。", "Check the name of the model and the settings."),
        )
    return _broken(Words(f"{status} が返りました。{told}", f"It answered {status}. {told}"))


def _broken(found: Words) -> RemoteError:
    return RemoteError(
        ASKED,
        found=found,
        todo=Words("アドレスとキーを確かめ、時間をおいてもう一度試してください。", "Check its address and the key, and try again later."),
    )


def _unreachable(error: httpx2.HTTPError) -> RemoteError:
    kind = type(error).__name__
    return _broken(Words(f"接続できないか、途中で切れました（{kind}）。", f"It cannot be reached, or broke off ({kind})."))


def _checked(address: str, key: str | None) -> str:
    url = address.rstrip("/")
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):
        parsed = httpx2.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment or parsed.userinfo:
        raise ConfigError(
            ASKED,
            found=Words(f"「{address[:80]}」はアドレスではありません。", f"'{address[:80]}' is no address."),
            todo=Words("http://127.0.0.1:8000/v1 のように指定してください。", "Give one like http://127.0.0.1:8000/v1."),
        )
    if key and parsed.scheme == "http" and parsed.host not in ("localhost", "127.0.0.1", "::1"):
        raise ConfigError(
            ASKED,
            found=Words("キーが暗号化されずに、ほかの計算機へ送られます。", "The key would travel to another machine in the clear."),
            todo=Words("https のアドレスを使ってください。", "Use an address with https."),
        )
    return url
