"""The past of generation: one sequence, whose keys, values and states are kept between calls.

In: `begin(n)`, then a call of the model with n tokens (N,). Out: `attend` and `recur` as the seam in types.py promises,
the same numbers as `Causal` over the whole sequence. It knows no ids; `truncate` takes back what came last.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tsuzuri.types import Scan

FIRST = 256  # tokens of room at first; it doubles, so that n tokens cost O(n) copies


class _Rows:
    """Keys and values of one layer, (K, room, E) each: a head's keys lie together, as attention reads them."""

    def __init__(self, k: Tensor, v: Tensor, dtype: torch.dtype) -> None:
        self.keys = k.new_empty(k.shape[1], 0, k.shape[2], dtype=dtype)
        self.values = v.new_empty(v.shape[1], 0, v.shape[2], dtype=dtype)

    def write(self, k: Tensor, v: Tensor, start: int, stop: int) -> None:
        """(N, K, E) at places start … stop"""
        if stop > self.keys.shape[1]:
            room = max(FIRST, 2 * self.keys.shape[1], stop)
            self.keys, self.values = (_grown(x, room, start) for x in (self.keys, self.values))
        self.keys[:, start:stop] = k.transpose(0, 1)
        self.values[:, start:stop] = v.transpose(0, 1)


class Cached:
    """A `Past` for one sequence. Tokens come flat, (N,); nothing here needs a batch."""

    positions: Tensor

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.length = 0  # tokens seen, those of the call under way included
        self._start = 0  # where the call under way began
        self._rows: dict[int, _Rows] = {}
        self._states: dict[int, Tensor] = {}
        self._biases: dict[tuple[int | None, int], Tensor] = {}
        self.positions = torch.arange(0, device=device)

    def begin(self, count: int) -> None:
        """The next call of the model brings `count` tokens."""
        self._start, self.length = self.length, self.length + count
        self.positions = torch.arange(self._start, self.length, device=self.positions.device)
        self._biases.clear()

    def truncate(self, length: int) -> int:
        """Forget what came after the first `length` tokens; how many are left: a recurrent state cannot go back, it starts anew."""
        if length < self.length:
            self.length = 0 if self._states else length
            self._states.clear()
        return self.length

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
        """(N, H, E) × (N, K, E) and all before -> (N, H, E). Grouped heads stand as rows of one query: nothing is repeated."""
        if layer not in self._rows:
            self._rows[layer] = _Rows(k, v, _kept(k))
        rows = self._rows[layer]
        rows.write(k, v, self._start, self.length)
        first = 0 if window is None else max(0, self._start - window + 1)  # nobody looks further back
        keys, values = rows.keys[:, first : self.length], rows.values[:, first : self.length]  # (K, S, E)
        count, heads, size = q.shape
        group = heads // keys.shape[0]
        bias = self._bias(first, window, slopes, keys.dtype, group)
        queries = q.to(keys.dtype).transpose(0, 1).reshape(1, keys.shape[0], group * count, size)  # (1, K, G N, E)
        out = F.scaled_dot_product_attention(queries, keys[None], values[None], attn_mask=bias, scale=scale)
        return out.view(heads, count, size).transpose(0, 1).to(q.dtype)

    def recur(self, layer: int, inputs: Tensor, scan: Scan) -> Tensor:
        """(N, D) -> (N, D), going on from the state after the last call."""
        out, self._states[layer] = scan(inputs, self._states.get(layer))
        return out

    def _bias(self, first: int, window: int | None, slopes: Tensor | None, dtype: torch.dtype, group: int) -> Tensor | None:
        """What is added to the scores, (G N, S) or (1, K, G N, S) with slopes; None for one token: it sees everything."""
        count = self.length - self._start
        if count == 1 and slopes is None:
            return None
        key = (window, id(slopes))  # the slopes of a call live as long as the call
        if key not in self._biases:
            seen = torch.arange(first, self.length, device=self.positions.device)
            distance = self.positions[:, None] - seen  # (N, S)
            hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
            bias = torch.zeros(distance.shape, dtype=dtype, device=seen.device) if slopes is None else -slopes[:, None, None] * distance
            bias = bias.masked_fill(hidden, -math.inf).to(dtype)  # (N, S) or (H, N, S)
            self._biases[key] = bias.repeat(group, 1) if slopes is None else bias.view(1, -1, group * count, len(seen))
        return self._biases[key]


def _kept(k: Tensor) -> torch.dtype:
    """On a CPU keys and values are kept in float32: with one query a head, PyTorch 2.13's fused attention in bfloat16 takes
    seven times as long (12 heads, 512 tokens: 345 against 49 µs)."""
    return torch.float32 if k.device.type == "cpu" and k.dtype == torch.bfloat16 else k.dtype


def _grown(rows: Tensor, room: int, used: int) -> Tensor:
    """The same rows (K, used, E) in a buffer with more room."""
    larger = rows.new_empty(rows.shape[0], room, rows.shape[2])
    larger[:, :used] = rows[:, :used]
    return larger
