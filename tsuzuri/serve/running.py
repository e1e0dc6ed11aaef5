"""Driving an answer: several choices side by side, its tokens counted as they pass, and an end as soon as nobody listens.

In: event streams of Chats. Out: events with the index of their choice. The law: when a client is gone, or the server stops, every
stream below is closed at once, and what had been used by then is still known. It knows no format.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.types import Receive

from tsuzuri.serve.energy import Drawn
from tsuzuri.types import Done, Event, Text, Thought, ToolCall, Usage

T = TypeVar("T")
SWITCH = 5e-4  # seconds until a thread that reads a long text lets another one in; Python's 5 ms are felt by everybody
AHEAD = 16  # events that a choice may be ahead of whoever reads them


@dataclass(slots=True)
class Meter:
    """What one request used: exact where the model has said so, counted as it passed where the answer was cut off."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    drawn: Drawn | None = None  # by a model of our own, where that is known
    guesses: tuple[int, int] = (0, 0)  # offered, and of those right, where the model guesses ahead
    first: float | None = None  # when the first event came, on the clock of the event loop
    _open: dict[int, int] = field(default_factory=dict)  # tokens of the choices that have not told their usage
    _prompts: dict[int, int] = field(default_factory=dict)  # their prompts, where it is known
    _again: set[int] = field(default_factory=set)

    def begin(self, index: int, prompt_tokens: int, again: bool = False) -> None:
        """A choice that starts, and how much it reads (0: not known). `again`: a prompt that another choice reads, too, counts once."""
        self._open[index], self._prompts[index] = 0, 0 if again else prompt_tokens
        if again:
            self._again.add(index)

    def pass_by(self, index: int, event: Event) -> None:
        self.first = self.first if self.first is not None else asyncio.get_running_loop().time()
        if isinstance(event, Text | Thought | ToolCall) and index in self._open:
            tokens = event.tokens if isinstance(event, Text) else ()
            self._open[index] += len(tokens) or 1  # elsewhere's tokens are not told: a piece is one at least
        elif isinstance(event, Usage) and index in self._open:
            del self._open[index]
            self.completion_tokens += event.completion_tokens
            if index not in self._again:
                self.prompt_tokens += event.prompt_tokens
                self.cached_tokens += event.cached_tokens
        elif isinstance(event, Done) and isinstance(guessed := event.detail.get("lookup"), Mapping):
            offered, accepted = self.guesses
            self.guesses = offered + guessed["offered"], accepted + guessed["accepted"]

    def draw(self, more: Drawn | None) -> None:
        """Adds what one model drew."""
        if more is not None:
            self.drawn = Drawn(more.millijoules + (self.drawn.millijoules if self.drawn else 0), more.how)

    def so_far(self) -> tuple[int, int, int]:
        """Tokens read, given, and of those read the known ones: of a choice that has not told, all may be."""
        reading = sum(self._prompts[index] for index in self._open)
        return self.prompt_tokens + reading, self.completion_tokens + sum(self._open.values()), self.cached_tokens + reading

    def close(self) -> None:
        """The choices that were cut off: what was read, and the tokens that passed."""
        for index, tokens in self._open.items():
            self.prompt_tokens += self._prompts[index]
            self.completion_tokens += tokens
        self._open.clear()


async def side_by_side(streams: Sequence[AsyncIterator[Event]], meter: Meter) -> AsyncIterator[tuple[int, Event]]:
    """Events of all streams as they come, each with its index. Closing it closes all of them."""
    if len(streams) == 1:
        async with closing(streams[0]):
            async for event in streams[0]:
                meter.pass_by(0, event)
                yield 0, event
        return
    queue: asyncio.Queue[tuple[int, Event | BaseException | None]] = asyncio.Queue(AHEAD)
    tasks = [asyncio.create_task(_into(queue, index, stream)) for index, stream in enumerate(streams)]
    left = len(streams)
    try:
        while left:
            index, found = await queue.get()
            if isinstance(found, BaseException):
                raise found
            if found is None:
                left -= 1
                continue
            meter.pass_by(index, found)
            yield index, found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _into(queue: asyncio.Queue[tuple[int, Event | BaseException | None]], index: int, stream: AsyncIterator[Event]) -> None:
    try:
        async with closing(stream):
            async for event in stream:
                await queue.put((index, event))
    except Exception as error:
        await queue.put((index, error))
    else:
        await queue.put((index, None))


@asynccontextmanager
async def closing(stream: AsyncIterator[Any]) -> AsyncIterator[None]:
    """A stream need not be a generator; one that is gets closed at the end of the block."""
    try:
        yield
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()


async def collected(events: AsyncIterator[tuple[int, Event]], count: int) -> list[list[Event]]:
    """The events of each choice."""
    found: list[list[Event]] = [[] for _ in range(count)]
    async for index, event in events:
        found[index].append(event)
    return found


class Gone(Exception):
    """The client no longer listens."""


class Stopping(Exception):
    """The server is going down and waits no longer."""


class Late(Exception):
    """The answer took as long as one may."""


async def while_wanted(work: Awaitable[T], receive: Receive, stopping: asyncio.Event, seconds: float) -> T:
    """The result of `work`, which is cancelled as soon as the client is gone, the server stops, or it took `seconds`: Gone, Stopping,
    Late. The body of the request must have been read before."""
    task = asyncio.ensure_future(work)
    gone, stop = asyncio.create_task(_gone(receive)), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({task, gone, stop}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise Gone
        raise Stopping if stop.done() else Late
    finally:
        for each in (task, gone, stop):
            each.cancel()
        await asyncio.gather(task, gone, stop, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
