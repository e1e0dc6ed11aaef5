"""RMSNorm: x / √(mean(x²) + eps) · weight (Zhang & Sennrich 2019, eq. 4), computed in float32 whatever comes in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

KIND = "norm"


class Part(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        wide = x if x.dtype == torch.float64 else x.float()
        scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * scaled.to(x.dtype)
