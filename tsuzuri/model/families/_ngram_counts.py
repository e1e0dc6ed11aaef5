"""Counting and smoothing for ngram.py, in NumPy: documents of ids in, one sorted table per order out.

The table of order k holds every distinct k-gram that was read, as one number: `row of its first k - 1 ids in
the table of order k - 1` × (V + 1) + `its last id`. Sorted, the n-grams that share a context lie side by side,
and a look-up is a binary search. It scores nothing: `ngram.py` walks these tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.integer[Any]]
Floats: TypeAlias = NDArray[np.float64]
Discounts: TypeAlias = tuple[float, float, float]
FALLBACK: Discounts = (0.5, 1.0, 1.5)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One order k. R rows, one for each distinct k-gram; order 1 has a row for each id and one for the boundary."""

    keys: NDArray[np.int64]  # (R,) sorted
    probability: Floats  # (R,) of the last id given the others, interpolated with all lower orders
    backoff: Floats  # (R,) with this k-gram as the context: the mass left for the lower order, 1 where nothing followed


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    """What was counted of one order, before smoothing."""

    keys: NDArray[np.int64]  # (R,) sorted
    counts: NDArray[np.int64]  # (R,) how often it was read; below the top order then replaced by continuation counts
    suffix: Ints  # (R,) row of its last k - 1 ids in the table of order k - 1


def discounts(counts: Ints) -> Discounts:
    """D1, D2, D3+ from the numbers of n-grams seen once to four times: Chen & Goodman 1999, eq. 26.

    The equation needs all four numbers, and a discount must leave something to what was not seen without taking more
    than the count itself. Where a small or peculiar corpus breaks that, the order falls back to ½, 1, 1½ (the values
    KenLM offers for this case), so that no id of the vocabulary is ever impossible.
    """
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == c)) for c in (1, 2, 3, 4))
    if not (n1 and n2 and n3 and n4):
        return FALLBACK
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return found if all(0 < d <= c for c, d in enumerate(found, 1)) else FALLBACK


def tables(documents: Iterable[Ints], vocab_size: int, order: int, boundary: int) -> tuple[list[Table], list[Discounts]]:
    """Tables and discounts of orders 1 to `order`. Nothing is counted across `boundary`, before or inside a document."""
    stream, predicted = _stream(documents, boundary)
    levels = _count(stream, predicted, vocab_size, order, boundary)
    return _smooth(_continuations(levels), vocab_size)


def _stream(documents: Iterable[Ints], boundary: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """All documents end to end, (T,), a boundary before each; the mask says which ids are text, not that boundary."""
    pieces, starts, total = [], [], 0
    for document in documents:
        starts.append(total)
        pieces.append(np.concatenate([[boundary], document]).astype(np.int32))
        total += len(pieces[-1])
    stream = np.concatenate(pieces) if pieces else np.empty(0, np.int32)
    predicted = np.ones(total, bool)
    predicted[starts] = False
    return stream, predicted


def _reach(stream: NDArray[np.int32], boundary: int, order: int) -> NDArray[np.int32]:
    """(T,) the longest n-gram that ends at each position: from the last boundary before it, and no longer than `order`."""
    places = np.arange(len(stream), dtype=np.int32)
    last = np.maximum.accumulate(np.where(stream == boundary, places, 0)).astype(np.int32)
    reach = np.ones(len(stream), np.int32)
    reach[1:] = np.minimum(order, places[1:] - last[:-1] + 1)
    return reach


def _count(stream: NDArray[np.int32], predicted: NDArray[np.bool_], vocab_size: int, order: int, boundary: int) -> list[_Level]:
    """Every distinct n-gram of every order, with how often it was read."""
    width = vocab_size + 1
    once = np.bincount(stream[predicted], minlength=width)
    levels = [_Level(np.arange(width), once.astype(np.int64), np.empty(0, np.int64))]
    reach = _reach(stream, boundary, order)
    rows = stream  # (T,) row of the n-gram of the order below that ends here
    for k in range(2, order + 1):
        here = np.flatnonzero(predicted & (reach >= k))
        keys, counts, first, row = _distinct(rows[here - 1].astype(np.int64) * width + stream[here])
        levels.append(_Level(keys, counts, rows[here[first]]))
        rows = np.full(len(stream), -1, np.int32)
        rows[here] = row
    return levels


def _distinct(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], Ints, Ints]:
    """Sorted distinct values, how often each occurs, where each occurs (one place), and for every value its row.

    np.unique does the same with a stable sort, which takes several times as long.
    """
    places = np.argsort(values)
    ordered = values[places]
    new = np.ones(len(values), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    begins = np.flatnonzero(new)
    rows = np.empty(len(values), np.int32)
    rows[places] = np.cumsum(new, dtype=np.int32) - 1
    return ordered[begins], np.diff(begins, append=len(values)), places[begins], rows


def _continuations(levels: list[_Level]) -> list[_Level]:
    """Below the top order a k-gram counts as often as there are different ids to its left (Kneser & Ney 1995).

    At a document's start nothing can stand to the left, so there the plain count stays (Heafield et al. 2013, §3.1).
    """
    adjusted = []
    for level, above in pairwise(levels):
        left = np.bincount(above.suffix, minlength=len(level.keys))
        adjusted.append(_Level(level.keys, np.where(left > 0, left, level.counts), level.suffix))
    return [*adjusted, levels[-1]]


def _smooth(levels: list[_Level], vocab_size: int) -> tuple[list[Table], list[Discounts]]:
    """Chen & Goodman 1999, eq. 25: p(w|c) = (count - D) / total + (mass taken / total) · p(w|shorter c); at the end 1/V."""
    width = vocab_size + 1
    result: list[Table] = []
    taken_by_order: list[Discounts] = []
    for k, level in enumerate(levels, 1):
        contexts = level.keys // width  # (R,) row of the context in the order below; order 1 has the one empty context
        seen = level.counts[:vocab_size] if k == 1 else level.counts
        taken = discounts(seen)
        discount = np.array([0.0, *taken])[np.minimum(level.counts, 3)]
        size = 1 if k == 1 else len(result[-1].keys)
        total = np.bincount(contexts, level.counts, size)
        left = np.divide(np.bincount(contexts, discount, size), total, out=np.ones(size), where=total > 0)
        lower: Floats | float = 1 / vocab_size if k == 1 else result[-1].probability[level.suffix]
        probability = (level.counts - discount) / total[contexts] + left[contexts] * lower
        if k == 1:
            probability[vocab_size] = 0.0  # the boundary that stands for no id is never predicted
        else:
            result[-1] = Table(result[-1].keys, result[-1].probability, left)
        result.append(Table(level.keys, probability, np.ones(len(level.keys))))
        taken_by_order.append(taken)
    return result, taken_by_order


def walk(orders: list[Table], ids: Ints, width: int) -> list[NDArray[np.int64]]:
    """For ids (..., T) the row of the k-gram that ends at each place, for every order k; -1 where it was never read."""
    rows = [ids.astype(np.int64)]
    for table in orders[1:]:
        before, row = rows[-1][..., :-1], np.full(ids.shape, -1, np.int64)
        row[..., 1:] = find(table, np.where(before >= 0, before * width + ids[..., 1:], -1))
        rows.append(row)
    return rows


def find(table: Table, keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row of each key, -1 where there is none."""
    if not len(table.keys):
        return np.full(keys.shape, -1, np.int64)
    row = np.minimum(np.searchsorted(table.keys, keys), len(table.keys) - 1)
    return np.where(table.keys[row] == keys, row, -1)


def children(table: Table, contexts: NDArray[np.int64], width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For contexts (N,), rows in the table below or -1: which context, and which row of `table`, for all that followed."""
    begin = np.searchsorted(table.keys, contexts * width)  # of -1: no key is below 0, so it has no children
    sizes = np.searchsorted(table.keys, (contexts + 1) * width) - begin
    offsets = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.repeat(np.arange(len(contexts)), sizes), np.repeat(begin, sizes) + offsets


def sound(table: Table, below: Table | None, vocab_size: int) -> bool:
    """Whether a table that came from a file keeps what `tables` promises: sizes, order, bounds, probabilities."""
    keys, probability, backoff = table.keys, table.probability, table.backoff
    kinds = keys.dtype == np.int64 and probability.dtype == backoff.dtype == np.float64
    if not (kinds and keys.ndim == 1 and keys.shape == probability.shape == backoff.shape):
        return False
    width = vocab_size + 1
    if below is None and len(keys) != width:
        return False
    limit = width if below is None else len(below.keys) * width
    placed = not len(keys) or (keys[0] >= 0 and keys[-1] < limit and bool((keys[1:] > keys[:-1]).all()))
    text = probability[:vocab_size] if below is None else probability
    return bool(placed and ((text > 0) & (text <= 1)).all() and ((backoff > 0) & (backoff <= 1)).all())
