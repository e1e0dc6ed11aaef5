"""OpenAI's chat completions.

In: the JSON of POST /v1/chat/completions -> `Asked`. In: events of each choice -> the answer, whole (`whole`) or in chunks (`Chunks`).
What OpenAI has no place for stands in fields of its own: `reasoning_content` (thoughts), `notices`, `sources`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.serve.wire import fields, forms, openai_tools
from tsuzuri.serve.wire.asked import MOST_CHOICES, Asked, Head, finish_reason, finite, kept, piece, spelled, total
from tsuzuri.serve.wire.fields import JSON, Field, hint, invalid, recorded, refused, used
from tsuzuri.types import Done, Event, Finish, Notice, Options, Source, Text, Thought, Token, ToolCall, Usage

FIELDS: tuple[Field, ...] = (
    used("model", "モデルの名前", "the name of a model"),
    used("messages", "会話", "the conversation"),
    *fields.sampling_fields("logprobs"),
    used("max_completion_tokens", "max_tokens の新しい名前", "the newer name of max_tokens"),
    used("n", f"答えの数、{MOST_CHOICES} まで", f"how many answers, at most {MOST_CHOICES}"),
    used("stop", "答えを終える文字列、4 個まで", "up to 4 strings that end the answer"),
    used("logprobs", "各トークンの対数確率を添える", "the log-probability of each token"),
    used("top_logprobs", "各位置の候補を 20 個まで添える", "up to 20 candidates at each place"),
    used("stream", "できた分から送る", "send it as it comes"),
    used("stream_options", "include_usage：最後に使用量を送る", "include_usage: the usage at the end"),
    used("tools", "呼び出せるツール（使えるモデルだけ）", "tools that may be called, where the model can"),
    used("tool_choice", "none、auto、required、ツールの名前、allowed_tools", "none, auto, required, a tool by name, or allowed_tools"),
    used("parallel_tool_calls", "false：ツールの呼び出しを一つに限る", "false: one tool call at most"),
    recorded("user", "利用者の印", "who it is for"),
    recorded("safety_identifier", "利用者の印", "who it is for"),
    hint("prompt_cache_key", "同じ始まりを持つ依頼の印", "which requests begin alike"),
    recorded("metadata", "記録に添える値", "values for the record"),
    *forms.FIELDS,
    refused("store", "答えは保存しません。", "Answers are not stored.", False),
    refused("service_tier", "扱いに段階はありません。", "There are no tiers.", "auto", "default"),
    refused("reasoning_effort", "考える深さは選べません。", "The effort cannot be chosen.", "none"),
    refused("verbosity", "くわしさは選べません。", "It cannot be chosen.", "medium"),
    refused("modalities", "文章だけです。", "Text only.", ["text"]),
    refused("audio", "音声は扱えません。", "Audio is not supported."),
    refused("prediction", "予想される答えは使えません。", "A predicted answer cannot be used."),
    refused("web_search_options", "ウェブの検索はしません。", "The web is not searched."),
    refused("moderation", "この項目では選べません。", "It cannot be chosen here."),
    hint("prompt_cache_options", "入力の使い回し", "how prompts are kept"),
    hint("prompt_cache_retention", "入力を使い回す期間", "how long prompts are kept"),
    refused("functions", "tools を使ってください。", "Use tools.", []),
    refused("function_call", "tool_choice を使ってください。", "Use tool_choice.", "none"),
)


def read(request: JSON) -> Asked:
    """Raises Refusal."""
    fields.check(request, FIELDS)
    choice = openai_tools.tools(request)
    return Asked(
        model=fields.needed(request, "model", most=256),
        messages=openai_tools.messages(request),
        options=Options(
            fields.sampling(
                request,
                FIELDS,
                max_tokens=fields.max_tokens(request, "max_tokens", "max_completion_tokens"),
                logprobs=_logprobs(request),
                constraint=forms.read(request),
            ),
            fields.stops(request, "stop", most=4),
            choice.tools,
            choice.calls,
        ),
        choices=fields.whole(request, "n", 1, MOST_CHOICES) or 1,
        stream=fields.boolean(request, "stream"),
        usage_chunk=usage_chunk(request),
        marks=fields.marks(request, FIELDS),
    )


def _logprobs(request: JSON) -> int | None:
    """How many candidates to report; None for no log-probabilities at all."""
    wanted, top = fields.boolean(request, "logprobs"), fields.whole(request, "top_logprobs", 0, 20)
    if top is not None and not wanted:
        raise invalid("top_logprobs", Words("logprobs を true にしてください。", "Set logprobs to true."))
    return (top or 0) if wanted else None


def usage_chunk(request: JSON) -> bool:
    """`stream_options.include_usage`."""
    value = request.get("stream_options")
    if value is None:
        return False
    if not fields.boolean(request, "stream"):
        raise invalid("stream_options", Words("stream が true のときだけです。", "Only when stream is true."))
    options = fields.mapping(value, "stream_options")
    for name in options:
        if name not in ("include_usage", "include_obfuscation"):
            words = Words("そのような項目はありません。", "There is no such field.")
            raise invalid(f"stream_options.{name[:80]}", words, code="unknown_parameter")
    if fields.boolean(options, "include_obfuscation", place="stream_options."):
        words = Words("長さを隠す詰め物はできません。", "Padding that hides lengths is not supported.")
        raise invalid("stream_options.include_obfuscation", words, code="unsupported_parameter")
    return fields.boolean(options, "include_usage", place="stream_options.")


# ── the answer, whole


def whole(head: Head, asked: Asked, answers: Sequence[Sequence[Event]]) -> dict[str, Any]:
    """One choice for each list of events. Raises Refusal for an answer that was stopped halfway."""
    usages = [next((event for event in events if isinstance(event, Usage)), None) for events in answers]
    made = {"id": head.id, "object": "chat.completion", "created": head.created, "model": head.model}
    choices = [_choice(head, asked, index, events) for index, events in enumerate(answers)]
    return {**made, "choices": choices, "usage": usage(total(usages, asked.choices)), "service_tier": "default"}


def _choice(head: Head, asked: Asked, index: int, events: Sequence[Event]) -> dict[str, Any]:
    calls: list[dict[str, Any]] = []
    for event in events:
        if isinstance(event, ToolCall) and kept(event, len(calls), asked):
            calls.append({"id": event.id, "type": "function", "function": {"name": event.name, "arguments": event.arguments}})
    said = "".join(event.text for event in events if isinstance(event, Text))
    message: dict[str, Any] = {"role": "assistant", "content": said if said or not calls else None, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    thoughts = "".join(event.text for event in events if isinstance(event, Thought))
    notices = [event.text for event in events if isinstance(event, Notice)]
    sources = [asdict(event) for event in events if isinstance(event, Source)]
    more = {"reasoning_content": thoughts, "notices": notices, "sources": sources}
    message |= {name: value for name, value in more.items() if value}
    tokens = [token for event in events if isinstance(event, Text) for token in event.tokens]
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs(head, asked, tokens),
        "finish_reason": finish_reason(ended(events), len(calls)),
    }


def ended(events: Sequence[Event]) -> Finish:
    """An answer without an end was stopped halfway."""
    return next((event.finish for event in events if isinstance(event, Done)), "cancelled")


def usage(found: Usage | None) -> dict[str, Any] | None:
    """None where the model does not count its tokens: nothing is made up."""
    if found is None:
        return None
    return {
        "prompt_tokens": found.prompt_tokens,
        "completion_tokens": found.completion_tokens,
        "total_tokens": found.prompt_tokens + found.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": found.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": found.reasoning_tokens},
    }


def logprobs(head: Head, asked: Asked, tokens: Sequence[Token]) -> dict[str, Any] | None:
    if asked.options.sampling.logprobs is None:
        return None
    return {"content": [_token(head, token) for token in tokens], "refusal": None}


def _token(head: Head, token: Token) -> dict[str, Any]:
    assert head.spell is not None, "the route refuses logprobs of a model whose tokens it does not know"
    top = [_one(spelling, logprob) for spelling, logprob in spelled(head, token)]
    return {**_one(head.spell(token.id), finite(token.logprob)), "top_logprobs": top}


def _one(spelling: bytes, logprob: float) -> dict[str, Any]:
    return {"token": piece(spelling), "logprob": logprob, "bytes": list(spelling)}


# ── the answer, in chunks


class Chunks:
    """Feed it events with the index of their choice; what it gives are the chunks, in order. One for each answer."""

    def __init__(self, head: Head, asked: Asked) -> None:
        self._head, self._asked = head, asked
        self._calls = [0] * asked.choices
        self._begun = [False] * asked.choices
        self._usages: list[Usage | None] = [None] * asked.choices

    def event(self, index: int, event: Event) -> list[dict[str, Any]]:
        """Raises Refusal for an end that is none."""
        made = [] if self._begun[index] else [self._delta(index, {"role": "assistant", "content": ""})]
        self._begun[index] = True
        match event:
            case Text(text, tokens) if text or (tokens and self._asked.options.sampling.logprobs is not None):
                made.append(self._delta(index, {"content": text}, tokens))
            case Thought(text):
                made.append(self._delta(index, {"reasoning_content": text}))
            case Notice(text):
                made.append(self._delta(index, {"notices": [text]}))
            case Source():
                made.append(self._delta(index, {"sources": [asdict(event)]}))
            case ToolCall() if kept(event, self._calls[index], self._asked):
                made += self._call(index, event)
            case Usage():
                self._usages[index] = event
            case Done(finish):
                made.append(self._delta(index, {}, finish=finish_reason(finish, self._calls[index])))
        return made

    def end(self) -> list[dict[str, Any]]:
        """The usage, where it was asked for; never a chunk without choices otherwise."""
        return [{**self._chunk([]), "usage": usage(total(self._usages, self._asked.choices))}] if self._asked.usage_chunk else []

    def _call(self, index: int, call: ToolCall) -> list[dict[str, Any]]:
        """First who is called, then with what."""
        number = self._calls[index]
        self._calls[index] += 1
        first = {"index": number, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
        then = {"index": number, "function": {"arguments": call.arguments}}
        return [self._delta(index, {"tool_calls": [first]}), self._delta(index, {"tool_calls": [then]})]

    def _delta(self, index: int, delta: dict[str, Any], tokens: Sequence[Token] = (), finish: str | None = None) -> dict[str, Any]:
        found = logprobs(self._head, self._asked, tokens) if tokens else None
        return self._chunk([{"index": index, "delta": delta, "logprobs": found, "finish_reason": finish}])

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        head = self._head
        made = {"id": head.id, "object": "chat.completion.chunk", "created": head.created, "model": head.model, "choices": choices}
        return {**made, "usage": None} if self._asked.usage_chunk else made
