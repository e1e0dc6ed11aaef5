"""Parallel block with one norm for both sub-layers: x + f(n) + g(n), n = norm(x) (Chowdhery et al. 2022, section 2; GPT-J, Falcon 7B)."""

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
LAST_NORM = True


class Part(nn.Module):
    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        self.norm, self.mixer = norm(shape), mixer(shape, layer)
        if shape.cross_attention:
            self.cross = Cross(shape, layer)
        if shape.feedforward:
            self.feedforward = feedforward(shape, layer)

    def forward(self, x: Tensor, place: Place, past: Past) -> Tensor:
        """(..., D) -> (..., D)"""
        normed = self.norm(x)
        out: Tensor = x + self.mixer(normed, place, past)
        if hasattr(self, "cross"):
            out = out + self.cross(normed, past)
        if hasattr(self, "feedforward"):
            out = out + self.feedforward(normed)
        return out
