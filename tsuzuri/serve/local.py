"""A directory of a model that writes, behind the service; it loads torch and is imported only when a directory is named.

In: text, ids, messages. Out: events, ids, vectors; everything that computes runs in a thread of its own, never in the event loop.
Answers of all who ask are computed together; what was computed for one tenant is never found by another.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from tsuzuri.chat.local import LocalModel, load
from tsuzuri.chat.template import CHATML
from tsuzuri.chat.together import LONG, Together, size
from tsuzuri.engine.apart import Apart
from tsuzuri.serve.models import Embedded, Prepared, too_long
from tsuzuri.types import Chat, Event, Message, Options

T = TypeVar("T")


class Local:
    """`Tokens` of a `LocalModel`."""

    def __init__(
        self,
        directory: Path,
        *,
        dtype: str | None = None,
        quantize: str | None = None,
        threads: int | None = None,
        pages: Path | None = None,
        lookup: int = 0,
    ) -> None:
        """`pages`: a directory where what was read survives a restart. `lookup`: as of `load`."""
        self.model: LocalModel = load(directory, dtype=dtype, quantize=quantize, threads=threads, lookup=lookup)
        self.context_length = self.model.context_length
        self._apart = _tried_first(self.model)
        self.longest = (
            None if self.model.engine.reads_source else self.model.tokenizer.longest
        )  # bytes of a token, where all it reads counts
        self.plainly = self.model.template.text == CHATML  # its template leaves nothing out
        self._together = Together(self.model, disk=pages).__enter__()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="tsuzuri-serve")

    def close(self) -> None:
        """What is under way ends."""
        self._together.close()
        self._worker.shutdown()
        self._apart.close()

    def chat(self, tenant: str) -> Chat:
        return self._together.chat(tenant)

    def spell(self, id: int) -> bytes:
        """A token that no text uses is shown by its number."""
        return self.model.tokenizer.token_bytes(id) if id < self.model.tokenizer.vocab_size else f"<{id}>".encode()

    async def fits(self, said: str | Sequence[Message]) -> None:
        """Raises ContextError for what has too many bytes for any way of cutting it: to cut megabytes takes long, to count them does not.
        Of a conversation what its template makes of it counts: another's may leave something out."""
        texts = [said] if isinstance(said, str) else [message.content for message in said]
        if not isinstance(said, str) and not self.plainly and too_long(texts, self.longest, self.context_length) is not None:
            special = self.model.tokenizer.special
            segments = await self._away(lambda: self.model.template.segments(said, True, special))
            texts = [segment.text for segment in segments if not segment.special]
        error = too_long(texts, self.longest, self.context_length)
        if error is not None:
            raise error

    async def encode(self, text: str) -> list[int]:
        return await self._away(lambda: self.model.tokenizer.encode(text))

    async def decode(self, ids: Sequence[int]) -> str:
        return await self._away(lambda: self.model.tokenizer.decode(ids))

    async def conversation(self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] = ()) -> list[int]:
        if tools or size(messages) >= LONG:
            return await self._away(lambda: self.model.conversation(messages, tools))
        return self.model.conversation(messages)

    async def length(self, said: str | Sequence[Message], tools: Sequence[Mapping[str, object]] = ()) -> int:
        return len(await (self.source(said) if isinstance(said, str) else self.conversation(said, tools)))

    async def source(self, prompt: str) -> list[int]:
        return await self._away(lambda: self.model.ids_of(prompt))

    def complete(self, prompt: str | Sequence[int], options: Options, tenant: str) -> AsyncIterator[Event]:
        """Whoever stops listening ends the work within one token."""
        return self._together.texts(prompt, options, tenant)

    async def prepare(self, prompt: str | Sequence[int]) -> Prepared:
        ids = await self.encode(prompt) if isinstance(prompt, str) else list(prompt)
        self.model.engine.check(ids, room=0)
        return Prepared(ids, len(ids))

    async def embed(self, prompts: Sequence[Prepared]) -> AsyncIterator[tuple[int, Embedded]]:
        """One after the other: a model that writes reads each in blocks."""
        for place, each in enumerate(prompts):
            yield place, Embedded(await self._away(partial(self.model.engine.embed, each.ids)), each.tokens)

    async def _away(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)


def _tried_first(model: LocalModel) -> Apart:
    """Forms of an answer come from strangers here: each is tried in a process of its own before it is compiled in this one."""
    apart = Apart()
    if find_spec("llguidance") is not None:
        apart.warm()
    assert model.engine.vocabulary is not None
    model.engine.vocabulary.apart = apart
    return apart
