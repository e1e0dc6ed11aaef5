"""Which models there are, by the names that clients use.

In: directories of models, addresses of other servers, any `Chat`. Out: a `Pool` of `Served`: a Chat, and what else can be asked of
it where the model is ours (its tokens, texts to continue, vectors). One that only reads has no Chat. torch is imported by `local.py`
and `reading.py` alone, and only for a directory.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from tsuzuri.errors import ConfigError, ContextError, Words
from tsuzuri.serve.refusal import Refusal
from tsuzuri.serve.routing import Route
from tsuzuri.types import Chat, Event, Message, Options

NAME = re.compile(r"[A-Za-z0-9._/:@+-]{1,256}")


@dataclass(frozen=True, slots=True)
class Embedded:
    """A vector of length 1, how many tokens were read for it, and what is to be told of it."""

    vector: Sequence[float]
    tokens: int
    told: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A text as a model reads it for its vector. `ready`: the vector, where it cost nothing to find."""

    ids: Sequence[int]
    tokens: int
    ready: Embedded | None = None


class Reader(Protocol):
    """A model of our own that texts can be given to read. Nothing here holds up the event loop."""

    @property
    def context_length(self) -> int | None: ...  # None: as long as one likes
    async def decode(self, ids: Sequence[int]) -> str: ...
    async def prepare(self, prompt: str | Sequence[int]) -> Prepared: ...  # ContextError, InputError: what is wrong with it
    def embed(self, prompts: Sequence[Prepared]) -> AsyncIterator[tuple[int, Embedded]]: ...  # each with its place, as they are ready
    def close(self) -> None: ...


class Tokens(Protocol):
    """What only a model of our own can be asked. Nothing here holds up the event loop."""

    context_length: int

    def spell(self, id: int) -> bytes: ...  # the bytes of a token
    async def fits(self, said: str | Sequence[Message]) -> None: ...  # ContextError, soon, for what is too long however it is cut
    async def encode(self, text: str) -> list[int]: ...
    async def decode(self, ids: Sequence[int]) -> str: ...
    async def conversation(self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] = ()) -> list[int]: ...  # as it is read
    async def length(self, said: str | Sequence[Message], tools: Sequence[Mapping[str, object]] = ()) -> int: ...  # of the two, in tokens
    async def source(self, prompt: str) -> list[int]: ...  # what it reads before it continues a text
    def chat(self, tenant: str) -> Chat: ...  # what was computed for one tenant is never found by another
    def complete(self, prompt: str | Sequence[int], options: Options, tenant: str) -> AsyncIterator[Event]: ...
    async def prepare(self, prompt: str | Sequence[int]) -> Prepared: ...
    def embed(self, prompts: Sequence[Prepared]) -> AsyncIterator[tuple[int, Embedded]]: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Served:
    """One model. `tools`: whether its Chat can call tools. `aliases`: patterns of other names that mean it ("claude-*")."""

    name: str
    chat: Chat | None  # for whom no tenant is known; None: it only reads
    tokens: Tokens | None = None
    reader: Reader | None = None  # of one that only reads
    tools: bool = False
    forms: bool = False  # whether it holds its answer to a form, where its tokens are not ours
    aliases: tuple[str, ...] = ()
    priced: str = ""  # its name in a table of prices for all: the provider's and the model's there
    route: Route | None = None  # a name for several models, of which rules choose one
    created: int = field(default_factory=lambda: int(time.time()))

    def chat_of(self, tenant: str) -> Chat:
        """Raises Refusal for a model that only reads."""
        if self.tokens is not None:
            return self.tokens.chat(tenant)
        if self.chat is None:
            words = Words(
                f"モデル {self.name} は文章を読んでベクトルにするだけで、答えは書けません。",
                f"The model {self.name} only reads texts, for vectors; it cannot answer.",
            )
            raise Refusal(400, words, param="model", code="unsupported_model")
        return self.chat

    def reads(self, what: Words) -> Reader:
        """Raises Refusal for a model that is elsewhere, of which `what` cannot be asked."""
        return self.reader if self.reader is not None else self.ours(what)

    @property
    def mine(self) -> Reader | None:
        """What computes it, where that is this process."""
        return self.reader if self.reader is not None else self.tokens

    @property
    def length(self) -> int | None:
        """How many tokens it reads, where that is known."""
        return self.mine.context_length if self.mine is not None else None

    def ours(self, what: Words) -> Tokens:
        """Raises Refusal for a model that is elsewhere or only reads, of which `what` cannot be asked."""
        if self.tokens is None:
            found = Words(f"モデル {self.name} には{what.ja}を頼めません。", f"The model {self.name} cannot be asked for {what.en}.")
            raise Refusal(400, found, param="model", code="unsupported_model")
        return self.tokens


class Pool:
    """The models of a server."""

    def __init__(self, models: Sequence[Served]) -> None:
        """Raises ConfigError for a name that is taken twice or cannot be one."""
        for model in models:
            if not NAME.fullmatch(model.name):
                raise _wrong(model.name, Words("英数字と ._/:@+- だけが使えます。", "It may have letters, digits and ._/:@+- only."))
        self._models: Mapping[str, Served] = {model.name: model for model in models}
        if len(self._models) < len(models):
            names = [model.name for model in models]
            twice = next(name for name in names if names.count(name) > 1)
            raise _wrong(twice, Words("同じ名前のモデルが二つあります。", "There are two models of that name."))
        for model in models:
            for candidate in model.route.models if model.route else ():
                there = self._models.get(candidate.model)
                if there is None or there.route is not None:
                    known = [one.name for one in models if one.route is None]
                    found = Words(
                        f"経路のモデル「{candidate.model}」がありません。あるのは {'、'.join(known)} です。",
                        f"It routes to '{candidate.model}', which is not there. There is {', '.join(known)}.",
                    )
                    raise _wrong(model.name, found)

    def all(self) -> list[Served]:
        return list(self._models.values())

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Within it, connections to models elsewhere are kept from one request to the next; at its end they are closed."""
        async with AsyncExitStack() as held:
            for model in self._models.values():
                if isinstance(model.chat, AbstractAsyncContextManager):
                    await held.enter_async_context(model.chat)
            yield

    def close(self) -> None:
        """What our own models compute ends."""
        for model in self._models.values():
            if model.mine is not None:
                model.mine.close()

    def get(self, name: str) -> Served:
        """By its name, else by an alias. Raises Refusal with 404."""
        found = self._models.get(name) or next(
            (model for model in self._models.values() if any(fnmatchcase(name, pattern) for pattern in model.aliases)), None
        )
        if found is None:
            raise unknown(name)
        return found


def too_long(texts: Sequence[str], longest: int | None, context_length: int) -> ContextError | None:
    """What is wrong with texts that have too many bytes for any way of cutting them into tokens of at most `longest`; None: they may fit."""
    if longest is None or (size := sum(len(text.encode()) for text in texts)) <= longest * context_length:
        return None
    least = -(-size // longest)
    return ContextError(
        Words(f"{least} トークン以上の文章を渡されました。", f"It was given a text of at least {least} tokens."),
        found=Words(f"扱えるのは {context_length} トークンまでです。", f"At most {context_length} can be read."),
        todo=Words("文章を短くしてください。", "Shorten the text."),
    )


def unknown(name: str) -> Refusal:
    """The same answer for a model that is not there and for one that a key may not use."""
    shown = name[:80]
    words = Words(
        f"モデル「{shown}」はありません。GET /v1/models で確かめてください。", f"There is no model '{shown}'. See GET /v1/models."
    )
    return Refusal(404, words, param="model", code="model_not_found")


def routed(name: str, route: Route) -> Served:
    """A name for several models; what they can do is asked of each."""
    return Served(name, _never, tools=True, forms=True, route=route)


async def _never(messages: Sequence[Message], options: Options) -> AsyncIterator[Event]:
    raise AssertionError("a route answers by one of its models")
    yield  # it is a generator


def name_of(directory: Path) -> str:
    """What a model of our own is called: as its directory, or as the run it belongs to where that is called `model`."""
    path = directory.resolve()
    return path.parent.name if path.name == "model" and path.parent.name else path.name


def from_directory(directory: Path, **how: object) -> Served:
    """A model of our own; one that only reads, too."""
    from tsuzuri.serve import reading  # noqa: PLC0415  torch loads here
    from tsuzuri.serve.local import Local  # noqa: PLC0415

    name = name_of(directory)
    reader = reading.reader(directory, **how)  # type: ignore[arg-type]
    if reader is not None:
        return Served(name, None, reader=reader)
    local = Local(directory, **how)  # type: ignore[arg-type]
    return Served(name, local.chat(""), local, tools=local.model.calls is not None)


def _wrong(name: str, found: Words) -> ConfigError:
    return ConfigError(
        Words(f"モデル「{name}」を用意しようとしました。", f"Serving the model '{name}'."),
        found=found,
        todo=Words("ディレクトリ名か --remote の名前を変えてください。", "Rename its directory, or the name in --remote."),
    )
