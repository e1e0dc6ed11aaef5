"""ALiBi (Press et al. 2022, section 3): no position in the embeddings; scores fall by slope × distance, a slope per head."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tsuzuri.model.parts._place import Place
from tsuzuri.types import Past

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "position"


class Part(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.num_attention_heads

    def forward(self, past: Past) -> Place:
        return Place(bias=self.bias)

    def bias(self, queries: Tensor, keys: Tensor) -> Tensor:
        """positions (..., Q) and (..., S) -> −slope × distance (..., H, Q, S)"""
        distance = (queries[..., :, None] - keys[..., None, :]).abs().unsqueeze(-3)  # (..., 1, Q, S)
        return -slopes(self.heads, keys.device).float()[:, None, None] * distance


def slopes(heads: int, device: torch.device) -> Tensor:
    """(H,) float64: 2^(−8/H), 2^(−16/H), …; where H is no power of two, every other slope of twice the power below fills the rest.
    Computed where it is used: nothing is copied there, which a CUDA graph would not record."""
    power = 2 ** math.floor(math.log2(heads))
    head = torch.arange(heads, device=device, dtype=torch.float64)
    exponents = torch.where(head < power, 8 * (head + 1) / power, 4 * (2 * (head - power) + 1) / power)
    return exponents.neg().exp2()
