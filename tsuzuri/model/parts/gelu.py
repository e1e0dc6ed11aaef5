"""GELU: down(gelu(up(x))) (Hendrycks & Gimpel 2016; the feed-forward of GPT and BERT)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "feedforward"


class Part(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.up = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=shape.mlp_bias)
        self.down = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=shape.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        out: Tensor = self.down(F.gelu(self.up(x)))
        return out
