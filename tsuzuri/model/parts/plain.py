"""Plain feed-forward: down(act(up(x))) (Vaswani et al. 2017, eq. 2): with relu the first one, with gelu that of GPT and BERT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from tsuzuri.model.parts._activation import ACTIVATIONS

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "feedforward"


class Part(nn.Module):
    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        self.up = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=shape.mlp_bias)
        self.down = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=shape.mlp_bias)
        self.activation = ACTIVATIONS[shape.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        out: Tensor = self.down(self.activation(self.up(x)))
        return out
