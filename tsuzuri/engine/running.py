"""What computes a step of many sequences: the model's own code behind `Paged`, or a compiled model in one call of its own.

In: the parts of a step, their ids, and of which tokens the logits are wanted. Out: those logits; and what a page holds, to be put
into another page or kept. Both give each sequence what it would get alone. They know no request and no schedule.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from tsuzuri.engine.engine import Decoder, LocalEngine
from tsuzuri.engine.graphs import Graphs
from tsuzuri.engine.paged import Paged, Part
from tsuzuri.errors import ConfigError, Words
from tsuzuri.types import Past

SIZE = 32  # tokens of a page
BUDGET = 128  # tokens of a step
BUDGET_CUDA = 4096  # there a step of few takes as long as one of many
Contents: TypeAlias = Mapping[str, Tensor]  # of one page: keys and values of every layer, by name


@runtime_checkable
class Stepping(Protocol):
    """A model that computes a step of many sequences itself, in pages of its own."""

    page: int  # tokens
    most: int  # tokens of a step

    def take_pages(self, count: int) -> list[int]: ...
    def free_pages(self, pages: Sequence[int]) -> None: ...
    def page_contents(self, page: int) -> Contents: ...
    def fill_page(self, page: int, contents: Contents) -> None: ...
    def step(
        self, ids: Sequence[int], positions: Sequence[int], sequences: Sequence[int], pages: Tensor, chosen: Sequence[int]
    ) -> Tensor: ...


class Runner(Protocol):
    size: int  # tokens of a page
    most: int  # tokens of a step

    @property
    def recurs(self) -> bool: ...  # some layer keeps a state: then a sequence cannot begin with pages of another
    def __call__(self, parts: Sequence[Part], ids: Sequence[int], chosen: Sequence[int]) -> Tensor: ...  # -> logits (chosen, V)
    def contents(self, page: int) -> Contents: ...
    def fill(self, page: int, contents: Contents) -> None: ...


def page_size(one: LocalEngine, size: int = SIZE) -> int:
    """Tokens of a page that holds what the engine's model computes."""
    return one.model.page if isinstance(one.model, Stepping) else size


def runner(one: LocalEngine, pages: int, size: int = SIZE, budget: int = BUDGET, *, compiled: bool = False) -> Runner:
    """Of the engine's model, with room for `pages`. A compiled model has its own size of a page and most tokens of a step. On CUDA
    steps of new tokens are recorded; `compiled`: by torch.compile first. Raises ConfigError for `compiled` elsewhere."""
    recorded = torch.device(one.device).type == "cuda"
    if compiled and not recorded:
        raise ConfigError(
            Words("一歩ごとの計算をコンパイルするよう指定されました。", "Steps were to be compiled."),
            found=Words(
                f"計算は {one.device} で行います。コンパイルするのは CUDA だけです。",
                f"It computes on {one.device}; only those on CUDA are.",
            ),
            todo=Words("compiled を外してください。", "Leave compiled out."),
        )
    if isinstance(one.model, Stepping):
        return _Compiled(one.model, pages, budget)
    return Plain(one, pages, size, budget, recorded=recorded, compiled=compiled)


class Plain:
    """The model's own code, behind `Paged`; `recorded`: steps of new tokens alone in fixed shapes (`graphs.py`)."""

    def __init__(self, one: LocalEngine, pages: int, size: int, budget: int, *, recorded: bool = False, compiled: bool = False) -> None:
        self._model, self._past = one.model, Paged(pages + recorded, size, one.device)
        self._graphs = Graphs(self._new, self._past, pages, compiled=compiled) if recorded else None
        self.size, self.most = size, budget

    @property
    def recurs(self) -> bool:
        return self._past.recurs

    def __call__(self, parts: Sequence[Part], ids: Sequence[int], chosen: Sequence[int]) -> Tensor:
        if self._graphs is not None and self._graphs.takes(parts):
            return self._graphs(parts, ids)[chosen]
        self._past.begin(parts)
        tokens = torch.tensor(ids, dtype=torch.long, device=self._past.device)
        if isinstance(self._model, Decoder):
            return self._model.logits(self._model.hidden(tokens, self._past)[chosen])
        return self._model(tokens, self._past)[chosen]

    def _new(self, tokens: Tensor, past: Past) -> Tensor:
        return self._model.logits(self._model.hidden(tokens, past)) if isinstance(self._model, Decoder) else self._model(tokens, past)

    def contents(self, page: int) -> Contents:
        return self._past.contents(page)

    def fill(self, page: int, contents: Contents) -> None:
        self._past.fill(page, contents)


class _Compiled:
    """Its pages go back when nobody holds this any more."""

    recurs = False

    def __init__(self, model: Stepping, pages: int, budget: int) -> None:
        self._model, self._own = model, model.take_pages(pages)
        self.size, self.most = model.page, min(budget, model.most)
        weakref.finalize(self, model.free_pages, self._own)

    def __call__(self, parts: Sequence[Part], ids: Sequence[int], chosen: Sequence[int]) -> Tensor:
        positions = [place for part in parts for place in range(part.start, part.start + part.count)]
        sequences = [number for number, part in enumerate(parts) for _ in range(part.count)]
        table = torch.zeros(len(parts), max(len(part.place.pages) for part in parts), dtype=torch.int32)
        for row, part in zip(table, parts, strict=True):
            row[: len(part.place.pages)] = torch.tensor([self._own[page] for page in part.place.pages], dtype=torch.int32)
        return self._model.step(ids, positions, sequences, table, chosen)

    def contents(self, page: int) -> Contents:
        return self._model.page_contents(self._own[page])

    def fill(self, page: int, contents: Contents) -> None:
        self._model.fill_page(self._own[page], contents)
