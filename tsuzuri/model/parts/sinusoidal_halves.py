"""Sinusoidal positions with all sines first and all cosines after them: the columns of `sinusoidal` in another order (Tensor2Tensor, Marian)."""

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
        """(...) -> add (..., D): the first half sine, the second cosine"""
        positions = past.positions
        wide = torch.float32 if positions.device.type == "mps" else torch.float64  # as the tables of others were made
        steps = torch.arange(0, self.size, 2, device=positions.device, dtype=wide)
        angles = positions[..., None] * 10000.0 ** (-steps / self.size)  # (..., D/2)
        return Place(add=torch.cat((angles.sin(), angles.cos()), -1)[..., : self.size].float())  # (..., D)
