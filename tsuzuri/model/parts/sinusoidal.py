"""Sinusoidal positions (Vaswani et al. 2017, section 3.5): sin and cos of position / 10000^(2i/D), added to the embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from tsuzuri.model.parts._place import Place
from tsuzuri.types import Past

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "position"


class Part(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.size = shape.hidden_size

    def forward(self, past: Past) -> Place:
        """(...) -> add (..., D): even columns sine, odd columns cosine"""
        positions = past.positions
        steps = torch.arange(0, self.size, 2, device=positions.device, dtype=torch.float32)
        angles = positions[..., None] * 10000.0 ** (-steps / self.size)  # (..., D/2)
        table = torch.stack((angles.sin(), angles.cos()), -1).flatten(-2)  # (..., D)
        return Place(add=table[..., : self.size])
