"""ALiBi as Falcon-RW was trained with it: (q·k + slope × position of the key) × scale, slope and product in bfloat16.

Counted from the start of the text it would be the same as by distance (softmax knows only differences), but bfloat16 keeps
8 bits: the positions 300 and 301 are the same there. The weights have learned that rounding, so it is computed here
whatever the precision of the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tsuzuri.model.parts._place import Place
from tsuzuri.model.parts.alibi import slopes
from tsuzuri.types import Past

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "position"


class Part(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.num_attention_heads
        self.scale = shape.attention_scale or shape.head_size**-0.5

    def forward(self, past: Past) -> Place:
        return Place(bias=self.bias)

    def bias(self, queries: Tensor, keys: Tensor) -> Tensor:
        """positions (..., Q) and (..., S) -> (..., H, Q, S); queries say only how many there are"""
        slope = slopes(self.heads, keys.device).to(torch.bfloat16)
        rounded = slope[:, None] * keys[..., None, :]  # (..., H, S) bfloat16
        scaled = (rounded.float() * self.scale).unsqueeze(-2)  # (..., H, 1, S)
        return scaled.expand(*scaled.shape[:-2], queries.shape[-1], -1)
