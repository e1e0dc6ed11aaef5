"""The head that guesses hidden tokens (Devlin et al. 2019, BERT): a layer and a norm, then a product with a (V, D) matrix.

The matrix is its own or that of the embedding, as in `next_token.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsuzuri.model.parts._activation import ACTIVATIONS
from tsuzuri.model.parts._build import norm

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "head"


class Part(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.hidden_size, shape.hidden_size, bias=shape.head_dense_bias)
        self.activation, self.norm = ACTIVATIONS[shape.head_act], norm(shape)
        own = (shape.vocab_size, shape.hidden_size)
        self.weight = None if shape.tie_word_embeddings else nn.Parameter(torch.empty(own))
        self.bias = nn.Parameter(torch.empty(shape.vocab_size)) if shape.head_bias else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(..., D), embedding (V, D) -> logits (..., V)"""
        return F.linear(self.norm(self.activation(self.dense(x))), embedding if self.weight is None else self.weight, self.bias)
