"""Sandwich block: x + after(f(before(x))) for each sub-layer, a norm on either side (Ding et al. 2021, CogView, section 2.4; Gemma 2)."""

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
        self.mixer_norm, self.mixer, self.mixer_after = norm(shape), mixer(shape, layer), norm(shape)
        if shape.cross_attention:
            self.cross_norm, self.cross, self.cross_after = norm(shape), Cross(shape, layer), norm(shape)
        if shape.feedforward:
            self.feedforward_norm, self.feedforward, self.feedforward_after = norm(shape), feedforward(shape, layer), norm(shape)

    def forward(self, x: Tensor, place: Place, past: Past) -> Tensor:
        """(..., D) -> (..., D)"""
        x = x + self.mixer_after(self.mixer(self.mixer_norm(x), place, past))
        if hasattr(self, "cross"):
            x = x + self.cross_after(self.cross(self.cross_norm(x), past))
        if hasattr(self, "feedforward"):
            x = x + self.feedforward_after(self.feedforward(self.feedforward_norm(x)))
        return x
