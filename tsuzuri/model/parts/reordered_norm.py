"""Reordered norm: x + norm(f(x)) for each sub-layer (Liu et al. 2022, Swin v2, section 3.2; OLMo 2, section 3.3).

The norm stands inside the residual branch: unlike in `post_norm`, what is carried from block to block is never divided.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from tsuzuri.model.parts._build import feedforward, mixer, norm
from tsuzuri.model.parts._place import Place
from tsuzuri.model.parts.attention import Cross
from tsuzuri.types import Past

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "block"
LAST_NORM = True  # what is added is normalised, their sum is not


class Part(nn.Module):
    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        self.mixer, self.mixer_norm = mixer(shape, layer), norm(shape)
        if shape.cross_attention:
            self.cross, self.cross_norm = Cross(shape, layer), norm(shape)
        if shape.feedforward:
            self.feedforward, self.feedforward_norm = feedforward(shape, layer), norm(shape)

    def forward(self, x: Tensor, place: Place, past: Past) -> Tensor:
        """(..., D) -> (..., D)"""
        x = x + self.mixer_norm(self.mixer(x, place, past))
        if hasattr(self, "cross"):
            x = x + self.cross_norm(self.cross(x, past))
        if hasattr(self, "feedforward"):
            x = x + self.feedforward_norm(self.feedforward(x))
        return x
