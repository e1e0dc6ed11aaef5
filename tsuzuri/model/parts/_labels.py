"""What the heads of labels have in common: layers before the product, where the family has them, and the product."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from tsuzuri.model.parts._activation import ACTIVATIONS
from tsuzuri.model.parts._build import norm

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape


class Labels(nn.Module):
    """(..., D) -> (..., labels). With `shape.head_norm`: a layer, its activation, a norm; without: the layer where `pooled`."""

    def __init__(self, shape: Shape, *, pooled: bool) -> None:
        super().__init__()
        has_layer = shape.head_norm or pooled
        self.dense = nn.Linear(shape.hidden_size, shape.hidden_size, bias=shape.head_dense_bias) if has_layer else None
        self.activation = ACTIVATIONS[shape.head_act if shape.head_norm else "tanh"]
        self.norm = norm(shape) if shape.head_norm else nn.Identity()
        self.output = nn.Linear(shape.hidden_size, shape.num_labels)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(..., D) -> logits (..., labels); the embedding is not looked at"""
        if self.dense is not None:
            x = self.norm(self.activation(self.dense(x)))
        out: Tensor = self.output(x)
        return out
