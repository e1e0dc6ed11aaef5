"""The pasts of whole sequences: `Causal` and `Bidirectional` for training, `Naive` as their plain twin.

In: positions of the tokens, and which document each belongs to where several are packed in one row.
Out: `attend` and `recur` as the seam in types.py promises. A token never sees another document.
The past of generation, which remembers between calls, is `engine/cache.py`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tsuzuri.types import Scan

# On a CPU, PyTorch 2.13's fused attention in bfloat16 takes 2.1 times as long forward and backward as two matrix
# products (B 16, H 4, T 256, E 64: 57 against 27 ms), as long as the scores stay in the cache.
PRODUCT_LIMIT = 1024


class _Whole:
    """A whole sequence at once: nothing is kept between calls, every mask follows from positions and documents."""

    causal = True

    def __init__(self, positions: Tensor, documents: Tensor | None = None) -> None:
        """positions (..., T) int64; documents (..., T) int64, or None when each row is one document."""
        self.positions = positions
        self.documents = documents
        self._masks: dict[int | None, Tensor] = {}

    def attend(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float | None = None,
        window: int | None = None,
        slopes: Tensor | None = None,
    ) -> Tensor:
        """(..., T, H, E) × (..., T, K, E) -> (..., T, H, E) by PyTorch's fused attention."""
        q, k, v = (x.transpose(-3, -2) for x in (q, k, v))  # (..., H|K, T, E)
        k, v = _repeat(k, q.shape[-3]), _repeat(v, q.shape[-3])
        plain = self.documents is None and slopes is None and (window is None or window >= q.shape[-2])
        if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad and q.shape[-2] <= PRODUCT_LIMIT:
            out = _product(q, k, v, self._bias(window, slopes, q.dtype), scale)
        elif plain:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, scale=scale)
        else:
            bias = self._bias(window, slopes, q.dtype)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
        return out.transpose(-3, -2)

    def recur(self, layer: int, inputs: Tensor, scan: Scan) -> Tensor:
        """(..., T, D) -> (..., T, D); the state starts anew at every document."""
        if self.documents is None:
            return scan(inputs, None)[0]
        flat = inputs.reshape(-1, *inputs.shape[-2:])  # (B, T, D)
        rows = []
        for row, documents in zip(flat, self.documents.reshape(-1, inputs.shape[-2]), strict=True):
            lengths = torch.unique_consecutive(documents, return_counts=True)[1].tolist()
            rows.append(torch.cat([scan(part, None)[0] for part in row.split(lengths)]))
        return torch.stack(rows).reshape(inputs.shape[:-1] + rows[0].shape[-1:])

    def _bias(self, window: int | None, slopes: Tensor | None, dtype: torch.dtype) -> Tensor:
        """What is added to the scores: (..., 1, T, T), or (..., H, T, T) with slopes; -inf where a token may not look."""
        if window not in self._masks:
            self._masks[window] = self._allowed(window).unsqueeze(-3)  # (..., 1, T, T) bool
        allowed = self._masks[window]
        if slopes is None:
            return allowed
        distance = (self.positions[..., :, None] - self.positions[..., None, :]).abs().unsqueeze(-3)  # (..., 1, T, T)
        bias = -slopes[:, None, None] * distance  # (..., H, T, T)
        return bias.masked_fill(~allowed, -math.inf).to(dtype)

    def _allowed(self, window: int | None) -> Tensor:
        time = self.positions.shape[-1]
        order = torch.arange(time, device=self.positions.device)
        distance = order[:, None] - order[None, :]
        allowed = distance >= 0 if self.causal else torch.ones_like(distance, dtype=torch.bool)
        if window is not None:
            allowed = allowed & (distance.abs() < window)
        if self.documents is not None:
            allowed = allowed & (self.documents[..., :, None] == self.documents[..., None, :])
        return allowed


class Causal(_Whole):
    """Each token sees itself and what came before it in its own document."""


class Bidirectional(_Whole):
    """Each token sees its whole document (encoders)."""

    causal = False


class Naive(_Whole):
    """The plain twin of `Causal`: softmax(q k / √E) v, one query at a time, as in Vaswani et al. 2017, eq. 1."""

    def attend(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float | None = None,
        window: int | None = None,
        slopes: Tensor | None = None,
    ) -> Tensor:
        heads, size = q.shape[-2:]
        k, v = (x.repeat_interleave(heads // x.shape[-2], dim=-2) for x in (k, v))
        shape = q.shape
        q, k, v = (x.reshape(-1, *x.shape[-3:]) for x in (q, k, v))  # (B, T, H, E)
        positions = self.positions.expand(shape[:-2]).reshape(-1, shape[-3])
        documents = None if self.documents is None else self.documents.reshape(-1, shape[-3])
        out = torch.empty_like(q)
        for b in range(q.shape[0]):
            for i in range(q.shape[1]):
                seen = [j for j in range(q.shape[1]) if self._sees(b, i, j, documents, window)]
                scores = torch.einsum("he,jhe->hj", q[b, i], k[b, seen]) * (scale or size**-0.5)
                if slopes is not None:
                    scores = scores - slopes[:, None] * (positions[b, i] - positions[b, seen]).abs()
                out[b, i] = torch.einsum("hj,jhe->he", scores.softmax(-1), v[b, seen])
        return out.reshape(shape)

    def _sees(self, b: int, i: int, j: int, documents: Tensor | None, window: int | None) -> bool:
        same = documents is None or bool(documents[b, i] == documents[b, j])
        return same and j <= i and (window is None or i - j < window)


def _repeat(x: Tensor, heads: int) -> Tensor:
    """Grouped heads: (..., K, T, E) -> (..., H, T, E), each key/value head serving H / K queries."""
    return x if x.shape[-3] == heads else x.repeat_interleave(heads // x.shape[-3], dim=-3)


def _product(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float | None) -> Tensor:
    """softmax(q kᵀ · scale + bias) v by two matrix products: (..., H, T, E) each, bias as `_bias` gives it."""
    scores = (q * (scale or q.shape[-1] ** -0.5)) @ k.transpose(-1, -2)  # (..., H, T, T)
    if bias.dtype == torch.bool:
        bias = torch.zeros(bias.shape, dtype=q.dtype).masked_fill(~bias, -math.inf)
    return (scores + bias).softmax(-1) @ v
