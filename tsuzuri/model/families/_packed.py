"""One tensor of a checkpoint that holds several of ours, or one of ours turned: fused queries, keys and values, for example.

In: their tensor. Out: ours, and back. `split` and `join` are exact inverses: nothing is computed, only moved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Packed:
    theirs: str
    ours: tuple[str, ...]
    split: Callable[[Tensor], Sequence[Tensor]]  # theirs -> ours, in the order of `ours`
    join: Callable[[Sequence[Tensor]], Tensor]  # the inverse


def transposed(theirs: str, *ours: str) -> Packed:
    """GPT's `Conv1D` keeps (in, out); several of ours stand side by side in its columns, of equal width."""
    return Packed(
        theirs,
        ours,
        lambda x: [part.t() for part in x.chunk(len(ours), -1)],
        lambda parts: torch.cat([part.t() for part in parts], -1),
    )


def stacked(theirs: str, ours: Sequence[str], rows: Sequence[int]) -> Packed:
    """Several of ours below each other: (r1 + r2 + …, in), or biases (r1 + r2 + …)."""
    return Packed(theirs, tuple(ours), lambda x: torch.split(x, list(rows)), lambda parts: torch.cat(list(parts)))


def by_group(theirs: str, ours: Sequence[str], heads: Sequence[int], groups: int, size: int) -> Packed:
    """Queries, keys and values of one group of heads after another: (groups · (q + k + v) · size, …), where heads says q, k, v."""

    def split(x: Tensor) -> Sequence[Tensor]:
        grouped = torch.unflatten(x, 0, (groups, sum(heads), size))  # (G, q + k + v, E, …)
        return [part.flatten(0, 2) for part in torch.split(grouped, list(heads), 1)]

    def join(parts: Sequence[Tensor]) -> Tensor:
        grouped = [torch.unflatten(part, 0, (groups, count, size)) for part, count in zip(parts, heads, strict=True)]
        return torch.cat(grouped, 1).flatten(0, 2)

    return Packed(theirs, tuple(ours), split, join)
