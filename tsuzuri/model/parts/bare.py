"""Bare block: x ← f(x) for each sub-layer, no residual and no norm: layers one on top of the other, as before residual networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from tsuzuri.model.parts._build import feedforward, mixer
from tsuzuri.model.parts._place import Place
from tsuzuri.model.parts.attention import Cross
from tsuzuri.types import Past

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "block"
LAST_NORM = False


class Part(nn.Module):
    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        self.mixer = mixer(shape, layer)
        if shape.cross_attention:
            self.cross = Cross(shape, layer)
        if shape.feedforward:
            self.feedforward = feedforward(shape, layer)

    def forward(self, x: Tensor, place: Place, past: Past) -> Tensor:
        """(..., D) -> (..., D)"""
        x = self.mixer(x, place, past)
        if hasattr(self, "cross"):
            x = self.cross(x, past)
        if hasattr(self, "feedforward"):
            x = self.feedforward(x)
        return x
