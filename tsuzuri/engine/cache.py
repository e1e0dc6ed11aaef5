"""The past of generation: one sequence, whose keys, values and states are kept between calls.

In: `begin(n)`, then a call of the model with n tokens (N,); for a decoder that looks at another text, `remember` first.
Out: `attend`, `cross` and `recur` as the seam in types.py promises, the same numbers as `Causal` over the whole sequence.
It knows no ids; `truncate` takes back what came last. A layer with a window lets go of what nobody will look at again.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tsuzuri.types import Bias, Project, Scan

FIRST = 256  # tokens of room at first; it doubles, so that n tokens cost O(n) copies
BACK = 4096  # tokens that can be taken back, at least, where a layer has a window


class _Rows:
    """Keys and values of one layer, (K, room, E) each: a head's keys lie together, as attention reads them."""

    def __init__(self, k: Tensor, v: Tensor, dtype: torch.dtype, window: int | None) -> None:
        self.keys = k.new_empty(k.shape[1], 0, k.shape[2], dtype=dtype)
        self.values = v.new_empty(v.shape[1], 0, v.shape[2], dtype=dtype)
        self.window = window
        self.first = 0  # the place of the first row; what came before it is let go

    def write(self, k: Tensor, v: Tensor, start: int, stop: int) -> None:
        """(N, K, E) at places start … stop"""
        if stop - self.first > self.keys.shape[1]:
            first = self.first if self.window is None else max(self.first, self.looks_back(start) - BACK)
            room = max(FIRST, 2 * (stop - first))
            self.keys, self.values = (_moved(x, room, first - self.first, start - self.first) for x in (self.keys, self.values))
            self.first = first
        self.keys[:, start - self.first : stop - self.first] = k.transpose(0, 1)
        self.values[:, start - self.first : stop - self.first] = v.transpose(0, 1)

    def read(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Keys and values (K, S, E) of the places start … stop"""
        return self.keys[:, start - self.first : stop - self.first], self.values[:, start - self.first : stop - self.first]

    def looks_back(self, start: int) -> int:
        """The first place that a token at `start` or after it can see."""
        return 0 if self.window is None else max(0, start - self.window + 1)


class Cached:
    """A `Past` for one sequence. Tokens come flat, (N,); nothing here needs a batch."""

    positions: Tensor
    segments: Tensor | None = None  # an encoder's business
    alone = True  # one sequence, every token after the one before: a compiled model may keep its keys and values itself

    def __init__(self, device: torch.device | str = "cpu", bound: int | None = None) -> None:
        """`bound`: how long the sequence is to become, for rotary scalings that depend on it; None: as long as it is."""
        self.bound = bound
        self.length = 0  # tokens seen, those of the call under way included
        self._start = 0  # where the call under way began
        self._rows: dict[int, _Rows] = {}
        self._states: dict[int, Tensor] = {}
        self._memory: Tensor | None = None  # (S, D)
        self._looked: dict[int, tuple[Tensor, Tensor]] = {}  # keys and values of the memory, (K, S, E)
        self._masks: dict[int | None, Tensor | None] = {}
        self.positions = torch.arange(0, device=device)

    @property
    def nbytes(self) -> int:
        """Bytes of the keys, values and states that are kept, spare room included."""
        kept = [*self._states.values(), *(x for pair in self._looked.values() for x in pair)]
        return sum(x.nbytes for x in (*kept, *(x for rows in self._rows.values() for x in (rows.keys, rows.values))))

    @property
    def recurs(self) -> bool:
        """Whether some layer keeps a state, as far as it was read: it cannot go back."""
        return bool(self._states)

    def begin(self, count: int) -> None:
        """The next call of the model brings `count` tokens."""
        self._start, self.length = self.length, self.length + count
        self.positions = torch.arange(self._start, self.length, device=self.positions.device)
        self._masks.clear()

    @property
    def extent(self) -> Tensor:
        """(N,)"""
        return torch.full_like(self.positions, self.length if self.bound is None else self.bound)

    def remember(self, states: Tensor) -> None:
        """The memory (S, D) that the decoder looks at; what was made of an earlier one is forgotten."""
        self._memory = states
        self._looked.clear()

    def truncate(self, length: int) -> int:
        """Forget what came after the first `length` tokens; how many are left: a recurrent state cannot go back, and a window
        not behind what was let go. They start anew."""
        if length < self.length:
            gone = any(rows.first > rows.looks_back(length) for rows in self._rows.values())
            self.length = 0 if self._states or gone else length
            self._states.clear()
            if gone:
                self._rows.clear()
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
        softcap: float | None = None,
        bias: Bias | None = None,
    ) -> Tensor:
        """(N, H, E) × (N, K, E) and all before -> (N, H, E). Grouped heads stand as rows of one query: nothing is repeated."""
        if layer not in self._rows:
            self._rows[layer] = _Rows(k, v, kept_as(k), window)
        rows = self._rows[layer]
        rows.write(k, v, self._start, self.length)
        first = rows.looks_back(self._start)
        keys, values = rows.read(first, self.length)  # (K, S, E)
        if bias is not None:
            hidden = mask(self.positions, first, window, bias, keys, q.shape[1])
        else:
            if window not in self._masks:
                self._masks[window] = mask(self.positions, first, window, None, keys, q.shape[1])
            hidden = self._masks[window]
        return looked_up(q, keys, values, hidden, scale, softcap)

    def cross(self, layer: int, q: Tensor, project: Project, *, scale: float | None = None) -> Tensor:
        """(N, H, E) -> (N, H, E); the memory's keys and values are made once."""
        assert self._memory is not None, "a decoder that looks at a memory is given one"
        if layer not in self._looked:
            k, v = project(self._memory)  # (S, K, E)
            self._looked[layer] = (k.to(kept_as(k)).transpose(0, 1), v.to(kept_as(v)).transpose(0, 1))
        return looked_up(q, *self._looked[layer], None, scale, None)

    def recur(self, layer: int, inputs: Tensor, scan: Scan) -> Tensor:
        """(N, D) -> (N, D), going on from the state after the last call."""
        out, self._states[layer] = scan(inputs, self._states.get(layer))
        return out


def mask(positions: Tensor, first: int, window: int | None, bias: Bias | None, keys: Tensor, heads: int) -> Tensor | None:
    """What is added to the scores of consecutive tokens (N,) of a sequence whose keys (K, S, E) begin at place `first`: (G N, S), or
    with a bias (1, K, G N, S); None for one token that sees everything."""
    count, group = len(positions), heads // keys.shape[0]
    if count == 1 and bias is None:
        return None
    seen = torch.arange(first, first + keys.shape[1], device=positions.device)
    hidden = torch.zeros(count, len(seen), dtype=keys.dtype, device=seen.device)
    hidden[:, -count:].fill_(-math.inf).triu_(1)  # what comes after a token; all before this call it sees
    if window is not None:
        hidden.masked_fill_(positions[:, None] - seen >= window, -math.inf)
    if bias is None:
        return hidden.repeat(group, 1)
    return (bias(positions, seen).to(keys.dtype) + hidden).view(1, -1, group * count, len(seen))  # from (H, N, S)


def looked_up(q: Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None, scale: float | None, softcap: float | None) -> Tensor:
    """(N, H, E) × (K, S, E) twice -> (N, H, E); hidden as `mask` gives it."""
    count, heads, size = q.shape
    queries = q.to(keys.dtype).transpose(0, 1).reshape(1, keys.shape[0], -1, size)  # (1, K, G N, E)
    if softcap is None:
        out = F.scaled_dot_product_attention(queries, keys[None], values[None], attn_mask=hidden, scale=scale)
    else:
        scores = queries @ keys.transpose(-1, -2) * (scale or size**-0.5)  # (1, K, G N, S)
        scores = softcap * (scores / softcap).tanh()
        out = (scores if hidden is None else scores + hidden).softmax(-1) @ values
    return out.reshape(heads, count, values.shape[-1]).transpose(0, 1).to(q.dtype)


def kept_as(k: Tensor) -> torch.dtype:
    """On a CPU keys and values are kept in float32: with one query a head, PyTorch 2.13's fused attention in bfloat16 takes
    seven times as long (12 heads, 512 tokens: 345 against 49 µs)."""
    return torch.float32 if k.device.type == "cpu" and k.dtype == torch.bfloat16 else k.dtype


def _moved(rows: Tensor, room: int, first: int, used: int) -> Tensor:
    """The rows first … used of (K, …, E) at the beginning of a buffer with `room`."""
    larger = rows.new_empty(rows.shape[0], room, rows.shape[2])
    larger[:, : used - first] = rows[:, first:used]
    return larger
