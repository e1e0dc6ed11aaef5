"""Relative positions in buckets (Raffel et al. 2020, T5, section 2.1): a learned number for each head and each bucket of distances.

Half of the buckets hold one distance each, the others grow with the logarithm up to `relative_distance`, and the last takes all
beyond. An encoder has buckets of its own for what stands after a token. One table serves all layers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tsuzuri.model.parts._place import Place
from tsuzuri.model.parts._table import table
from tsuzuri.types import Past

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "position"


class Part(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.both_ways, self.buckets, self.distance = not shape.causal, shape.relative_buckets, shape.relative_distance
        self.table = table(shape.relative_buckets, shape.num_attention_heads)

    def reset(self, generator: torch.Generator) -> None:
        """Heads begin near-sighted, each a quarter as much as the one before, as ALiBi has it (Press et al. 2022). Equal numbers would
        be no positions at all, and take a thousand steps to grow apart."""
        sides, heads = 2 if self.both_ways else 1, self.table.weight.shape[1]
        far = torch.arange(self.buckets // sides, dtype=torch.float32).repeat(sides)  # (buckets,)
        self.table.weight.sub_(far[:, None] * 0.25 ** torch.arange(heads, dtype=torch.float32))

    def forward(self, past: Past) -> Place:
        return Place(bias=self.bias)

    def bias(self, queries: Tensor, keys: Tensor) -> Tensor:
        """positions (..., Q) and (..., S) -> (..., H, Q, S)"""
        ahead = keys[..., None, :] - queries[..., :, None]  # (..., Q, S)
        found: Tensor = self.table(bucket(ahead, self.buckets, self.distance, both_ways=self.both_ways)).movedim(-1, -3)
        return found


def bucket(ahead: Tensor, buckets: int, distance: int, *, both_ways: bool) -> Tensor:
    """How far ahead a key stands, int64 (...) -> its bucket (...). Not both ways: all that is ahead is as near as the token itself."""
    first = torch.zeros_like(ahead)
    if both_ways:
        buckets //= 2
        first, ahead = (ahead > 0) * buckets, ahead.abs()
    else:
        ahead = (-ahead).clamp_min(0)
    exact = buckets // 2
    far = torch.log(ahead.clamp_min(1).float() / exact) / math.log(distance / exact) * (buckets - exact)
    return first + torch.where(ahead < exact, ahead, (exact + far.long()).clamp_max(buckets - 1))
