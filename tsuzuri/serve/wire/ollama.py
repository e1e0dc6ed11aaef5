"""Ollama's chat, generate and embed: lines of JSON, one after the other.

In: the JSON of POST /api/chat, /api/generate, /api/embed -> `Asked`, or what is to be embedded. In: events -> the answer, whole
(`whole`) or line by line (`Chunks`): the law is that the lines put together are the whole. Sampling stands in `options`, with names of its
own. Thoughts stand in `thinking`; `notices` and `sources`, for which there is no place, in fields of their own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from tsuzuri.engine import constraint
from tsuzuri.engine.constraint import Constraint
from tsuzuri.errors import ConfigError, Words
from tsuzuri.serve.models import Served
from tsuzuri.serve.refusal import Refusal, sentence
from tsuzuri.serve.wire import fields, openai_embeddings, openai_tools
from tsuzuri.serve.wire.asked import Asked, Head, finish_reason, kept
from tsuzuri.serve.wire.fields import JSON, Field, hint, invalid, mapping, needed, refused, several, string, used
from tsuzuri.types import Done, Event, Message, Notice, Options, Source, Text, Thought, ToolCall, Usage

KEEP_ALIVE = hint("keep_alive", "モデルを置いておく時間。いつも置いてある", "how long the model stays: it always does")
SHARED: tuple[Field, ...] = (
    used("model", "モデルの名前（:latest は付けても同じ）", "the name of a model; :latest may stand behind it"),
    used("stream", "できた分から送る（なければ true）", "send it as it comes; true unless given"),
    used("format", '"json" か、スキーマ', '"json", or a schema'),
    used("options", "生成の設定（次の表）", "sampling: the next table"),
    KEEP_ALIVE,
    refused("think", "考えさせるかどうかは選べません。", "Thinking cannot be chosen.", False),
    refused("logprobs", "ここでは出せません。", "Not here.", False),
    refused("top_logprobs", "ここでは出せません。", "Not here.", 0),
)
CHAT: tuple[Field, ...] = (
    used("messages", "会話", "the conversation"),
    used("tools", "呼び出せるツール（使えるモデルだけ）", "tools that may be called, where the model can"),
    *SHARED,
)
GENERATE: tuple[Field, ...] = (
    used("prompt", "質問。raw なら、続きを書く文章", "what is asked; with raw, a text to continue"),
    used("system", "最初の指示", "instructions that come first"),
    used("raw", "true：会話にせず、続きを書く", "true: no conversation, the text is continued"),
    *SHARED,
    refused("suffix", "間を埋めることはできません。", "Text cannot be filled in.", ""),
    refused("images", "このモデルが読めるのは文章だけです。", "The models here read text only.", []),
    refused("template", "会話の書式は選べません。", "The template cannot be chosen.", ""),
    refused("context", "会話は /api/chat で送ってください。", "Send conversations to /api/chat.", []),
)
OPTIONS: tuple[Field, ...] = (
    *fields.sampling_fields("logprobs", "max_tokens", "repetition_penalty", "logit_bias", "ignore_eos", "min_tokens", "stop_token_ids"),
    used("num_predict", "長さの上限（-1 はなし）", "the limit of the length; -1: none"),
    used("repeat_penalty", "既出のトークンを避ける強さ", "how much repetition is avoided"),
    used("stop", "答えを終える文字列、16 個まで", "up to 16 strings that end the answer"),
    hint("num_ctx", "読む長さの希望。いつもモデルの読める全部", "how much to read: always all that the model can"),
    hint("num_keep", "切り詰めるときに残す長さ。切り詰めない", "what stays of what is cut: nothing is cut"),
    *(hint(name, "計算のしかた", "how it is computed") for name in ("num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap", "use_mlock", "low_vram", "numa", "f16_kv")),
    refused("repeat_last_n", "繰り返しは全体で数えます。", "Repetition counts everywhere.", -1),
    refused("penalize_newline", "改行も数えます。", "Newlines count, too.", True),
    refused("tfs_z", "ありません。", "There is none.", 1, 1.0),
    refused("mirostat", "ありません。", "There is none.", 0),
    refused("mirostat_tau", "ありません。", "There is none."),
    refused("mirostat_eta", "ありません。", "There is none."),
)  # fmt: skip
SAMPLED: tuple[Field, ...] = (*OPTIONS, used("repetition_penalty", "repeat_penalty のこと", "repeat_penalty"))
EMBED: tuple[Field, ...] = (
    used("model", "モデルの名前（:latest は付けても同じ）", "the name of a model; :latest may stand behind it"),
    used("input", f"文章か、その並び（{openai_embeddings.MOST} 個まで）", f"a text, or up to {openai_embeddings.MOST} of them"),
    used("dimensions", "ベクトルの次元（モデルのものと同じ数だけ）", "how long a vector is: only as long as the model's are"),
    refused("truncate", "文章は切り詰めません。長すぎれば断ります。", "Texts are not cut; one too long is refused.", False),
    hint("options", "計算のしかた", "how it is computed"),
    KEEP_ALIVE,
)
SHOW: tuple[Field, ...] = (
    used("model", "モデルの名前", "the name of a model"),
    refused("verbose", "これより詳しいものはありません。", "There is no more than this.", False),
    refused("system", "変えられません。", "It cannot be changed.", ""),
    refused("template", "変えられません。", "It cannot be changed.", ""),
    refused("options", "変えられません。", "They cannot be changed.", {}),
)
MESSAGE = ("role", "content", "images", "tool_calls", "tool_name", "tool_call_id", "thinking")


def read_chat(request: JSON) -> Asked:
    """Raises Refusal."""
    fields.check(request, CHAT)
    return _asked(request, messages=_messages(request), tools=openai_tools.tools({"tools": request.get("tools")}).tools)


def read_generate(request: JSON) -> Asked:
    """A conversation of one question; with `raw` a text to be continued. Raises Refusal."""
    fields.check(request, GENERATE)
    prompt, system = needed(request, "prompt"), string(request, "system", most=1 << 24)
    if not prompt:
        raise invalid("prompt", Words("空にはできません。", "It cannot be empty."))
    if fields.boolean(request, "raw"):
        if system is not None:
            raise invalid("system", Words("raw とは一緒に使えません。", "Not together with raw."))
        return _asked(request, prompts=(prompt,))
    first = () if system is None else (Message("system", system),)
    return _asked(request, messages=(*first, Message("user", prompt)))


def read_embed(request: JSON) -> openai_embeddings.Wanted:
    """Raises Refusal."""
    fields.check(request, EMBED)
    given = request.get("input")
    texts = [given] if isinstance(given, str) else several(given, "input", least=1, most=openai_embeddings.MOST)
    for i, each in enumerate(texts):
        if not isinstance(each, str) or not each:
            raise invalid(f"input[{i}]", Words("空でない文章が要ります。", "It takes a text that is not empty."), code="invalid_type")
    return openai_embeddings.Wanted(model_name(request), tuple(texts), False, fields.whole(request, "dimensions", 1, 1 << 20))


def read_show(request: JSON) -> str:
    """The name. Raises Refusal."""
    fields.check(request, SHOW)
    return model_name(request)


def model_name(request: JSON) -> str:
    return needed(request, "model", most=256).removesuffix(":latest")


def _asked(request: JSON, **what: Any) -> Asked:
    given = request.get("options")
    options = {} if given is None else mapping(given, "options")
    tools = what.pop("tools", ())
    try:
        fields.check(options, OPTIONS)
        length = fields.whole(options, "num_predict", -1, 2**31 - 1)
        if length == 0:
            raise invalid("num_predict", Words("1 以上か、-1 です。", "It is at least 1, or -1."))
        renamed = {**options, "repetition_penalty": options.get("repeat_penalty")}
        sampling = fields.sampling(renamed, SAMPLED, max_tokens=None if length == -1 else length, constraint=_form(request))
        found = Options(sampling, fields.stops(options, "stop", most=16), tools)
    except Refusal as error:
        name = "repeat_penalty" if error.param == "repetition_penalty" else error.param
        inside = name in {field.name for field in OPTIONS} or name in options
        raise Refusal(error.status, error.words, param=f"options.{name}" if inside else name, code=error.code) from error
    return Asked(model=model_name(request), options=found, stream=fields.boolean(request, "stream", default=True), **what)


def _form(request: JSON) -> Constraint | None:
    value = request.get("format")
    if value is None or value == "":
        return None
    if value == "json":
        return Constraint("json_object")
    try:
        return constraint.json_schema(mapping(value, "format"))
    except ConfigError as error:
        raise Refusal(400, sentence(error), param="format", code="invalid_value") from error


def _messages(request: JSON) -> tuple[Message, ...]:
    """Calls need no ids here: they get the number of their place, and what a tool says belongs to the first call of its name that
    has no answer yet."""
    found: list[Message] = []
    open_calls: list[ToolCall] = []
    for i, each in enumerate(several(request.get("messages"), "messages", least=1, most=openai_tools.MOST_MESSAGES)):
        one, place = mapping(each, f"messages[{i}]"), f"messages[{i}]"
        extra = next((name for name in one if name not in MESSAGE), None)
        if extra is not None:
            raise invalid(
                f"{place}.{extra[:80]}", Words("そのような項目はありません。", "There is no such field."), code="unknown_parameter"
            )
        if one.get("images") not in (None, []):
            words = Words("このモデルが読めるのは文章だけです。", "The models here read text only.")
            raise invalid(f"{place}.images", words, code="unsupported_content")
        role = needed(one, "role", most=20, place=f"{place}.")
        if role not in openai_tools.ROLES:
            raise invalid(f"{place}.role", Words("system、user、assistant、tool のどれかです。", "It is system, user, assistant or tool."))
        calls = _calls(one, role, place, i)
        open_calls += calls
        content = string(one, "content", most=1 << 24, place=f"{place}.", required=not calls) or ""
        answers = _answered(one, role, place, open_calls)
        found.append(Message(openai_tools.ROLES[role], content, calls, answers))
    return tuple(found)


def _calls(one: JSON, role: str, place: str, number: int) -> tuple[ToolCall, ...]:
    value = one.get("tool_calls")
    made = []
    for i, each in enumerate([] if value is None else several(value, f"{place}.tool_calls", most=openai_tools.MOST_CALLS)):
        call, at = mapping(each, f"{place}.tool_calls[{i}]"), f"{place}.tool_calls[{i}]"
        openai_tools.only(call, ("id", "type", "function"), at)
        function = mapping(call.get("function"), f"{at}.function")
        openai_tools.only(function, ("name", "arguments", "index"), f"{at}.function")
        arguments = json.dumps(mapping(function.get("arguments", {}), f"{at}.function.arguments"), ensure_ascii=False)
        id = string(call, "id", most=256, place=f"{at}.") or f"call_{number}_{i}"
        made.append(ToolCall(id, needed(function, "name", most=256, place=f"{at}.function."), arguments))
    if made and role != "assistant":
        raise invalid(f"{place}.tool_calls", Words("assistant だけが使えます。", "Only the assistant has them."))
    return tuple(made)


def _answered(one: JSON, role: str, place: str, open_calls: list[ToolCall]) -> str | None:
    """The call that a tool answers, which is then no longer open."""
    id, name = string(one, "tool_call_id", most=256, place=f"{place}."), string(one, "tool_name", most=256, place=f"{place}.")
    if role != "tool":
        if id or name:
            raise invalid(f"{place}.{'tool_call_id' if id else 'tool_name'}", Words("tool だけが使えます。", "Only a tool has it."))
        return None
    call = next((call for call in open_calls if id in (None, call.id) and name in (None, call.name)), None)
    if call is None:
        words = Words("これに当たる、まだ答えのない呼び出しがありません。", "No call that it could answer is open.")
        raise invalid(f"{place}.tool_name" if name else f"{place}.role", words)
    open_calls.remove(call)
    return call.id


# ── answers


def whole(head: Head, asked: Asked, events: Sequence[Event], *, chat: bool) -> dict[str, Any]:
    """The lines put together. Raises Refusal for an answer that was stopped halfway."""
    chunks = Chunks(head, asked, chat=chat)
    lines = [line for event in events for line in chunks.event(0, event)] + chunks.end()
    return joined(lines, chat=chat)


def joined(lines: Sequence[Mapping[str, Any]], *, chat: bool) -> dict[str, Any]:
    """What a client makes of the lines: texts after each other, lists too, and what the last line says of the end."""
    made: dict[str, Any] = {"role": "assistant", "content": ""} if chat else {"response": ""}
    for line in lines:
        part = line["message"] if chat else line
        for name in ("content", "response", "thinking", "tool_calls", "notices", "sources"):
            if name in part:
                made[name] = made[name] + part[name] if name in made else part[name]
    return {**lines[-1], **({"message": made} if chat else made)}


class Chunks:
    """Feed it events; what it gives are the lines, in order."""

    def __init__(self, head: Head, asked: Asked, *, chat: bool) -> None:
        self._head, self._asked, self._chat = head, asked, chat
        self._calls = 0
        self._usage: Usage | None = None
        self._done = Done("cancelled")
        self._begun = time.monotonic_ns()
        self._first: int | None = None

    def event(self, index: int, event: Event) -> list[dict[str, Any]]:
        """Raises Refusal for an end that is none."""
        self._first = self._first or time.monotonic_ns()
        match event:
            case Text(text) if text:
                return [self._line({"content" if self._chat else "response": text})]
            case Thought(text) if text:
                return [self._line({"thinking": text})]
            case Notice(text):
                return [self._line({"notices": [text]})]
            case Source():
                return [self._line({"sources": [asdict(event)]})]
            case ToolCall() if kept(event, self._calls, self._asked):
                self._calls += 1
                function = {"name": event.name, "arguments": _arguments(event)}
                return [self._line({"tool_calls": [{"id": event.id, "function": function}]})]
            case Usage():
                self._usage = event
            case Done(finish):
                finish_reason(finish, self._calls)
                self._done = event
        return []

    def end(self) -> list[dict[str, Any]]:
        """Raises Refusal for an answer without an end."""
        reason = finish_reason(self._done.finish, self._calls)
        now = time.monotonic_ns()
        first = self._first or now
        counts = {"prompt_eval_count": self._usage.prompt_tokens, "eval_count": self._usage.completion_tokens} if self._usage else {}
        times = {
            "total_duration": now - self._begun,
            "load_duration": 0,
            "prompt_eval_duration": first - self._begun,
            "eval_duration": now - first,
        }
        return [{**self._line({}), "done": True, "done_reason": "stop" if reason == "tool_calls" else reason, **times, **counts}]

    def _line(self, part: dict[str, Any]) -> dict[str, Any]:
        made = {"model": self._head.model, "created_at": _time(self._head.created)}
        if self._chat:
            return {**made, "message": {"role": "assistant", "content": "", **part}, "done": False}
        return {**made, "response": "", **part, "done": False}


def _arguments(call: ToolCall) -> dict[str, Any]:
    """Ollama's arguments are an object. Raises Refusal for what is none: half a call is not given out as a whole one."""
    try:
        value = json.loads(call.arguments)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        words = Words(
            "モデルの書いたツールの引数が、JSON のオブジェクトではありません。", "The arguments that the model wrote are no JSON object."
        )
        raise Refusal(502, words, code="invalid_tool_call")
    return value


def embedded(model: str, vectors: Sequence[Sequence[float]], tokens: int, nanoseconds: int, notices: Sequence[str]) -> dict[str, Any]:
    made = {"model": model, "embeddings": [list(vector) for vector in vectors], "total_duration": nanoseconds, "load_duration": 0}
    return {**made, "prompt_eval_count": tokens, **({"notices": list(notices)} if notices else {})}


# ── models


def tagged(model: Served) -> dict[str, Any]:
    """What is not known, such as a size or a digest, is left out."""
    return {"name": model.name, "model": model.name, "modified_at": _time(model.created), "details": _details(model)}


def shown(model: Served) -> dict[str, Any]:
    can = ["completion"] if model.chat is not None else []
    can += ["embedding"] if model.mine is not None else []
    can += ["tools"] if model.tools else []
    info = {"general.architecture": "tsuzuri", **({"tsuzuri.context_length": model.length} if model.length else {})}
    return {"modified_at": _time(model.created), "details": _details(model), "model_info": info, "capabilities": can}


def _details(model: Served) -> dict[str, Any]:
    return {"parent_model": "", "format": "safetensors" if model.mine is not None else "remote", "family": "", "families": []}


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shape(refusal: Refusal, request_id: str) -> dict[str, Any]:
    """Its errors are one sentence: the field stands before it."""
    words = str(refusal.words)
    message = f"{refusal.param}: {words}" if refusal.param and refusal.param not in words else words
    return {"error": f"{message} ({request_id})" if refusal.status == 500 else message}
