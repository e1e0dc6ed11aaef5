"""What the service does to everything said: personal data masked on the way in, secrets and refused content stopped on the way out.

In: a Chat, or a text that is only read. Out: the same, guarded. What is found and how is the business of the guard room; long texts are read in
a process beside the server from `ready` to `close`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from tsuzuri.engine.sampling import Sampling
from tsuzuri.guard.finding import personal
from tsuzuri.guard.guarded import Checks, guarded, masked_messages, masked_options, size, told_masked
from tsuzuri.guard.mask import Vault, tokens
from tsuzuri.guard.reader import LONG, Reader
from tsuzuri.guard.readings import ANY, CONTENT, FINDINGS, WARM, Read
from tsuzuri.types import Chat, Done, Event, Message, Options


@dataclass(frozen=True, slots=True)
class Guard:
    """`checks` None: nothing is done, and everything passes as it is."""

    checks: Checks | None = None
    reader: Reader = field(default_factory=Reader, compare=False, repr=False)

    def chat(self, chat: Chat) -> Chat:
        return guarded(chat, self.checks, self.reader) if self.checks else chat

    async def read(self, messages: Sequence[Message], options: Options) -> tuple[Sequence[Message], Options]:
        """A conversation as a model reads it: masked. For whoever only counts it."""
        if not (self.checks and self.checks.mask):
            return messages, options
        kinds, vault = self.checks.mask, Vault()

        def masked(read: Read) -> tuple[Sequence[Message], Options]:
            return masked_messages(messages, kinds, vault, read)[0], masked_options(options, kinds, vault, read)[0]

        return await self.reader(size(messages, options), masked)

    async def text(self, text: str) -> tuple[str, list[str]]:
        """What a model reads that gives no text back: masked, and what is to be told of it."""
        if not (self.checks and self.checks.mask):
            return text, []
        kinds = self.checks.mask

        def masked(read: Read) -> tuple[str, list[str]]:
            (found,) = read(FINDINGS, [text], kinds)
            return tokens(text, found, Vault()), [str(told_masked(found))] if found else []

        return await self.reader(len(text), masked)

    async def content(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """The categories of content that are found in each text, and how sure the filter is (0 … 1); whether they are refused or not. A few at
        a time: a client that goes away ends it between them."""
        every, size = [], sum(map(len, texts))
        for some in _few(texts):
            every += await self.reader(size, partial(_content, some))
        return [{category: sure for category, sure in found.items() if sure > 0} for found in every]

    async def personal(self, texts: Sequence[str]) -> bool:
        """Whether personal data is found in them, whatever is masked."""
        return await self.reader(sum(map(len, texts)), partial(_personal, texts))

    async def ready(self) -> None:
        """Loads what the checks read (weights, names, rules), so that the first who asks does not wait for it."""
        if self.checks:
            self.reader.open()
            async for _ in self.chat(_nothing)([Message("user", WARM)], Options(Sampling(max_tokens=1))):
                pass

    def close(self) -> None:
        self.reader.close()


def _few(texts: Sequence[str]) -> Iterator[list[str]]:
    """As many together as are long."""
    some: list[str] = []
    for text in texts:
        some.append(text)
        if sum(map(len, some)) >= LONG:
            yield some
            some = []
    if some:
        yield some


def _content(texts: Sequence[str], read: Read) -> list[dict[str, float]]:
    return [*read(CONTENT, texts)]


def _personal(texts: Sequence[str], read: Read) -> bool:
    found: Iterable[bool] = read(ANY, texts, personal())
    return any(found)


async def _nothing(messages: Sequence[Message], options: Options) -> AsyncIterator[Event]:
    yield Done("stop")


NOTHING = Guard()
