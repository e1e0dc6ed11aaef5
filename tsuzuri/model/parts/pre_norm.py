"""Pre-norm block: x + f(norm(x)) for each sub-layer (Radford et al. 2019): the residual stream itself is never normalised."""

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
LAST_NORM = True  # the residual stream is normalised once, after the last block


class Part(nn.Module):
    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        self.mixer_norm, self.mixer = norm(shape), mixer(shape, layer)
        if shape.cross_attention:
            self.cross_norm, self.cross = norm(shape), Cross(shape, layer)
        if shape.feedforward:
            self.feedforward_norm, self.feedforward = norm(shape), feedforward(shape, layer)

    def forward(self, x: Tensor, place: Place, past: Past) -> Tensor:
        """(..., D) -> (..., D)"""
        x = x + self.mixer(self.mixer_norm(x), place, past)
        if hasattr(self, "cross"):
            x = x + self.cross(self.cross_norm(x), past)
        if hasattr(self, "feedforward"):
            x = x + self.feedforward(self.feedforward_norm(x))
        return x
