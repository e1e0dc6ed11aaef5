"""The matrices of a model in the order and the blocks in which the native library reads them.

In: the modules of a `Transformer`. Out: `Matrix` values in one stretch of memory, so that the end of one prefetches the next.
Queries, keys and values become one matrix; gate and up take turns, block by block.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tsuzuri.model.adapt.quantize import Quantised
from tsuzuri.native import layout
from tsuzuri.native.layout import ROWS, Format
from tsuzuri.native.library import Library
from tsuzuri.native.program import Matrix, room

NARROW: dict[str, Format] = {"q8_0": "q8", "q4_0": "q4"}
LINE = 64  # bytes


class Matrices(NamedTuple):
    """Of one layer."""

    qkv: Matrix
    output: Matrix
    first: Matrix | None  # gate and up, or up alone
    down: Matrix | None


class _Part(NamedTuple):
    """Matrices that become one."""

    modules: Sequence[Any]
    in_turns: bool  # block by block, instead of one after the other
    bias: Tensor | None

    @property
    def form(self) -> Format:
        return form_of(self.modules[0])

    @property
    def rows(self) -> int:
        each = [size_of(module)[0] for module in self.modules]
        return sum(-(-count // ROWS) * ROWS for count in each) if self.in_turns else sum(each)

    @property
    def columns(self) -> int:
        return size_of(self.modules[0])[1]

    def joined(self, each: Sequence[Tensor | None]) -> Tensor | None:
        """One tensor a module, or none of any -> their rows together."""
        there = [rows for rows in each if rows is not None]
        if not there:
            return None
        return layout.paired(*there) if self.in_turns else torch.cat(there) if len(there) > 1 else there[0]

    def pack(self, place: Tensor) -> None:
        values, scales = (self.joined(each) for each in zip(*map(rows_of, self.modules), strict=True))
        assert values is not None
        layout.pack(place, values, scales)


class Packing:
    """Packed once; `layers`, `embedding` and `head` are what operations point to."""

    def __init__(self, model: Any, layers: Sequence[Any], library: Library) -> None:
        self._parts: list[_Part] = []
        embedding = self._add([model.embedding])
        plans = []
        for layer in layers:
            a, f = layer.mixer.part, layer.feedforward.part
            first = None if f is None else self._add([f.gate, f.up], in_turns=True) if hasattr(f, "gate") else self._add([f.up])
            plans.append((self._add([a.query, a.key, a.value]), self._add([a.output]), first, None if f is None else self._add([f.down])))
        tied = model.head is None or getattr(model.head, "weight", None) is None
        own_bias = None if model.head is None else getattr(model.head, "bias", None)
        head = embedding if tied and own_bias is None else self._add([model.embedding if tied else model.head], own_bias)
        sizes = [-(-part.rows // ROWS) * layout.block_bytes(part.form, part.columns) for part in self._parts]
        self.bytes = sum(sizes)
        self.read = self.bytes - (0 if head == embedding else sizes[embedding])  # by a token, but for its own row
        placed = self._placed(library, sizes)
        self.embedding, self.head = placed[embedding], finely(placed[head])
        self.layers = [Matrices(*(None if i is None else placed[i] for i in plan)) for plan in plans]  # type: ignore[arg-type]

    def _add(self, modules: Sequence[Any], bias: Tensor | None = None, *, in_turns: bool = False) -> int:
        part = _Part(modules, in_turns, None)
        own = part.joined([None if getattr(module, "bias", None) is None else module.bias.detach().float() for module in modules])
        self._parts.append(part._replace(bias=bias if own is None else own))
        return len(self._parts) - 1

    def _placed(self, library: Library, sizes: Sequence[int]) -> list[Matrix]:
        """One part after the other into its place: no copy of the whole is made on the way."""
        starts = [0, *itertools.accumulate(-(-size // LINE) * LINE for size in sizes)]
        whole, found = room(library, starts[-1]), []
        for part, start, size in zip(self._parts, starts, sizes, strict=False):
            place = whole[start : start + size].view(-(-part.rows // ROWS), -1)
            part.pack(place)
            bias = None if part.bias is None else part.bias.detach().float().contiguous()
            found.append(Matrix(place, part.form, part.rows, part.columns, bias))
        self._parts = []
        return found


def finely(matrix: Matrix) -> Matrix:
    """The head in 8 bits with activations in 16. Its rounding falls on the choice itself, with no layer behind it to level it out; and it
    is computed for the tokens alone whose logits are wanted."""
    return replace(matrix, form="q8_16") if matrix.form == "q8" else matrix


def plain_matrix(module: nn.Module) -> bool:
    """Whether a Linear or Embedding is nothing more than its matrix (and not, say, adapted by something beside it)."""
    kinds = [kind for kind in type(module).__mro__ if kind in (nn.Linear, nn.Embedding)]
    if isinstance(module, Quantised):
        return module.form in NARROW
    return type(module) in kinds


def form_of(module: nn.Module) -> Format:
    if isinstance(module, Quantised):
        return NARROW[module.form]
    return "bf16" if module.weight.dtype == torch.bfloat16 else "f32"


def size_of(module: Any) -> tuple[int, int]:
    """Rows and columns of its matrix."""
    if not isinstance(module, Quantised):
        return module.weight.shape[0], module.weight.shape[1]
    return module.values.shape[0], module.values.shape[1] * (2 if NARROW[module.form] == "q4" else 1)


def rows_of(module: Any) -> tuple[Tensor, Tensor | None]:
    """What `layout.pack` takes."""
    if isinstance(module, Quantised):
        return module.values, module.scales
    weight = module.weight.detach()
    return (weight if weight.dtype == torch.bfloat16 else weight.float()), None
