"""OpenAI's (older) completions: texts to be continued, as text or as token ids.

In: the JSON of POST /v1/completions -> `Asked`. In: events of each choice -> the answer, whole (`whole`) or in chunks (`Chunks`).
The choices of the first prompt come first: choice = prompt × n + which of its n.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.serve.wire import fields
from tsuzuri.serve.wire.asked import MOST_CHOICES, Asked, Head, finish_reason, finite, piece, spelled, total
from tsuzuri.serve.wire.fields import JSON, Field, invalid, recorded, refused, used
from tsuzuri.serve.wire.openai_chat import ended, usage, usage_chunk
from tsuzuri.types import Done, Event, Options, Text, Token, Usage

USUAL_LENGTH = 16  # tokens, where max_tokens is not given: OpenAI's own default
MOST_PROMPTS, MOST_IDS = 64, 1 << 20
FIELDS: tuple[Field, ...] = (
    used("model", "モデルの名前", "the name of a model"),
    used("prompt", "続きを書かせる文章かトークン番号、またはその並び", "a text or token ids to continue, or several"),
    *fields.sampling_fields("logprobs", "max_tokens"),
    used("max_tokens", f"長さの上限（既定は {USUAL_LENGTH}）", f"the limit of the length; {USUAL_LENGTH} unless given"),
    used("logprobs", "各位置の候補の対数確率を 5 個まで添える", "log-probabilities of up to 5 candidates at each place"),
    used("n", f"答えの数、{MOST_CHOICES} まで", f"how many answers, at most {MOST_CHOICES}"),
    used("stop", "続きを終える文字列、4 個まで", "up to 4 strings that end it"),
    used("echo", "元の文章も返す", "give the prompt back, too"),
    used("stream", "できた分から送る", "send it as it comes"),
    used("stream_options", "include_usage：最後に使用量を送る", "include_usage: the usage at the end"),
    recorded("user", "利用者の印", "who it is for"),
    refused("best_of", "よい順には選べません。", "There is no choosing of the best.", 1),
    refused("suffix", "間を埋めることはできません。", "Filling a gap is not supported.", ""),
)


def read(request: JSON) -> Asked:
    """Raises Refusal."""
    fields.check(request, FIELDS)
    logprobs, echo = fields.whole(request, "logprobs", 0, 5), fields.boolean(request, "echo")
    if echo and logprobs is not None:
        words = Words("元の文章の対数確率は出せないので、logprobs とは併用できません。", "It has no log-probabilities: leave logprobs out.")
        raise invalid("echo", words, code="unsupported_parameter")
    length = fields.max_tokens(request, "max_tokens") or max(USUAL_LENGTH, fields.whole(request, "min_tokens", 0, 2**31 - 1) or 0)
    prompts = _prompts(request.get("prompt"))
    choices = fields.whole(request, "n", 1, MOST_CHOICES) or 1
    if choices * len(prompts) > MOST_PROMPTS:
        raise invalid("n", Words(f"答えは全部で {MOST_PROMPTS} 個までです。", f"At most {MOST_PROMPTS} answers in all."))
    return Asked(
        model=fields.needed(request, "model", most=256),
        prompts=prompts,
        options=Options(
            fields.sampling(request, FIELDS, max_tokens=length, logprobs=logprobs),
            fields.stops(request, "stop", most=4),
        ),
        choices=choices,
        stream=fields.boolean(request, "stream"),
        usage_chunk=usage_chunk(request),
        echo=echo,
        marks=fields.marks(request, FIELDS),
    )


def _prompts(value: object) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(value, str):
        return (value,)
    found = fields.several(value, "prompt", least=1, most=MOST_IDS)
    if _are_ids(found):
        return (tuple(found),)
    if len(found) > MOST_PROMPTS:
        raise invalid("prompt", Words(f"{MOST_PROMPTS} 個までです。", f"At most {MOST_PROMPTS}."))
    return tuple(_prompt(one, f"prompt[{i}]") for i, one in enumerate(found))


def _prompt(one: object, place: str) -> str | tuple[int, ...]:
    if isinstance(one, str):
        return one
    if isinstance(one, list) and one and _are_ids(one):
        return tuple(one)
    raise invalid(place, Words("文章か、トークン番号の並びが要ります。", "It takes a text or token ids."), code="invalid_type")


def _are_ids(values: list[Any]) -> bool:
    return all(isinstance(id, int) and not isinstance(id, bool) and 0 <= id < 2**31 for id in values)


def whole(head: Head, asked: Asked, answers: Sequence[Sequence[Event]], echoed: Sequence[str]) -> dict[str, Any]:
    """`echoed`: the text of each prompt, to stand before its continuations; empty strings unless asked for."""
    usages = [next((event for event in events if isinstance(event, Usage)), None) for events in answers]
    made = {"id": head.id, "object": "text_completion", "created": head.created, "model": head.model}
    choices = [_choice(head, asked, index, events, echoed[index // asked.choices]) for index, events in enumerate(answers)]
    return {**made, "choices": choices, "usage": usage(total(usages, asked.choices))}


def _choice(head: Head, asked: Asked, index: int, events: Sequence[Event], before: str) -> dict[str, Any]:
    text = before + "".join(event.text for event in events if isinstance(event, Text))
    tokens = [token for event in events if isinstance(event, Text) for token in event.tokens]
    found = _logprobs(head, asked, tokens, 0)[0]
    return {"index": index, "text": text, "logprobs": found, "finish_reason": finish_reason(ended(events), 0)}


def _logprobs(head: Head, asked: Asked, tokens: Sequence[Token], offset: int) -> tuple[dict[str, Any] | None, int]:
    """The four lists of the older form, and where the next token begins. An offset counts characters."""
    if asked.options.sampling.logprobs is None:
        return None, offset
    assert head.spell is not None, "the route refuses logprobs of a model whose tokens it does not know"
    spellings = [head.spell(token.id) for token in tokens]
    offsets = []
    for spelling in spellings:
        offsets.append(offset)
        offset += len(spelling.decode("utf-8", errors="ignore"))
    return {
        "tokens": [piece(spelling) for spelling in spellings],
        "token_logprobs": [finite(token.logprob) for token in tokens],
        "top_logprobs": [{piece(spelling): logprob for spelling, logprob in spelled(head, token)} for token in tokens],
        "text_offset": offsets,
    }, offset


class Chunks:
    """Feed it events with the index of their choice; what it gives are the chunks, in order."""

    def __init__(self, head: Head, asked: Asked, echoed: Sequence[str]) -> None:
        self._head, self._asked = head, asked
        count = asked.choices * len(asked.prompts)
        self._before = [echoed[index // asked.choices] for index in range(count)]
        self._offsets = [0] * count
        self._usages: list[Usage | None] = [None] * count

    def event(self, index: int, event: Event) -> list[dict[str, Any]]:
        before, self._before[index] = self._before[index], ""
        made = [self._piece(index, before)] if before else []
        match event:
            case Text(text, tokens) if text or (tokens and self._asked.options.sampling.logprobs is not None):
                made.append(self._piece(index, text, tokens))
            case Usage():
                self._usages[index] = event
            case Done(finish):
                made.append(self._piece(index, "", finish=finish_reason(finish, 0)))
        return made

    def end(self) -> list[dict[str, Any]]:
        return [{**self._chunk([]), "usage": usage(total(self._usages, self._asked.choices))}] if self._asked.usage_chunk else []

    def _piece(self, index: int, text: str, tokens: Sequence[Token] = (), finish: str | None = None) -> dict[str, Any]:
        found = None
        if tokens:
            found, self._offsets[index] = _logprobs(self._head, self._asked, tokens, self._offsets[index])
        return self._chunk([{"index": index, "text": text, "logprobs": found, "finish_reason": finish}])

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        head = self._head
        made = {"id": head.id, "object": "text_completion", "created": head.created, "model": head.model, "choices": choices}
        return {**made, "usage": None} if self._asked.usage_chunk else made
