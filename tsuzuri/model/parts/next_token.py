"""The head that predicts the next token: one product with a (V, D) matrix, its own or that of the embedding (Press & Wolf 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "head"


class Part(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        own = (shape.vocab_size, shape.hidden_size)
        self.weight = None if shape.tie_word_embeddings else nn.Parameter(torch.empty(own))
        self.bias = nn.Parameter(torch.empty(shape.vocab_size)) if shape.head_bias else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(..., D), embedding (V, D) -> logits (..., V)"""
        return F.linear(x, embedding if self.weight is None else self.weight, self.bias)
