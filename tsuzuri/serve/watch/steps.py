"""The steps of one call, and how long each takes: the one place where they are timed.

In: the beginning and the end of a step, and the W3C `traceparent` that a client sent. Out: spans, and the one that goes along to a
provider. A span has names, numbers and times; never what was said, a key or an address.

    authenticate → turn → body → route → count → reserve → guard → model → settle
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from tsuzuri.serve.running import closing
from tsuzuri.types import Chat, Done, Event, Message, Notice, Options, Usage

PARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
MOST = 128  # spans of a call: one with many texts has as many steps
INTERNAL, SERVER, CLIENT = 1, 2, 3  # kinds of spans, by their numbers in OTLP
Value = str | int | float


@dataclass(frozen=True, slots=True)
class Trace:
    """Which trace a call belongs to, and which span of a client it stands in; `recorded`: whether it is to be written down."""

    id: str  # 32 hexadecimal digits
    parent: str = ""  # 16, or nothing
    recorded: bool = True


def received(headers: Sequence[str]) -> Trace | None:
    """Of `traceparent`, as W3C's Trace Context (2021) says; None where there is none, or one that is not to be believed."""
    found = PARENT.fullmatch(headers[0].strip()) if len(headers) == 1 and len(headers[0]) <= 512 else None
    if found is None or (found[1] == "00" and found[5]):
        return None
    return Trace(found[2], found[3], bool(int(found[4], 16) & 1))


def begun(headers: Sequence[str], share: float) -> Trace:
    """The client's trace, or a new one; of the new ones a `share` is recorded."""
    given = received(headers)
    if given is not None:
        return given
    id = secrets.token_hex(16)
    return Trace(id, recorded=int(id[:13], 16) < share * 16**13)


@dataclass(slots=True)
class Span:
    """One step. Times in ns since 1970."""

    name: str
    begun: int
    kind: int = INTERNAL
    id: str = ""  # 16 hexadecimal digits, in a trace
    ended: int = 0
    failed: str = ""  # the kind of what went wrong
    notes: dict[str, Value] = field(default_factory=dict)


class Steps:
    """Of one call. `seconds` hears of each step that ends: its name and how long it took."""

    def __init__(self, seconds: Callable[[str, float], None], trace: Trace | None = None) -> None:
        """`trace` None: steps are timed, and no trace is known or passed on."""
        self._seconds, self._clock, self._start = seconds, time.perf_counter_ns(), time.time_ns()
        self.trace = trace
        self.root = Span("request", self._start, SERVER, self._named())
        self.spans: list[Span] = []
        self.asked = False  # whether a model was
        self.told = False  # whether the guard said something before that

    def now(self) -> int:
        """ns since 1970, by a clock that nobody sets meanwhile."""
        return self._start + time.perf_counter_ns() - self._clock

    def _named(self) -> str:
        return secrets.token_hex(8) if self.trace is not None else ""

    def begin(self, name: str, kind: int = INTERNAL, **notes: Value) -> Span:
        span = Span(name, self.now(), kind, self._named(), notes=notes)
        if len(self.spans) < MOST:
            self.spans.append(span)
        else:
            self.root.notes["tsuzuri.spans_left_out"] = int(self.root.notes.get("tsuzuri.spans_left_out", 0)) + 1
        return span

    def end(self, span: Span, failed: str = "") -> None:
        """Only the first end counts."""
        if not span.ended:
            span.ended, span.failed = self.now(), failed
            self._seconds(span.name, (span.ended - span.begun) / 1e9)

    @contextmanager
    def __call__(self, name: str) -> Iterator[Span]:
        span = self.begin(name)
        try:
            yield span
        except Exception as error:
            self.end(span, type(error).__name__)
            raise
        finally:
            self.end(span)

    def close(self) -> None:
        """What was not ended by itself ends with the call."""
        for span in self.spans:
            self.end(span, "unfinished")
        self.root.ended = self.now()

    def along(self, span: Span) -> str | None:
        """The `traceparent` for whoever works for that step."""
        if self.trace is None:
            return None
        return f"00-{self.trace.id}-{span.id}-{'01' if self.trace.recorded else '00'}"

    def timed(self, chat: Chat, model: str) -> Chat:
        """To be put behind the guard: what passes until it is asked is the step `guard`, what it does the step `model`."""
        looking = self.begin("guard")

        async def asked(messages: Sequence[Message], options: Options) -> AsyncIterator[Event]:
            self.end(looking)
            self.asked = True
            span = self.begin("model", CLIENT, **{"gen_ai.operation.name": "chat", "gen_ai.request.model": model})
            events = chat(messages, replace(options, trace=self.along(span)))
            try:
                async with closing(events):
                    async for event in events:
                        self._heard(span, event)
                        yield event
            except Exception as error:
                self.end(span, type(error).__name__)
                raise
            finally:
                self.end(span)

        return asked

    def passing(self, event: Event) -> None:
        """Whatever goes out: what the guard tells of a request comes before a model is asked."""
        self.told = self.told or (isinstance(event, Notice) and not self.asked)

    def _heard(self, span: Span, event: Event) -> None:
        match event:
            case Usage():
                span.notes |= {"gen_ai.usage.input_tokens": event.prompt_tokens, "gen_ai.usage.output_tokens": event.completion_tokens}
            case Done():
                span.notes["gen_ai.response.finish_reasons"] = event.finish
            case Notice():
                pass
            case _:
                span.notes.setdefault("tsuzuri.first_event_ms", (self.now() - span.begun) // 1_000_000)
