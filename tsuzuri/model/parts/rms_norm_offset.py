"""RMSNorm whose weight is kept as its distance from one: x / √(mean(x²) + eps) · (1 + weight), as Gemma has it.

Weight decay then pulls towards "leave it as it is" and not towards zero. Multiplied in float32, before it is rounded back.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

KIND = "norm"


class Part(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        wide = x if x.dtype == torch.float64 else x.float()
        scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (scaled * (1 + self.weight.to(wide.dtype))).to(x.dtype)

    def reset(self, generator: torch.Generator) -> None:
        self.weight.zero_()
