"""Quantisation: the matrices of a model in 8 or 4 bits, groups of 32 inputs sharing a scale.

    q8_0   w ≈ d · n, n = -127 … 127, d = max|w| / 127               8.5 bits a weight
    q4_0   w ≈ d · (n - 8), n = 0 … 15, d = (w of max |w|) / -8      4.5 bits a weight

Both are GGML's, number for number, so that what is imported from GGUF is what runs.
"""

from __future__ import annotations

import torch
from torch import Tensor

GROUP = 32


def q8_0(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, K) -> int8 (rows, K), float16 (rows, K/32)"""
    groups = weight.float().unflatten(-1, (-1, GROUP))  # (rows, K/32, 32)
    scales = groups.abs().amax(-1, keepdim=True) / 127
    inverse = torch.where(scales > 0, 1 / scales, 0)
    scaled = groups * inverse
    values = (scaled.abs() + 0.5).floor().copysign(scaled)  # to nearest, halves away from zero, as C's roundf
    return values.to(torch.int8).flatten(-2), scales.squeeze(-1).half()


def q4_0(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, K) -> uint8 (rows, K/2), byte i of the 16 of a group holding inputs i and i + 16; float16 (rows, K/32)"""
    groups = weight.float().unflatten(-1, (-1, GROUP))
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    scales = largest / -8
    inverse = torch.where(scales != 0, 1 / scales, 0)
    values = (groups * inverse + 8.5).clamp(0, 15).to(torch.uint8)  # truncated
    low, high = values.chunk(2, -1)
    return (low | high << 4).flatten(-2), scales.squeeze(-1).half()


def dequantised(values: Tensor, scales: Tensor) -> Tensor:
    """float32 (rows, K) of what `q8_0` (int8) or `q4_0` (uint8) gave."""
    if values.dtype == torch.uint8:
        packed = values.unflatten(-1, (-1, GROUP // 2))
        values = (torch.cat((packed & 15, packed >> 4), -1).to(torch.int8) - 8).flatten(-2)
    return (values.unflatten(-1, (-1, GROUP)).float() * scales.float().unsqueeze(-1)).flatten(-2)
