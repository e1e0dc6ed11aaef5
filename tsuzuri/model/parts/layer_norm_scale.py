"""LayerNorm without a bias: (x − mean) / √(variance + eps) · weight (PaLM, ModernBERT: Chowdhery et al. 2022, section 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KIND = "norm"


class Part(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        return F.layer_norm(x, self.weight.shape, self.weight, None, self.eps)
