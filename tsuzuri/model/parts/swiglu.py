"""SwiGLU: down(silu(gate(x)) · up(x)) (Shazeer 2020, eq. 6), without biases unless the shape says so."""

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
        self.gate = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=shape.mlp_bias)
        self.up = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=shape.mlp_bias)
        self.down = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=shape.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        out: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return out
