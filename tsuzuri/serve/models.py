"""Which models there are, by the names that clients use.

In: directories of models, addresses of other servers, any `Chat`. Out: a `Pool` of `Served`: a Chat, and what else can be asked of
it where the model is ours (its tokens, texts to continue, vectors). torch is imported by `local.py` alone, and only for a directory.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from tsuzuri.errors import ConfigError, Words
from tsuzuri.serve.refusal import Refusal
from tsuzuri.types import Chat, Event, Message, Options

NAME = re.compile(r"[A-Za-z0-9._/:@+-]{1,256}")


class Tokens(Protocol):
    """What only a model of our own can be asked. Nothing here holds up the event loop."""

    context_length: int

    def spell(self, id: int) -> bytes: ...  # the bytes of a token
    async def fits(self, said: str | Sequence[Message]) -> None: ...  # ContextError, soon, for what is too long however it is cut
    async def encode(self, text: str) -> list[int]: ...
    async def decode(self, ids: Sequence[int]) -> str: ...
    async def conversation(self, messages: Sequence[Message]) -> list[int]: ...  # what the model reads before it answers
    def chat(self, tenant: str) -> Chat: ...  # what was computed for one tenant is never found by another
    def complete(self, prompt: str | Sequence[int], options: Options, tenant: str) -> AsyncIterator[Event]: ...
    def close(self) -> None: ...
    async def embed(self, prompt: str | Sequence[int]) -> tuple[list[float], int]: ...  # a vector of length 1, tokens read


@dataclass(frozen=True, slots=True)
class Served:
    """One model. `tools`: whether its Chat can call tools. `aliases`: patterns of other names that mean it ("claude-*")."""

    name: str
    chat: Chat  # for whom no tenant is known
    tokens: Tokens | None = None
    tools: bool = False
    forms: bool = False  # whether it holds its answer to a form, where its tokens are not ours
    aliases: tuple[str, ...] = ()
    created: int = field(default_factory=lambda: int(time.time()))

    def chat_of(self, tenant: str) -> Chat:
        return self.tokens.chat(tenant) if self.tokens else self.chat

    def ours(self, what: Words) -> Tokens:
        """Raises Refusal for a model that is elsewhere, of which `what` cannot be asked."""
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

    def all(self) -> list[Served]:
        return list(self._models.values())

    def close(self) -> None:
        """What our own models compute ends."""
        for model in self._models.values():
            if model.tokens is not None:
                model.tokens.close()

    def get(self, name: str) -> Served:
        """By its name, else by an alias. Raises Refusal with 404."""
        found = self._models.get(name) or next(
            (model for model in self._models.values() if any(fnmatchcase(name, pattern) for pattern in model.aliases)), None
        )
        if found is None:
            raise unknown(name)
        return found


def unknown(name: str) -> Refusal:
    """The same answer for a model that is not there and for one that a key may not use."""
    shown = name[:80]
    words = Words(
        f"モデル「{shown}」はありません。GET /v1/models で確かめてください。", f"There is no model '{shown}'. See GET /v1/models."
    )
    return Refusal(404, words, param="model", code="model_not_found")


def from_directory(directory: Path, **how: object) -> Served:
    """A model of our own, named as its directory, or as the run it belongs to where that is called `model`."""
    from tsuzuri.serve.local import Local  # noqa: PLC0415  torch loads here

    local = Local(directory, **how)  # type: ignore[arg-type]
    path = directory.resolve()
    return Served(path.parent.name if path.name == "model" and path.parent.name else path.name, local.chat(""), local)


def _wrong(name: str, found: Words) -> ConfigError:
    return ConfigError(
        Words(f"モデル「{name}」を用意しようとしました。", f"Serving the model '{name}'."),
        found=found,
        todo=Words("ディレクトリ名か --remote の名前を変えてください。", "Rename its directory, or the name in --remote."),
    )
