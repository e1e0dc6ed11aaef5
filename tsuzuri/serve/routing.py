"""Which of several models answers: rules that a person can read, and the next model where one fails before its first event.

In: a model that is a name for several (`Route`), and a request. Out: those whose conditions hold, in their order, and the events of the
first of them that answers. The headers say which it was and why not the ones before it; so does the audit. After the first event nothing
is tried again: half an answer is not continued by another model. A key must be allowed the model that answers, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from tsuzuri.errors import BusyError, ConfigError, ContextError, MissingError, RemoteError, TsuzuriError, Words
from tsuzuri.serve.refusal import Refusal
from tsuzuri.serve.running import closing
from tsuzuri.store.keys import Key
from tsuzuri.types import Event, Message, Notice

if TYPE_CHECKING:
    from tsuzuri.serve.call import Call
    from tsuzuri.serve.models import Served
    from tsuzuri.serve.wire.asked import Asked

MODEL, FALLBACK = "x-tsuzuri-model", "x-tsuzuri-fallback"
BYTES_A_TOKEN = 3  # of an unknown tokenizer: one token for a Japanese character, and more than there are in English
Reason: TypeAlias = Literal["unreachable", "timeout", "broken", "limited", "failing", "denied", "busy", "context", "unsupported", "refused"]
USUAL: tuple[Reason, ...] = ("unreachable", "timeout", "broken", "limited", "failing", "denied", "busy", "context", "unsupported")
KINDS: Mapping[type[TsuzuriError], Reason] = {
    RemoteError: "failing",
    BusyError: "busy",
    ContextError: "context",
    MissingError: "unsupported",
}


@dataclass(frozen=True, slots=True)
class When:
    """Conditions; all that are given must hold. Raises ConfigError for those that no request can meet."""

    personal: bool | None = None  # whether personal data is found in what is asked
    tools: bool | None = None  # whether there are tools, or results of tools
    tokens_over: int | None = None  # the prompt has more
    tokens_up_to: int | None = None  # the prompt has as many at most
    keys: tuple[str, ...] = ()  # ids of API keys
    users: tuple[str, ...] = ()  # ids
    share: float | None = None  # of all who ask, from 0 to 1: the same ones each time

    def __post_init__(self) -> None:
        if self.share is not None and not 0 < self.share <= 1:
            raise _wrong("when.share", Words("0 より大きく 1 以下の数が要ります。", "It takes a number above 0, up to 1."))
        least, most = self.tokens_over, self.tokens_up_to
        if any(value is not None and value < 0 for value in (least, most)) or (least is not None and most is not None and least >= most):
            raise _wrong("when.tokens_over", Words("トークン数の範囲が空です。", "No number of tokens lies in it."))


@dataclass(frozen=True, slots=True)
class Candidate:
    model: str
    when: When = When()


@dataclass(frozen=True, slots=True)
class Route:
    """Models in the order in which they are asked. `fallback`: reasons for which the next one is. `wait`: seconds that each has for its
    first event; None: as long as it takes. Raises ConfigError for no model and for no time."""

    models: tuple[Candidate, ...]
    fallback: tuple[Reason, ...] = USUAL
    wait: float | None = None

    def __post_init__(self) -> None:
        if not self.models:
            raise _wrong("models", Words("モデルが一つもありません。", "There is no model."))
        if self.wait is not None and not 0 < self.wait < math.inf:
            raise _wrong("wait", Words("0 より大きい秒数が要ります。", "It takes a number of seconds above 0."))


async def models(call: Call, model: Served, asked: Asked) -> list[Served]:
    """The model itself, or those of its route that may answer this. Raises Refusal when there is none."""
    if model.route is None:
        return [model]
    if asked.options.sampling.logprobs is not None:
        words = Words(
            f"{model.name} では、どのモデルが答えるか前もって決まりません。", f"Which model answers for {model.name} is not known before."
        )
        raise Refusal(400, words, param="logprobs", code="unsupported_parameter")
    facts = _Facts(call, asked, [call.service.pool.get(one.model) for one in model.route.models])
    chosen = [one.model for one in model.route.models if await facts.hold(model.name, one.when)]
    if not chosen:
        words = Words(f"{model.name} の規則に、この依頼に当てはまるものがありません。", f"No rule of {model.name} takes this request.")
        raise Refusal(400, words, param="model", code="no_route")
    assert call.who is not None
    may = [name for name in dict.fromkeys(chosen) if call.who.models is None or name in call.who.models]
    if not may:
        from tsuzuri.serve.models import unknown  # noqa: PLC0415  it knows this file

        raise unknown(asked.model)
    return [call.service.pool.get(name) for name in may]


async def answered(
    call: Call, model: Served, tried: Sequence[Served], ask: Callable[[Served], AsyncIterator[tuple[int, Event]]]
) -> AsyncIterator[tuple[int, Event]]:
    """The events of the first that answers. Raises what the last one raised, or one whose failure is no reason to go on."""
    if model.route is None:
        call.tell({MODEL: model.name})
        events = ask(model)
        async with closing(events):
            async for found in events:
                yield found
        return
    failed: dict[str, str] = {}
    told: dict[tuple[int, str], None] = {}  # notices of those that failed, each once: what was masked is masked for each
    call.marks = {**call.marks, "tsuzuri.route": model.name}
    for one in tried:
        call.model = one
        async with AsyncExitStack() as stack:
            held: list[tuple[int, Event]] = []
            try:
                events = ask(one)
                await stack.enter_async_context(closing(events))
                with _late(one.name):
                    async with asyncio.timeout(model.route.wait):
                        async for found in events:
                            held.append(found)
                            if not isinstance(found[1], Notice):
                                break
            except (TsuzuriError, Refusal) as error:
                reason = _reason(error)
                failed[one.name] = reason
                call.service.metrics.fallbacks.labels(one.name, reason).inc()
                told |= {(index, event.text): None for index, event in held if isinstance(event, Notice)}
                call.marks = {**call.marks, "tsuzuri.fallback": _list(failed)}
                if one is tried[-1] or reason not in model.route.fallback:
                    call.tell({FALLBACK: _list(failed)})
                    raise
                continue
            late = not call.tell({MODEL: one.name, **({FALLBACK: _list(failed)} if failed else {})})
            if failed or late:
                told[0, str(_told(one.name, failed))] = None
            for index, text in told:
                yield index, Notice(text)
            for index, event in held:
                if not (isinstance(event, Notice) and (index, event.text) in told):
                    yield index, event
            async for found in events:
                yield found
            return


@contextmanager
def _late(name: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise RemoteError(
            Words(f"モデル {name} に尋ねました。", f"Asking the model {name}."),
            found=Words("決められた時間内に答え始めませんでした。", "It did not begin to answer in the time it has."),
            todo=Words("時間をおいてもう一度試してください。", "Try again later."),
            code="timeout",
        ) from error


def _reason(error: TsuzuriError | Refusal) -> str:
    """One word for what happened: the provider's own, or by kind."""
    if isinstance(error, Refusal):
        return "unsupported" if (error.code or "").startswith("unsupported") else "refused"
    return error.code or next((reason for kind, reason in KINDS.items() if isinstance(error, kind)), "refused")


def _list(failed: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({reason})" for name, reason in failed.items())


def _told(name: str, failed: Mapping[str, str]) -> Words:
    if not failed:
        return Words(f"答えたモデル：{name}", f"Answered by {name}.")
    return Words(f"{_list(failed)} が答えなかったため、{name} が答えました。", f"{_list(failed)} did not answer; {name} did.")


# ── conditions


class _Facts:
    """What the conditions are about, found out when one asks."""

    def __init__(self, call: Call, asked: Asked, served: Sequence[Served]) -> None:
        self._call, self._asked, self._served = call, asked, served
        self._personal: bool | None = None
        self._length: int | None = None

    async def hold(self, route: str, when: When) -> bool:
        """What costs nothing to know is asked first."""
        if not self._asks(route, when) or (when.tools is not None and when.tools != self._tools()):
            return False
        if when.tokens_over is not None and await self._tokens() <= when.tokens_over:
            return False
        if when.tokens_up_to is not None and await self._tokens() > when.tokens_up_to:
            return False
        return when.personal is None or when.personal == await self._found()

    def _asks(self, route: str, when: When) -> bool:
        """Whether it is one of those who are meant."""
        who = self._call.who
        assert who is not None
        ids = (who.id, who.replaces if isinstance(who, Key) else None)  # or has taken the place of one
        keys = not when.keys or any(one in when.keys for one in ids)
        share = when.share is None or place(route, self._call.tenant) < when.share
        return keys and share and (not when.users or who.user_id in when.users)

    def _tools(self) -> bool:
        return bool(self._asked.options.tools) or any(one.tool_calls or one.role == "tool" for one in self._asked.messages)

    async def _tokens(self) -> int:
        """As the first model of our own among them reads it; where none can, an estimate from the bytes."""
        if self._length is None:
            self._length = -(-sum(len(text.encode()) for text in _texts(self._asked.messages)) // BYTES_A_TOKEN)
            ours = next((one.tokens for one in self._served if one.tokens is not None), None)
            if ours is not None:
                with suppress(TsuzuriError):  # it cannot read tools
                    self._length = await ours.length(self._asked.messages, self._asked.options.tools)
        return self._length

    async def _found(self) -> bool:
        """Before anything is masked."""
        if self._personal is None:
            self._personal = await self._call.service.guard.personal(_texts(self._asked.messages))
        return self._personal


def _texts(messages: Sequence[Message]) -> list[str]:
    return [text for one in messages for text in (one.content, *(call.arguments for call in one.tool_calls)) if text]


def place(route: str, tenant: str) -> float:
    """Where somebody stands among all who ask, from 0 to 1: always at the same place in one route, elsewhere in another."""
    digest = hashlib.sha256(f"{route}\n{tenant}".encode()).digest()
    return int.from_bytes(digest[:8]) / (1 << 64)


def _wrong(where: str, found: Words) -> ConfigError:
    return ConfigError(
        Words(f"経路の「{where}」を読もうとしました。", f"Reading '{where}' of a route."),
        found=found,
        todo=Words("経路のファイルを直してください。", "Correct the file of routes."),
    )
