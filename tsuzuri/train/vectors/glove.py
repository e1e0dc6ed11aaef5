"""GloVe: the product of two words' vectors is the logarithm of how often they stand near each other (Pennington et al. 2014).

In: `Lines`. Out: counts, and steps that move two tables of vectors with a bias each. Eq. 8, with X the counts:

    loss = Σ f(X_ij) (inner_i · outer_j + inner bias_i + outer bias_j - log X_ij)²,    f(x) = min(1, (x / x_max)^0.75)

X is symmetric, the two tables differ by their start alone, and the result is their sum (section 4.2).
`plain_loss` is eq. 8 cell by cell, for autograd and an optimizer of PyTorch's; `step` takes a few whole rows of X at a time,
where the loss is a matrix product, and so are its gradients: a cell of X that is zero has weight zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsuzuri.train.vectors.lines import Lines

POWER = 0.75  # of a count: how much it weighs (section 3.1)
CELLS = 1 << 22  # of X that are held at once, 16 MB a copy: they decide how many rows a step has
MOST_ROWS = 256
CHUNK = 1 << 24  # pairs of words counted at once, 128 MB
TINY = 1e-10  # of AdaGrad, against a division by zero


@dataclass(frozen=True, slots=True)
class Counts:
    """X, row by row: cells starts[i] … starts[i + 1] are those of word i. P cells that are not zero."""

    starts: NDArray[np.int64]  # (V + 1,)
    columns: NDArray[np.int32]  # (P,) the other word, rising in each row
    values: NDArray[np.float32]  # (P,)

    def __len__(self) -> int:
        return len(self.columns)


def count(lines: Lines, window: int) -> Counts:
    """A pair of words d apart in a line counts 1/d, in both directions (section 4.2). Windows do not reach out of a line."""
    size = len(lines.words)
    pending: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []  # sorted; each at least twice as long as the next
    for keys, values in _chunks(lines, window):
        pending.append((keys, values))
        while len(pending) > 1 and len(pending[-2][0]) < 2 * len(pending[-1][0]):
            pending.append(_merged(pending.pop(), pending.pop()))
    while len(pending) > 1:
        pending.append(_merged(pending.pop(), pending.pop()))
    keys, values = pending[0] if pending else (np.empty(0, np.int64), np.empty(0))
    low, high = keys // size, keys % size
    values[low == high] *= 2  # a word beside itself stands on either side of it
    apart = low != high
    rows = np.concatenate([low, high[apart]])
    columns = np.concatenate([high, low[apart]])
    order = np.argsort(rows * size + columns)
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=size))])
    return Counts(starts, columns[order].astype(np.int32), np.concatenate([values, values[apart]])[order].astype(np.float32))


def _chunks(lines: Lines, window: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """(keys, values) of a stretch of text after the other; a key is the smaller word · V + the larger, rising."""
    size, length = len(lines.words), max(1, CHUNK // window)
    for begin in range(0, len(lines), length):
        found = []
        for apart in range(1, window + 1):
            ids, line = (row[begin : begin + length + apart].astype(np.int64) for row in (lines.ids, lines.line))
            same = line[:-apart] == line[apart:]
            one, other = ids[:-apart][same], ids[apart:][same]
            pair = np.minimum(one, other) * size + np.maximum(one, other)
            found.append(pair * (window + 1) + apart)  # the distance in the low digits: one sort, without its order
        packed, times = np.unique(np.concatenate(found), return_counts=True)
        if len(packed):
            yield _summed(packed // (window + 1), times / (packed % (window + 1)))


def _merged(
    one: tuple[NDArray[np.int64], NDArray[np.float64]], other: tuple[NDArray[np.int64], NDArray[np.float64]]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    keys, values = np.concatenate([one[0], other[0]]), np.concatenate([one[1], other[1]])
    order = np.argsort(keys, kind="stable")  # quick for two rows that are sorted
    return _summed(keys[order], values[order])


def _summed(keys: NDArray[np.int64], values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Each key once, with the sum of its values."""
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    return keys[first], np.add.reduceat(values, first)


# ── the fit


@dataclass(frozen=True, slots=True)
class Table:
    """Vectors and biases of one side, and what AdaGrad has gathered of their squared gradients."""

    vectors: Tensor  # (V, D)
    bias: Tensor  # (V,)
    vectors_squared: Tensor  # (V, D)
    bias_squared: Tensor  # (V,)


def initial(vocab_size: int, vector_size: int, seed: int) -> tuple[Table, Table]:
    """Vectors and biases uniform in ±1/2D, as in the authors' program."""
    generator = torch.Generator().manual_seed(seed)

    def table() -> Table:
        start = (torch.rand(vocab_size, vector_size + 1, generator=generator) - 0.5) / vector_size
        vectors, bias = start[:, :-1].contiguous(), start[:, -1].contiguous()
        return Table(vectors, bias, torch.zeros_like(vectors), torch.zeros_like(bias))

    return table(), table()


def weight(values: Tensor, x_max: float) -> Tensor:
    """f(X)"""
    return (values / x_max).pow(POWER).clamp(max=1.0)


def plain_loss(
    inner: Tensor, inner_bias: Tensor, outer: Tensor, outer_bias: Tensor, counts: Counts, rows: list[int], x_max: float
) -> Tensor:
    """Half of eq. 8 over some rows of X, one cell after the other; half, so that its gradient is the authors'."""
    loss = torch.zeros((), dtype=inner.dtype)
    for i in rows:
        for cell in range(int(counts.starts[i]), int(counts.starts[i + 1])):
            j, x = int(counts.columns[cell]), float(counts.values[cell])
            error = inner[i] @ outer[j] + inner_bias[i] + outer_bias[j] - np.log(x)
            loss = loss + min(1.0, (x / x_max) ** POWER) * error**2 / 2
    return loss


class Cells:
    """X ready for steps: logarithms and weights of its cells, and room for a few rows of it."""

    def __init__(self, counts: Counts, x_max: float, dtype: torch.dtype = torch.float32) -> None:
        self.starts, self.columns = counts.starts, torch.from_numpy(counts.columns)
        self.size = len(counts.starts) - 1
        values = torch.from_numpy(counts.values).to(dtype)
        self.logarithms, self.weights = values.log(), weight(values, x_max)
        self.rows_a_step = max(1, min(MOST_ROWS, CELLS // self.size))
        self._room = torch.empty(2, self.rows_a_step, self.size, dtype=dtype)

    def rows(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """(log X, f(X)) of R rows, (R, V) each, zero where X is; overwritten by the next call."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        ends = np.cumsum(lengths)
        cells = torch.from_numpy(np.arange(ends[-1]) + np.repeat(self.starts[rows] - ends + lengths, lengths))
        places = torch.from_numpy(np.repeat(np.arange(len(rows)) * self.size, lengths)) + self.columns[cells]
        room = self._room[:, : len(rows)].zero_()
        for here, values in zip(room, (self.logarithms, self.weights), strict=True):
            here.view(-1)[places] = values[cells]
        return room[0], room[1]


def step(inner: Table, outer: Table, cells: Cells, rows: NDArray[np.int64], rate: float) -> float:
    """Moves `inner` in these rows and `outer` everywhere, by AdaGrad (Duchi et al. 2011). Returns half of eq. 8 over the rows."""
    logarithms, weights = cells.rows(rows)  # (R, V)
    mine = torch.from_numpy(rows)
    vectors = inner.vectors[mine]  # (R, D)
    errors = torch.addmm(outer.bias, vectors, outer.vectors.T).add_(inner.bias[mine, None]).sub_(logarithms)  # (R, V)
    weighed = weights.mul_(errors)
    loss = float(torch.dot(weighed.view(-1), errors.view(-1))) / 2
    changes = weighed @ outer.vectors, weighed.sum(1), weighed.T @ vectors, weighed.sum(0)  # (R, D), (R,), (V, D), (V,)
    for value, squared, change in ((inner.vectors, inner.vectors_squared, changes[0]), (inner.bias, inner.bias_squared, changes[1])):
        squared[mine] = gathered = squared[mine].addcmul_(change, change)
        value[mine] -= rate * change / (gathered.sqrt() + TINY)
    for value, squared, change in ((outer.vectors, outer.vectors_squared, changes[2]), (outer.bias, outer.bias_squared, changes[3])):
        squared.addcmul_(change, change)
        value.addcdiv_(change, squared.sqrt().add_(TINY), value=-rate)
    return loss
