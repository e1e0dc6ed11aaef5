"""Learned positions: one trained vector for each position, added to the embeddings (GPT-1, BERT)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from tsuzuri.model.parts._place import Place
from tsuzuri.model.parts._table import table
from tsuzuri.types import Past

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "position"


class Part(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.table = table(shape.max_position_embeddings + shape.position_offset, shape.hidden_size)
        self.offset = shape.position_offset

    def forward(self, past: Past) -> Place:
        """(...) -> add (..., D). A position past the table is the caller's error: the engine bounds the context."""
        return Place(add=self.table(past.positions + self.offset))
