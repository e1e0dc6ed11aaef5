"""Attention over rows in which several documents are packed, without a mask: on CUDA, one document after another.

In: the documents of rows, once; then queries, keys and values. Out: what masked attention gives, by FlashAttention's kernel for
sequences of unequal length (Dao 2023), which computes nothing that a mask would throw away: of rows of 1,024 tokens half the scores,
and no (T, T) of anything. The plain twin is `_Whole.attend` with its mask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ROUND = 1024  # bounds are as many as the next multiple: what is compiled sees the same shape at almost every step


def bounds(documents: Tensor) -> Tensor:
    """Where each stretch of one document begins in the rows laid end to end: (..., T) int64 -> (n,) int32, filled up with the end."""
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[..., 1:] = documents[..., 1:] != documents[..., :-1]
    at = begins.flatten().nonzero().flatten().to(torch.int32)
    return F.pad(at, (0, ROUND - len(at) % ROUND), value=documents.numel())


def takes(q: Tensor) -> bool:
    """Whether the kernel computes on this device in this type."""
    return q.device.type == "cuda" and q.dtype in (torch.bfloat16, torch.float16)


def attend(
    q: Tensor, k: Tensor, v: Tensor, starts: Tensor, *, causal: bool, scale: float | None = None, window: int | None = None
) -> Tensor:
    """(..., T, H, E) each, `starts` as `bounds` gives them -> (..., T, H, E); with a window, a token sees the window - 1 before it
    (not causal: on either side)."""
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415  with it comes what takes a second, and only CUDA needs it

    most = q.shape[-3]  # no stretch is longer than a row
    before = -1 if window is None else window - 1
    flat_q, flat_k, flat_v = (x.reshape(-1, *x.shape[-2:]) for x in (q, k, v))  # (N, H, E)
    sides = (before, 0 if causal else before)
    out = varlen_attn(flat_q, flat_k, flat_v, starts, starts, most, most, scale=scale, window_size=sides)
    assert isinstance(out, Tensor)
    return out.reshape(q.shape)
