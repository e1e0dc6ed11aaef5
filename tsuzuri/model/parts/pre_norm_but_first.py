"""Pre-norm block whose first attention reads the embeddings as they are: they were normalised already (Warner et al. 2024, ModernBERT)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from tsuzuri.model.parts import pre_norm

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "block"
LAST_NORM = True


class Part(pre_norm.Part):
    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__(shape, layer)
        if layer == 0:
            self.mixer_norm = nn.Identity()
