"""The past of many sequences at once: keys and values in pages, the tokens of a step side by side.

In: `begin` says which tokens of which sequences the next call of the model brings, (N,) in all, those of a sequence in order and
together. Out: `attend`, `cross` and `recur` as the seam in types.py promises, for each sequence the same numbers as `Cached`.
Which page belongs to whom is the business of `pages.py`; that a token of one sequence never sees another's is seen to here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tsuzuri.engine.cache import kept_as, looked_up, mask
from tsuzuri.types import Bias, Project, Scan


@dataclass(eq=False, slots=True)
class Place:
    """One sequence: where its keys, values and states lie."""

    bound: int  # how long it is to become, at most
    pages: list[int] = field(default_factory=list)
    states: dict[int, Tensor] = field(default_factory=dict)  # of layers that recur
    memory: Tensor | None = None  # (S, D) what an encoder made of the source
    looked: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)  # its keys and values, (K, S, E), by layer


@dataclass(frozen=True, slots=True)
class Part:
    """The tokens of one sequence in a step."""

    place: Place
    start: int  # tokens of it that were read before
    count: int


class Paged:
    """A `Past` for the sequences of a step."""

    segments: Tensor | None = None  # an encoder's business

    def __init__(self, pages: int, size: int, device: torch.device | str = "cpu") -> None:
        self.pages, self.size, self.device = pages, size, device
        self.recurs = False  # whether some layer keeps a state: then a sequence cannot begin with pages of another
        self.positions = torch.arange(0, device=device)
        self._extent = self.positions
        self._parts: list[tuple[Part, slice]] = []
        self._keys: dict[int, Tensor] = {}  # by layer, (pages × size, K, E)
        self._values: dict[int, Tensor] = {}
        self._masks: dict[tuple[int, int | None], Tensor | None] = {}
        self._rows: list[Tensor] = []  # of each part, the rows of its tokens from the first on, (start + count,)

    def begin(self, parts: Sequence[Part]) -> None:
        """The next call of the model brings these, in this order."""
        self._parts, self._rows, at = [], [], 0
        self._masks.clear()
        for part in parts:
            self._parts.append((part, slice(at, at + part.count)))
            at += part.count
            pages = torch.tensor(part.place.pages, device=self.device)
            rows = pages[:, None] * self.size + torch.arange(self.size, device=self.device)
            self._rows.append(rows.flatten()[: part.start + part.count])
        spans = [torch.arange(part.start, part.start + part.count, device=self.device) for part in parts]
        self.positions = torch.cat(spans)
        self._extent = torch.cat([torch.full_like(span, part.place.bound) for span, part in zip(spans, parts, strict=True)])

    def room(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Where the keys and values of a layer lie, (pages × size, K, E) each; made when the first ones come."""
        for kept, x in ((self._keys, k), (self._values, v)):
            if layer not in kept:
                kept[layer] = x.new_zeros(self.pages * self.size, *x.shape[1:], dtype=kept_as(x))
        return self._keys[layer], self._values[layer]

    def contents(self, page: int) -> dict[str, Tensor]:
        """What a page holds, by name: (size, K, E) each."""
        rows = slice(page * self.size, (page + 1) * self.size)
        kept = (("keys", self._keys), ("values", self._values))
        return {f"{name}.{layer}": found[rows].clone() for name, of in kept for layer, found in of.items()}

    def fill(self, page: int, contents: Mapping[str, Tensor]) -> None:
        """What `contents` gave, into another page, or into one of another past of the same model."""
        rows = slice(page * self.size, (page + 1) * self.size)
        for name, x in contents.items():
            kind, _, layer = name.partition(".")
            of = self._keys if kind == "keys" else self._values
            if int(layer) not in of:
                of[int(layer)] = x.new_empty(self.pages * self.size, *x.shape[1:], device=self.device)
            of[int(layer)][rows] = x

    @property
    def extent(self) -> Tensor:
        """(N,)"""
        return self._extent

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
        """(N, H, E) × (N, K, E) and all before, sequence by sequence -> (N, H, E)"""
        keys, values = self.room(layer, k, v)
        here = torch.cat([rows[part.start :] for rows, (part, _) in zip(self._rows, self._parts, strict=True)])
        keys[here], values[here] = k.to(keys.dtype), v.to(values.dtype)
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        for rows, (part, span) in zip(self._rows, self._parts, strict=True):
            first = 0 if window is None else max(0, part.start - window + 1)
            seen = keys[rows[first:]].transpose(0, 1), values[rows[first:]].transpose(0, 1)  # (K, S, E)
            if bias is not None:
                hidden = mask(self.positions[span], first, window, bias, seen[0], q.shape[1])
            else:
                if (span.start, window) not in self._masks:
                    self._masks[span.start, window] = mask(self.positions[span], first, window, None, seen[0], q.shape[1])
                hidden = self._masks[span.start, window]
            out[span] = looked_up(q[span], *seen, hidden, scale, softcap)
        return out

    def cross(self, layer: int, q: Tensor, project: Project, *, scale: float | None = None) -> Tensor:
        """(N, H, E) -> (N, H, E), each looking at its own memory"""
        out = []
        for part, span in self._parts:
            place = part.place
            assert place.memory is not None, "a decoder that looks at a memory is given one"
            if layer not in place.looked:
                k, v = project(place.memory)  # (S, K, E)
                place.looked[layer] = (k.to(kept_as(k)).transpose(0, 1), v.to(kept_as(v)).transpose(0, 1))
            out.append(looked_up(q[span], *place.looked[layer], None, scale, None))
        return torch.cat(out)

    def recur(self, layer: int, inputs: Tensor, scan: Scan) -> Tensor:
        """(N, D) -> (N, D), each going on from its own state"""
        self.recurs = True
        out = []
        for part, span in self._parts:
            found, part.place.states[layer] = scan(inputs[span], part.place.states.get(layer))
            out.append(found)
        return torch.cat(out)
