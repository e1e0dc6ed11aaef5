"""ReLU²: down(relu(up(x))²) (So et al. 2021, Primer): as good as SwiGLU with two matrices instead of three."""

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
        out: Tensor = self.down(F.relu(self.up(x)).square())
        return out
