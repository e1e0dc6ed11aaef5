"""Post-norm block: norm(x + f(x)) for each sub-layer, as in the first Transformer (Vaswani et al. 2017, section 3.1), GPT-1 and BERT."""

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
LAST_NORM = False


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
        x = self.mixer_norm(x + self.mixer(x, place, past))
        if hasattr(self, "cross"):
            x = self.cross_norm(x + self.cross(x, past))
        if hasattr(self, "feedforward"):
            x = self.feedforward_norm(x + self.feedforward(x))
        return x
