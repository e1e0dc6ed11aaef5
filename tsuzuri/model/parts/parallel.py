"""Parallel block: x + f(norm(x)) + g(norm'(x)): both sub-layers read the same x, so both can be computed at once (Wang & Komatsuzaki 2021).

Here each sub-layer has a norm of its own, as in GPT-NeoX and Falcon 40B; `parallel_one_norm.py` has one for both.
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
LAST_NORM = True


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
        out: Tensor = x + self.mixer(self.mixer_norm(x), place, past)
        if hasattr(self, "cross"):
            out = out + self.cross(self.cross_norm(x), past)
        if hasattr(self, "feedforward"):
            out = out + self.feedforward(self.feedforward_norm(x))
        return out
