"""The head of a model whose hidden states are the result: a text's vector is their mean, of length 1 (Reimers & Gurevych 2019).

It has no weights; `model/pooling.py` takes the mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "head"


class Part(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        return x
