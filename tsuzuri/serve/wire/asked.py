"""What a request comes to, whatever format it came in, and what of a model its answer is written with.

In: the values that `read` of a format found. Out: plain values. How an answer ended is decided here, once for all formats.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tsuzuri.engine.sampling import copies
from tsuzuri.errors import Words
from tsuzuri.serve.refusal import Refusal
from tsuzuri.types import Event, Finish, Message, Options, Token, ToolCall, Usage

MOST_CHOICES = 8


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. `messages` for a conversation, `prompts` for texts to be continued."""

    model: str
    options: Options
    messages: tuple[Message, ...] = ()
    prompts: tuple[str | tuple[int, ...], ...] = ()
    choices: int = 1  # of each prompt
    stream: bool = False
    usage_chunk: bool = False  # a last chunk with the usage
    echo: bool = False  # the prompt comes before its continuation
    marks: Mapping[str, str] = field(default_factory=dict)  # recorded with the request
    extras: Mapping[str, Any] = field(default_factory=dict)  # what the format wants to say back


@dataclass(frozen=True, slots=True)
class Head:
    """What every chunk of an answer repeats."""

    id: str
    created: int  # seconds since 1970
    model: str
    spell: Callable[[int], bytes] | None = None  # the bytes of a token, where the model is ours


def for_choice(options: Options, index: int) -> Options:
    """The options of one of several choices: the first has the seed that was asked for, each other one its own, derived from it."""
    return replace(options, sampling=copies(options.sampling, index + 1)[index])


def finish_reason(finish: Finish, calls: int) -> str:
    """Cut off stays cut off, even inside a tool call; calls are the reason only if there are any. Raises Refusal when something
    else stopped the answer: half an answer is not given out as a whole one."""
    if finish == "cancelled":
        raise Refusal(503, Words("生成が途中で止められました。", "The generation was stopped halfway."), code="cancelled", retry=1)
    if finish in ("stop", "tool_calls"):
        return "tool_calls" if calls else "stop"
    return finish


def kept(event: Event, calls: int, asked: Asked) -> bool:
    """False for a tool call beyond those that were asked for."""
    most = asked.options.calls[1]
    return not (isinstance(event, ToolCall) and most is not None and calls >= most)


def total(usages: Sequence[Usage | None], choices: int) -> Usage | None:
    """Of several choices: each prompt counts once. None where a model does not count."""
    known = [usage for usage in usages if usage is not None]
    if not known or len(known) < len(usages):
        return None
    prompts = known[::choices]
    return Usage(
        sum(u.prompt_tokens for u in prompts),
        sum(u.completion_tokens for u in known),
        sum(u.cached_tokens for u in prompts),
        sum(u.reasoning_tokens for u in known),
    )


def piece(token_bytes: bytes) -> str:
    """A token for a reader of JSON; bytes that are no whole characters as OpenAI writes them."""
    try:
        return token_bytes.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token_bytes)


def finite(logprob: float) -> float:
    """JSON knows no infinity; -9999 is what OpenAI gives for it."""
    return max(logprob, -9999.0)


def dumps(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def spelled(head: Head, token: Token) -> list[tuple[bytes, float]]:
    """The candidates of a place, the most probable first."""
    assert head.spell is not None
    return [(head.spell(id), finite(logprob)) for id, logprob in token.top]
