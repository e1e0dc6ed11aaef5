"""Steps of one new token for each of many sequences, in tensors whose shapes depend on a size alone: what a CUDA graph can record.

In: parts of one token each, all of them behind others. Out: their logits, equal to those of `Paged` but for rounding. A step is filled
up to the next size: so many sequences, so many pages each, powers of two; what fills it up reads and writes a page that is nobody's.
The first step of a size is recorded, the others play it: no call of a kernel waits for Python. Elsewhere than on CUDA the same steps
run unrecorded, which is how they are tested. What reads a prompt, keeps a state or looks at a source goes the plain way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tsuzuri.engine.paged import Paged, Part
from tsuzuri.types import Bias, Project, Scan

Compute = Callable[[Tensor, Any], Tensor]  # ids (B,), past -> logits (B, V)
WARM = 3  # runs before the recording: libraries set themselves up in the first ones


class Fixed:
    """A `Past` of B sequences with one new token each, M pages at most."""

    segments: Tensor | None = None

    def __init__(self, kept: Paged, batch: int, pages: int, spare: int) -> None:
        """`kept` holds the keys and values; `spare` is the page that is nobody's."""
        self._kept, self._spare, self._pages = kept, spare, pages
        self.positions = torch.zeros(batch, dtype=torch.long, device=kept.device)
        self._bound = torch.ones_like(self.positions)
        self._here = torch.zeros_like(self.positions)  # (B,) the rows of the new tokens
        self._rows = torch.zeros(batch, pages * kept.size, dtype=torch.long, device=kept.device)  # (B, S) those of all places
        self._places = torch.arange(pages * kept.size, device=kept.device)

    @property
    def extent(self) -> Tensor:
        """(B,)"""
        return self._bound

    def begin(self, parts: Sequence[Part]) -> None:
        """The next step brings these; what is left of B is filled up."""
        size, left = self._kept.size, len(self.positions) - len(parts)
        tables = [[*part.place.pages[: self._pages], *[self._spare] * (self._pages - len(part.place.pages))] for part in parts]
        table = torch.tensor([*tables, *[[self._spare] * self._pages] * left])
        positions = torch.tensor([*(part.start for part in parts), *[0] * left])
        rows = (table[:, :, None] * size + torch.arange(size)).flatten(1)
        self.positions.copy_(positions)
        self._bound.copy_(torch.tensor([*(part.place.bound for part in parts), *[1] * left]))
        self._rows.copy_(rows)
        self._here.copy_(rows.gather(1, positions[:, None])[:, 0])

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
        """(B, H, E) × (B, K, E) and all before, each its own -> (B, H, E)"""
        keys, values = self._kept.room(layer, k, v)
        keys.index_copy_(0, self._here, k.to(keys.dtype))
        values.index_copy_(0, self._here, v.to(values.dtype))
        batch, heads, size = q.shape
        seen = keys[self._rows].transpose(1, 2), values[self._rows].transpose(1, 2)  # (B, K, S, E)
        queries = q.to(keys.dtype).view(batch, seen[0].shape[1], -1, size)  # (B, K, G, E)
        allowed = self._places <= self.positions[:, None]
        if window is not None:
            allowed &= self._places > self.positions[:, None] - window
        hidden = torch.zeros(allowed.shape, dtype=keys.dtype, device=keys.device).masked_fill(~allowed, -torch.inf)[:, None, None]
        if bias is not None:
            added = bias(self.positions[:, None], self._places.expand(batch, -1)).to(keys.dtype)  # (B, H, 1, S)
            hidden = hidden + added.view(*queries.shape[:3], -1)
        if softcap is None:
            out = F.scaled_dot_product_attention(queries, *seen, attn_mask=hidden, scale=scale)
        else:
            scores = queries @ seen[0].transpose(-1, -2) * (scale or size**-0.5)
            out = (softcap * (scores / softcap).tanh() + hidden).softmax(-1) @ seen[1]
        return out.reshape(batch, heads, values.shape[-1]).to(q.dtype)

    def cross(self, layer: int, q: Tensor, project: Project, *, scale: float | None = None) -> Tensor:
        raise AssertionError("a step of fixed shape looks at no source")

    def recur(self, layer: int, inputs: Tensor, scan: Scan) -> Tensor:
        raise AssertionError("a step of fixed shape keeps no state")


class Graphs:
    """The steps of a model, by their size."""

    def __init__(self, compute: Compute, kept: Paged, spare: int, *, compiled: bool = False) -> None:
        """`compiled`: torch compiles each size too, which takes it half a minute or more."""
        self._compute = torch.compile(compute, fullgraph=True, dynamic=False) if compiled else compute
        self._kept, self._spare = kept, spare
        self._steps: dict[tuple[int, int], _Step] = {}
        self._pool: Any = None

    def takes(self, parts: Sequence[Part]) -> bool:
        """Whether this is a step of new tokens alone, of a model that only attends."""
        return not self._kept.recurs and all(part.count == 1 and part.start > 0 and part.place.memory is None for part in parts)

    def __call__(self, parts: Sequence[Part], ids: Sequence[int]) -> Tensor:
        """-> logits (parts, V)"""
        step = self._step(_power(len(parts)), _power(max(part.start // self._kept.size + 1 for part in parts)))
        step.past.begin(parts)
        step.ids[: len(ids)].copy_(torch.tensor(ids))
        return step()[: len(parts)]

    def _step(self, batch: int, pages: int) -> _Step:
        found = self._steps.get((batch, pages))
        if found is None:
            found = _Step(self._compute, Fixed(self._kept, batch, pages, self._spare), self)
            self._steps[batch, pages] = found
        return found

    def pool(self) -> Any:
        """Memory that all recordings share: one of them plays at a time."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        return self._pool


class _Step:
    def __init__(self, compute: Compute, past: Fixed, graphs: Graphs) -> None:
        self._compute, self.past, self._graphs = compute, past, graphs
        self.ids = torch.zeros_like(past.positions)
        self._graph: Any = None
        self._logits: Tensor | None = None

    def __call__(self) -> Tensor:
        if self.ids.device.type != "cuda":
            return self._compute(self.ids, self.past)
        if self._graph is None:
            self._record()
        self._graph.replay()
        assert self._logits is not None
        return self._logits.clone()  # the next step writes where these lie

    def _record(self) -> None:
        """A token's keys may be written again and again: they are the same each time."""
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM):
                self._compute(self.ids, self.past)
        torch.cuda.current_stream().wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=self._graphs.pool()):
            self._logits = self._compute(self.ids, self.past)


def _power(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()
