"""One model, many who ask at once: conversations and texts that share the steps of one engine.

In: a loaded model and, from any thread or event loop, prompts or messages. Out: for each the events that it would get alone, sooner
for all. Whoever stops listening ends its own work only. Texts of one `tenant` never begin with what was computed for another.
A block of `with` holds the thread that computes; which request is computed when is the business of `engine/batch.py`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tsuzuri.chat.reading import Reading
from tsuzuri.engine.batch import WAITING, BatchEngine, Told
from tsuzuri.engine.disk import Disk
from tsuzuri.engine.running import page_size
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import ConfigError, Words
from tsuzuri.types import Chat, Done, Event, Finish, Message, Options, Text

if TYPE_CHECKING:
    from tsuzuri.chat.local import LocalModel

T = TypeVar("T")
READERS = 64  # prompts that are read at once; more take turns
AROUND = 16  # characters that a template puts around a message
LONG = 1024  # characters or ids of a prompt from which on a thread of its own reads it
ROOM = 8  # contexts whose keys and values have room at once, where nothing else is said


@dataclass(frozen=True, slots=True)
class Answer:
    """One of several outputs."""

    text: str
    ids: tuple[int, ...]  # without what ended it
    logprob: float  # natural log, of all of it, the end included where it ended by itself
    finish: Finish
    score: float  # what it is ranked by: log-probability a token, or of a beam search its own


class Together:
    """A context manager. `chat` gives a `Chat`, `events` the events of a prompt; both raise BusyError where too many wait."""

    def __init__(
        self, model: LocalModel, *, tokens: int | None = None, waiting: int = WAITING, readers: int = READERS, disk: Path | None = None
    ) -> None:
        """`tokens` of keys and values for all together, by default of ROOM contexts; `disk`: where pages survive a restart."""
        size = page_size(model.engine)
        count = -(-(model.context_length * ROOM if tokens is None else tokens) // size)
        kept = None if disk is None else Disk(disk, model.fingerprint(size))
        self.model, self.engine = model, BatchEngine(model.engine, count, waiting=waiting, disk=kept)
        self._over = threading.Event()
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix=f"tsuzuri-{model.name}-reader")
        self._steps = threading.Thread(target=self.engine.run, args=(self._over,), name=f"tsuzuri-{model.name}-steps", daemon=True)

    def __enter__(self) -> Together:
        self._steps.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends what is under way: its readers are told that nothing more comes."""
        self._over.set()
        self._steps.join()
        self._readers.shutdown()

    def events(self, prompt: str | Sequence[int], options: Options, tenant: str = "") -> Generator[Event, None, None]:
        """As `LocalModel.events`."""
        no_tools(options)
        return self.model.told(self.engine.stream(self.model.ids_of(prompt), options.sampling, tenant), Reading(options))

    def chat(self, tenant: str = "") -> Chat:
        async def chat(messages: Sequence[Message], options: Options) -> AsyncIterator[Event]:
            read = LONG if options.tools else size(messages)
            reading, sampling = await self._away(lambda: self.model.reading(options), long=bool(options.tools))
            async for event in self._heard(lambda: self.model.conversation(messages, options.tools), read, reading, sampling, tenant):
                yield event

        return chat

    def texts(self, prompt: str | Sequence[int], options: Options, tenant: str = "") -> AsyncIterator[Event]:
        """`events` for an event loop."""
        no_tools(options)
        return self._heard(lambda: self.model.ids_of(prompt), len(prompt), Reading(options), options.sampling, tenant)

    async def _heard(
        self, read: Callable[[], Sequence[int]], size: int, reading: Reading, sampling: Sampling, tenant: str
    ) -> AsyncIterator[Event]:
        """`size`: how much there is to read."""
        arrived, loop = asyncio.Queue[Told](), asyncio.get_running_loop()

        def tell(found: Told) -> None:
            with suppress(RuntimeError):  # the loop has ended, and whoever waited in it
                loop.call_soon_threadsafe(arrived.put_nowait, found)

        long = size >= LONG or sampling.constraint is not None or self.model.engine.reads_source
        stream = await self._away(lambda: self.engine.stream(read(), sampling, tenant, tell), long=long)
        telling = self.model.telling(reading)
        try:
            while not telling.over:
                found = await arrived.get()
                if isinstance(found, BaseException):
                    raise found
                if found is None:
                    break
                for event in telling(found):
                    yield event
            for event in telling.rest():
                yield event
        finally:
            stream.cancel()  # whoever waits for its next token is told before the next step
        for event in telling.last(stream):
            yield event

    async def _away(self, work: Callable[[], T], *, long: bool) -> T:
        """In a thread of its own where it takes `long`; else at once, for to hand it over takes longer."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, work) if long else work()

    def answers(self, asked: Sequence[tuple[Sequence[int], Options]]) -> list[Answer]:
        """Of each, in their order. Raises what `events` raises before anything is waited for."""
        streams = [self.engine.stream(ids, options.sampling) for ids, options in asked]
        try:
            pairs = zip(streams, asked, strict=True)
            waiting = [self._readers.submit(_answer, self.model.told(stream, Reading(options))) for stream, (_, options) in pairs]
            found = [each.result() for each in waiting]
        finally:
            for stream in streams:
                stream.cancel()
        return [
            Answer(text, ids, stream.logprob, finish, stream.logprob / max(1, stream.completion_tokens))
            for (text, ids, finish), stream in zip(found, streams, strict=True)
        ]


def _answer(events: Generator[Event, None, None]) -> tuple[str, tuple[int, ...], Finish]:
    text = ""
    finish: Finish = "cancelled"
    ids: list[int] = []
    for event in events:
        if isinstance(event, Text):
            text += event.text
            ids += [token.id for token in event.tokens]
        elif isinstance(event, Done):
            finish = event.finish
    return text, tuple(ids), finish


def size(messages: Sequence[Message]) -> int:
    """Characters of what is read of them, with some for what stands around each."""
    calls = [call for message in messages for call in message.tool_calls]
    return sum(AROUND + len(message.content) for message in messages) + sum(len(call.name) + len(call.arguments) for call in calls)


def no_tools(options: Options) -> None:
    if options.tools:
        raise cannot_call()


def cannot_call() -> ConfigError:
    return ConfigError(
        Words("モデルにツールが渡されました。", "Tools were given to the model."),
        found=Words("このモデルはツールを使えません。", "This model cannot use tools."),
        todo=Words("tools を外してください。", "Leave tools out."),
    )
