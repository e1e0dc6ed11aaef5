"""Documents to rows, rows to batches.

In: token documents of any length. Out: rows of at most T + 1 tokens in which no document leaks into another, and a
data order that is a function of (seed, step) alone: resuming needs no replay and no state.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORED = -100  # a target that is not trained
OPEN = 256  # rows that are still looked at for another pair


@dataclass(frozen=True, slots=True)
class Batch:
    """B rows of T tokens. Where several documents share a row, `documents` numbers them; None: one document a row.

    An objective may give its targets, and its rows, another shape: what is first counts rows, whatever else stands behind.
    """

    tokens: Tensor  # (B, T) int64
    targets: Tensor  # (B, T) int64, IGNORED where nothing is trained
    positions: Tensor  # (B, T) int64, from 0 in each document
    documents: Tensor | None  # (B, T) int64
    segments: Tensor | None = None  # (B, T) int64, for encoders that tell two texts apart

    @property
    def trained(self) -> int:
        """How many targets count."""
        return int((self.targets != IGNORED).sum())

    def split(self, rows: int) -> list[Self]:
        """The same rows in micro-batches of at most `rows`."""
        return [self.some(slice(start, start + rows)) for start in range(0, len(self.tokens), rows)]

    def some(self, rows: slice) -> Self:
        """Only these rows."""
        return self._each(lambda value: value[rows])

    def to(self, device: torch.device) -> Self:
        return self._each(lambda value: value.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Every tensor of the batch changed alike, whatever kind of batch it is."""
        there = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(value) for name, value in there.items() if value is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs(Batch):
    """Targets, and the sources that they are written from: S tokens a row, numbered as the targets are."""

    source: Tensor  # (B, S) int64
    source_positions: Tensor  # (B, S) int64, from 0 in each source
    source_documents: Tensor | None  # (B, S) int64


@dataclass(frozen=True, slots=True)
class Piece:
    """tokens[start:stop] of one document, to be trained on the tokens after each."""

    document: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def pack(lengths: Sequence[int] | NDArray[np.int64], size: int) -> list[tuple[Piece, ...]]:
    """Rows of at most `size` tokens holding every document whole, cut only where it is longer than a row.

    Full stretches become rows of their own; what is left is packed best-fit, longest first (Ding et al. 2024,
    "Fewer Truncations Improve Language Modeling"). Nothing is dropped: each token stands in exactly one row.
    """
    rows: list[tuple[Piece, ...]] = []
    rest: list[Piece] = []
    for document, length in enumerate(lengths):
        cuts = [*range(0, int(length), size), int(length)]
        for start, stop in itertools.pairwise(cuts):
            piece = Piece(document, start, stop)
            if len(piece) == size:
                rows.append((piece,))
            else:
                rest.append(piece)
    return rows + _best_fit(sorted(rest, key=lambda piece: (-len(piece), piece.document)), size)


def _best_fit(pieces: Sequence[Piece], size: int) -> list[tuple[Piece, ...]]:
    """Each piece goes into the fullest row that still has room; rows are kept sorted by the room they have."""
    rows: list[list[Piece]] = []
    room: list[tuple[int, int]] = []  # (tokens free, row), sorted
    for piece in pieces:
        place = bisect.bisect_left(room, (len(piece), -1))
        if place == len(room):
            rows.append([piece])
            free, row = size, len(rows) - 1
        else:
            free, row = room.pop(place)
            rows[row].append(piece)
        bisect.insort(room, (free - len(piece), row))
    return [tuple(row) for row in rows]


def order(rows: int, seed: int, start: int, count: int) -> list[int]:
    """Rows number `start` … `start + count - 1` of an endless stream in which every epoch is a permutation of its own."""
    found: list[int] = []
    while len(found) < count:
        epoch, offset = divmod(start + len(found), rows)
        permutation = np.random.default_rng((seed % 2**64, epoch)).permutation(rows)
        found += permutation[offset : offset + count - len(found)].tolist()
    return found


def collate(rows: Sequence[Sequence[tuple[NDArray[np.int64], NDArray[np.int64], int]]], size: int, padding: int) -> Batch:
    """Rows of (tokens, targets, first position) stretches -> one Batch of width `size`; what is left over is padding."""
    shape = (len(rows), size)
    tokens, targets = np.full(shape, padding, np.int64), np.full(shape, IGNORED, np.int64)
    positions, documents = np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
    for r, row in enumerate(rows):
        at = 0
        for number, (stretch, wanted, first) in enumerate(row):
            end = at + len(stretch)
            assert end <= size, "a row is longer than the batch is wide"
            tokens[r, at:end], targets[r, at:end] = stretch, wanted
            positions[r, at:end], documents[r, at:end] = np.arange(first, first + len(stretch)), number
            at = end
    alone = bool((documents == documents[:, :1]).all())
    numbers = None if alone else torch.from_numpy(documents)
    return Batch(torch.from_numpy(tokens), torch.from_numpy(targets), torch.from_numpy(positions), numbers)


Pair: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]  # source; tokens of the target, and what each trains


def pack_pairs(sizes: Sequence[tuple[int, int]], room: tuple[int, int]) -> list[tuple[int, ...]]:
    """Pairs of (source, target) sizes -> rows of pair numbers that fit into `room` on both sides: the fullest first, each into the
    first of the last OPEN rows that still has place for both. Every pair stands in exactly one row."""
    order = sorted(range(len(sizes)), key=lambda n: (-max(size / most for size, most in zip(sizes[n], room, strict=True)), n))
    rows: list[list[int]] = []
    left: list[tuple[int, int]] = []
    for number in order:
        source, target = sizes[number]
        assert source <= room[0] and target <= room[1], "a pair is longer than a row"
        near = range(max(0, len(rows) - OPEN), len(rows))
        row = next((row for row in near if left[row][0] >= source and left[row][1] >= target), None)
        if row is None:
            row = len(rows)
            rows.append([])
            left.append(room)
        rows[row].append(number)
        left[row] = left[row][0] - source, left[row][1] - target
    return [tuple(row) for row in rows]


def collate_pairs(rows: Sequence[Sequence[Pair]], room: tuple[int, int], padding: int) -> Pairs:
    """Rows of pairs -> one batch of `room` (source, target) tokens a row; what is left over is padding."""
    targets = collate([[(tokens, wanted, 0) for _, tokens, wanted in row] for row in rows], room[1], padding)
    sources = collate([[(source, source, 0) for source, _, _ in row] for row in rows], room[0], padding)
    own = {field.name: getattr(targets, field.name) for field in fields(targets)}
    return Pairs(**own, source=sources.tokens, source_positions=sources.positions, source_documents=sources.documents)
