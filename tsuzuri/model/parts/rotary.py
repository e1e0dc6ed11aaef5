"""Rotary positions (Su et al. 2021, eq. 34): each pair (i, i + E/2) of a head turns by position · theta^(−2i/E).

The pairing is the half-split one of Llama's published weights, not the interleaved one of the paper:
the two differ by a permutation of the rows of the query and key projections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tsuzuri.model.parts._place import Place

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "position"


class Part(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.theta, self.size = shape.rope_theta, shape.head_size

    def forward(self, positions: Tensor) -> Place:
        """(...) -> cos and sin (..., 1, E) in float32, or in float64 where the default dtype is"""
        wide = torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32
        steps = torch.arange(0, self.size, 2, device=positions.device, dtype=wide)
        frequencies = self.theta ** (-steps / self.size)  # (E/2,)
        angles = positions[..., None].to(wide) * frequencies  # (..., E/2)
        angles = torch.cat((angles, angles), -1).unsqueeze(-2)  # (..., 1, E)
        return Place(cos=angles.cos(), sin=angles.sin())


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(..., H, E) turned by angles (..., 1, E)"""
    first, second = x.chunk(2, -1)
    turned: Tensor = x * cos.to(x.dtype) + torch.cat((-second, first), -1) * sin.to(x.dtype)
    return turned
