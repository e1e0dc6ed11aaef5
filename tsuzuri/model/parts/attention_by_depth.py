"""Attention whose scores are divided by the number of the layer too, 1, 2, 3 …, so that deep ones stay small in float16.

`scale_attn_by_inverse_layer_idx` of GPT-2's config.json, with which Mistral's GPT-2 was trained (Karamcheti et al. 2021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tsuzuri.model.parts import attention

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "mixer"


class Part(attention.Part):
    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__(shape, layer)
        self.scale = (self.scale or self.head_size**-0.5) / (layer + 1)
