"""The matrices of a model in the order and the blocks in which the native library reads them.

In: the modules of a `Transformer`. Out: `Matrix` values in one stretch of memory, so that the end of one prefetches the next.
Queries, keys and values become one matrix; gate and up take turns, block by block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tsuzuri.model.adapt.quantize import Quantised
from tsuzuri.native import layout
from tsuzuri.native.layout import Format
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


class Packing:
    """Packed once; `layers`, `embedding` and `head` are what operations point to."""

    def __init__(self, model: Any, layers: Sequence[Any], library: Library) -> None:
        self._parts: list[tuple[Tensor, Format, int, int, Tensor | None]] = []
        embedding = self._add([model.embedding])
        plans = []
        for layer in layers:
            a, f = layer.mixer.part, layer.feedforward.part
            first = None if f is None else self._pair(f.gate, f.up) if hasattr(f, "gate") else self._add([f.up])
            plans.append((self._add([a.query, a.key, a.value]), self._add([a.output]), first, None if f is None else self._add([f.down])))
        tied = model.head is None or getattr(model.head, "weight", None) is None
        own_bias = None if model.head is None else getattr(model.head, "bias", None)
        head = embedding if tied and own_bias is None else self._add([model.embedding if tied else model.head], own_bias)
        self.bytes = sum(part[0].numel() for part in self._parts)
        self.read = self.bytes - (0 if head == embedding else self._parts[embedding][0].numel())  # by a token, but for its own row
        placed = self._fill(library)
        self.embedding, self.head = placed[embedding], finely(placed[head])
        self.layers = [Matrices(*(None if i is None else placed[i] for i in plan)) for plan in plans]  # type: ignore[arg-type]

    def _add(self, modules: Sequence[Any], bias: Tensor | None = None) -> int:
        rows = [rows_of(module) for module in modules]
        values = torch.cat([value for value, _ in rows])
        scales = [scale for _, scale in rows if scale is not None]
        biases = [module.bias for module in modules if getattr(module, "bias", None) is not None]
        own = torch.cat([each.detach().float() for each in biases]) if biases else None
        return self._place(values, torch.cat(scales) if scales else None, form_of(modules[0]), bias if own is None else own)

    def _pair(self, gate: Any, up: Any) -> int:
        (one, one_scale), (other, other_scale) = rows_of(gate), rows_of(up)
        scales = None if one_scale is None or other_scale is None else layout.paired(one_scale, other_scale)
        bias = None if gate.bias is None else layout.paired(gate.bias.detach().float(), up.bias.detach().float())
        return self._place(layout.paired(one, other), scales, form_of(gate), bias)

    def _place(self, values: Tensor, scales: Tensor | None, form: Format, bias: Tensor | None) -> int:
        columns = values.shape[1] * (2 if form == "q4" else 1)
        self._parts.append((layout.packed(values, scales), form, values.shape[0], columns, bias))
        return len(self._parts) - 1

    def _fill(self, library: Library) -> list[Matrix]:
        sizes = [-(-blocks.numel() // LINE) * LINE for blocks, *_ in self._parts]
        whole, start, placed = room(library, sum(sizes)), 0, []
        for (blocks, form, rows, columns, bias), size in zip(self._parts, sizes, strict=True):
            place = whole[start : start + blocks.numel()].view(blocks.shape)
            placed.append(Matrix(place.copy_(blocks), form, rows, columns, None if bias is None else bias.float().contiguous()))
            start += size
        self._parts = []
        return placed


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


def rows_of(module: Any) -> tuple[Tensor, Tensor | None]:
    """What `layout.packed` takes."""
    if isinstance(module, Quantised):
        return module.values, module.scales
    weight = module.weight.detach()
    return (weight if weight.dtype == torch.bfloat16 else weight.float()), None
