"""The pasts of whole sequences: `Causal` and `Bidirectional` for training, `Naive` as their plain twin, `Recorded` to look inside.

In: positions of the tokens, which document each belongs to where several are packed in one row, and the memory that an
encoder made of another text. Out: `attend`, `cross` and `recur` as the seam in types.py promises. A token never sees
another document. The past of generation, which remembers between calls, is `engine/cache.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tsuzuri.model import _stretches
from tsuzuri.types import Bias, Project, Scan

# On a CPU, PyTorch 2.13's fused attention in bfloat16 takes 2.1 times as long forward and backward as two matrix
# products (B 16, H 4, T 256, E 64: 57 against 27 ms), as long as the scores stay in the cache.
PRODUCT_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class Memory:
    """What an encoder made of a text, for a decoder to look at."""

    states: Tensor  # (..., S, D)
    documents: Tensor | None = None  # (..., S) int64: a token of the decoder sees the states of its own document number


class _Whole:
    """A whole sequence at once: nothing is kept between calls, every mask follows from positions and documents."""

    causal = True

    def __init__(
        self, positions: Tensor, documents: Tensor | None = None, *, segments: Tensor | None = None, memory: Memory | None = None
    ) -> None:
        """positions (..., T) int64; documents (..., T) int64, or None when each row is one document: padding is a document of
        its own; segments (..., T) int64, for encoders that tell two texts apart; memory: what `cross` looks at."""
        self.positions, self.documents, self.segments, self.memory = positions, documents, segments, memory
        self._masks: dict[int | None, Tensor] = {}
        self._bounds = None if documents is None or documents.device.type != "cuda" else _stretches.bounds(documents)

    @property
    def extent(self) -> Tensor:
        """(..., T): the length of each token's document"""
        last = self.positions
        if self.documents is None:
            return last.amax(-1, keepdim=True).expand_as(last) + 1
        same = self.documents[..., :, None] == self.documents[..., None, :]  # (..., T, T)
        return torch.where(same, last[..., None, :], -1).amax(-1) + 1

    def attend(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float | None = None,
        window: int | None = None,
        softcap: float | None = None,
        bias: Bias | None = None,
    ) -> Tensor:
        """(..., T, H, E) × (..., T, K, E) -> (..., T, H, E) by PyTorch's fused attention."""
        if self._bounds is not None and _stretches.takes(q) and softcap is None and bias is None:
            k, v = (x.repeat_interleave(q.shape[-2] // x.shape[-2], dim=-2) for x in (k, v))  # (..., T, H, E)
            return _stretches.attend(q, k, v, self._bounds, causal=self.causal, scale=scale, window=window)
        q, k, v = (x.transpose(-3, -2) for x in (q, k, v))  # (..., H|K, T, E)
        k, v = _repeat(k, q.shape[-3]), _repeat(v, q.shape[-3])
        plain = self.documents is None and bias is None and (window is None or window >= q.shape[-2])
        narrow = q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad and q.shape[-2] <= PRODUCT_LIMIT
        if narrow or softcap is not None:
            out = _product(q, k, v, self._mask(window, bias, q.dtype), scale, softcap)
        elif plain:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, scale=scale)
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=self._mask(window, bias, q.dtype), scale=scale)
        return out.transpose(-3, -2)

    def cross(self, layer: int, q: Tensor, project: Project, *, scale: float | None = None) -> Tensor:
        """(..., T, H, E) and the memory's (..., S, D) -> (..., T, H, E)"""
        assert self.memory is not None, "a decoder that looks at a memory is given one"
        k, v = project(self.memory.states)  # (..., S, K, E)
        q, k, v = (x.transpose(-3, -2) for x in (q, k, v))
        k, v = _repeat(k, q.shape[-3]), _repeat(v, q.shape[-3])
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self._visible(), scale=scale).transpose(-3, -2)

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

    def _visible(self) -> Tensor | None:
        """(..., 1, T, S) bool: which states of the memory a token sees; None: all. Padding, which has none, sees all: its result
        counts for nothing but must be a number."""
        assert self.memory is not None
        if self.memory.documents is None:
            return None
        own = torch.zeros_like(self.positions) if self.documents is None else self.documents
        same = own[..., :, None] == self.memory.documents[..., None, :]  # (..., T, S)
        return (same | ~same.any(-1, keepdim=True)).unsqueeze(-3)

    def _mask(self, window: int | None, bias: Bias | None, dtype: torch.dtype) -> Tensor:
        """(..., 1, T, T) bool: where a token may look; or with a bias (..., H, T, T), added to the scores."""
        if window not in self._masks:
            self._masks[window] = self._allowed(window).unsqueeze(-3)  # (..., 1, T, T) bool
        allowed = self._masks[window]
        if bias is None:
            return allowed
        return bias(self.positions, self.positions).masked_fill(~allowed, -math.inf).to(dtype)

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
    """Each token sees its whole document (encoders); with a window, the window - 1 on either side."""

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
        softcap: float | None = None,
        bias: Bias | None = None,
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
                if softcap is not None:
                    scores = softcap * (scores / softcap).tanh()
                if bias is not None:
                    scores = scores + bias(positions[b, i : i + 1], positions[b, seen])[:, 0]
                out[b, i] = torch.einsum("hj,jhe->he", scores.softmax(-1), v[b, seen])
        return out.reshape(shape)

    def _sees(self, b: int, i: int, j: int, documents: Tensor | None, window: int | None) -> bool:
        same = documents is None or bool(documents[b, i] == documents[b, j])
        return same and j <= i and (window is None or i - j < window)


@dataclass(frozen=True, slots=True)
class Shares:
    """How much each token takes from which: a row is a softmax, 0 where a token may not look."""

    layer: int
    kind: Literal["self", "cross"]
    heads: Tensor  # float32 (..., H, T, T), or (..., H, T, S) of a memory


class Recorded(_Whole):
    """`Causal` or `Bidirectional` that keeps the shares of every head in `kept`, in the order of the computation. What it gives back is
    made of these very shares: they are right exactly where it agrees with the others."""

    def __init__(self, positions: Tensor, *, causal: bool, memory: Memory | None = None) -> None:
        super().__init__(positions, memory=memory)
        self.causal, self.kept = causal, list[Shares]()

    def attend(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float | None = None,
        window: int | None = None,
        softcap: float | None = None,
        bias: Bias | None = None,
    ) -> Tensor:
        q, k, v = (x.transpose(-3, -2) for x in (q, k, v))  # (..., H|K, T, E)
        shares = _shares(q, _repeat(k, q.shape[-3]), self._mask(window, bias, q.dtype), scale, softcap)
        return self._kept(layer, "self", shares, v)

    def cross(self, layer: int, q: Tensor, project: Project, *, scale: float | None = None) -> Tensor:
        assert self.memory is not None, "a decoder that looks at a memory is given one"
        k, v = project(self.memory.states)  # (..., S, K, E)
        q, k, v = (x.transpose(-3, -2) for x in (q, k, v))
        everything = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device)
        return self._kept(layer, "cross", _shares(q, _repeat(k, q.shape[-3]), everything, scale, None), v)

    def _kept(self, layer: int, kind: Literal["self", "cross"], shares: Tensor, v: Tensor) -> Tensor:
        self.kept.append(Shares(layer, kind, shares.float()))
        return (shares @ _repeat(v, shares.shape[-3])).transpose(-3, -2)


def _repeat(x: Tensor, heads: int) -> Tensor:
    """Grouped heads: (..., K, T, E) -> (..., H, T, E), each key/value head serving H / K queries."""
    return x if x.shape[-3] == heads else x.repeat_interleave(heads // x.shape[-3], dim=-3)


def _product(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float | None, softcap: float | None) -> Tensor:
    """softmax(cap(q kᵀ · scale) + mask) v by two matrix products: (..., H, T, E) each, mask as `_mask` gives it."""
    return _shares(q, k, mask, scale, softcap) @ v


def _shares(q: Tensor, k: Tensor, mask: Tensor, scale: float | None, softcap: float | None) -> Tensor:
    """softmax(cap(q kᵀ · scale) + mask): (..., H, T, E) each -> (..., H, T, S)"""
    scores = (q * (scale or q.shape[-1] ** -0.5)) @ k.transpose(-1, -2)  # (..., H, T, T)
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill(~mask, -math.inf)
    return (scores + mask).softmax(-1)
