"""Learned positions: one trained vector for each position, added to the embeddings (GPT-1, BERT)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from tsuzuri.model.parts._place import Place

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "position"


class Part(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.table = nn.Embedding(shape.max_position_embeddings, shape.hidden_size)

    def forward(self, positions: Tensor) -> Place:
        """(...) -> add (..., D). A position past the table is the caller's error: the engine bounds the context."""
        return Place(add=self.table(positions))
