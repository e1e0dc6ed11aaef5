"""Word2Vec with negative samples: a word is known by the words around it (Mikolov et al. 2013a, 2013b).

In: `Lines`. Out: batches, and steps that move two tables of vectors: `inner` (V, D), which is the result, and `outer` (V, D).
Skip-gram, for a word w and a word o in its window, with K words n drawn at random (2013b, eq. 4):

    loss = -log σ(inner[w] · outer[o]) - Σ_n log σ(-inner[w] · outer[n])

CBOW turns it round: the mean of inner[o] over the window takes the place of inner[w], and w that of o.
`plain_step` is the lesson: one pair after the other. `step` is the product: a stretch of L words and all that stands around
it are two small matrices whose product holds the scores of every pair, so no pair is ever looked up by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tsuzuri.train.vectors.lines import Lines

Method: TypeAlias = Literal["skip-gram", "cbow"]

STRETCH = 32  # L, words of a stretch
DRAWN = 16  # M, random words of a stretch, shared by its pairs (Ji et al. 2016); each stands for as many as it should be
MOST_ROWS = 32  # B, stretches a step: all their pairs are computed with the vectors from before the step, so where there
WORDS_A_ROW = 256  # are few different words, and each is in many pairs, there are fewer stretches
POWER = 0.75  # of a word's count: how often it is drawn (2013b, section 2.2)


@dataclass(frozen=True, slots=True)
class Batch:
    """B stretches of L words from anywhere in the text, and the C words around each of them (C = L + 2 · window)."""

    centres: Tensor  # (B, L) int64
    around: Tensor  # (B, C) int64: the stretch itself with `window` words on either side
    left: Tensor  # (B, L) int8: how many words to its left are in the window of this one
    right: Tensor  # (B, L) int8: and to its right
    drawn: Tensor  # (B, M) int64: the random words of this stretch

    @property
    def window(self) -> int:
        return (self.around.shape[1] - self.centres.shape[1]) // 2


def initial(vocab_size: int, vector_size: int, seed: int) -> tuple[Tensor, Tensor]:
    """inner: uniform in ±1/2D; outer: zero, as in Mikolov's program. (V, D) each."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(vocab_size, vector_size, generator=generator) - 0.5) / vector_size, torch.zeros(vocab_size, vector_size)


class Epoch:
    """One reading of the text: words thinned out, windows and random words drawn anew, the stretches in a new order."""

    def __init__(self, lines: Lines, window: int, sample: float, random: np.random.Generator) -> None:
        ids, line = lines.thinned(sample, random)
        rows = math.ceil(len(ids) / STRETCH)
        spare = rows * STRETCH - len(ids)  # the last stretch is filled up with words that see nothing and are not seen
        reach = random.integers(1, window + 1, len(ids))  # the dynamic window: near words are in more of them
        left, right = _reach(line, reach)
        self.random = random
        self.rows = max(1, min(MOST_ROWS, len(lines.words) // WORDS_A_ROW))
        self.centres = torch.from_numpy(np.pad(ids.astype(np.int64), (0, spare))).view(rows, STRETCH)
        self.left, self.right = (torch.from_numpy(np.pad(side.astype(np.int8), (0, spare))).view(rows, STRETCH) for side in (left, right))
        self.around = torch.from_numpy(np.pad(ids.astype(np.int64), (window, window + spare))).unfold(0, STRETCH + 2 * window, STRETCH)
        share = np.cumsum(lines.counts.astype(np.float64) ** POWER)
        self.share = share / share[-1]  # (V,) where each word ends on a line from 0 to 1
        self.order = torch.from_numpy(random.permutation(rows))

    def __len__(self) -> int:
        """The number of batches."""
        return math.ceil(len(self.order) / self.rows)

    def __iter__(self) -> Iterator[Batch]:
        for rows in torch.split(self.order, self.rows):
            drawn = np.searchsorted(self.share, self.random.random((len(rows), DRAWN)), side="right")
            yield Batch(self.centres[rows], self.around[rows], self.left[rows], self.right[rows], torch.from_numpy(drawn))


def _reach(line: NDArray[np.int32], reach: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many words each sees to its left and right: as far as its window goes, and not out of its line. (N,) each."""
    place = np.arange(len(line))
    begin = np.searchsorted(line, line, side="left")
    end = np.searchsorted(line, line, side="right")
    return np.minimum(reach, place - begin), np.minimum(reach, end - 1 - place)


# ── the plain twin


def plain_step(method: Method, inner: NDArray[np.float64], outer: NDArray[np.float64], batch: Batch, negative: float, rate: float) -> float:
    """Moves both tables (V, D) by the gradient of every pair of a batch, one pair after the other. Returns the loss a pair."""
    pairs, loss = 0, 0.0
    change_inner, change_outer = np.zeros_like(inner), np.zeros_like(outer)
    for sources, target, drawn in examples(method, batch):
        vector = inner[sources].mean(0)  # (D,) of one word in skip-gram
        gradient = np.zeros_like(vector)
        for word, label, weight in [(target, 1, 1.0), *((n, 0, negative / len(drawn)) for n in drawn)]:
            probability = 1 / (1 + np.exp(-vector @ outer[word]))
            loss -= weight * np.log(probability if label else 1 - probability)
            gradient += weight * (probability - label) * outer[word]
            change_outer[word] += weight * (probability - label) * vector
        for source in sources:
            change_inner[source] += gradient / len(sources)
        pairs += 1
    inner -= rate * change_inner
    outer -= rate * change_outer
    return loss / max(1, pairs)


def examples(method: Method, batch: Batch) -> Iterator[tuple[list[int], int, list[int]]]:
    """(words whose mean is asked, the word that should be answered, random words that should not) of every pair."""
    for row in range(len(batch.centres)):
        drawn = batch.drawn[row].tolist()
        for place, word in enumerate(batch.centres[row].tolist()):
            here = place + batch.window
            first, last = here - int(batch.left[row, place]), here + int(batch.right[row, place])
            context = [int(batch.around[row, other]) for other in range(first, last + 1) if other != here]
            if method == "skip-gram":
                yield from (([word], other, drawn) for other in context)
            elif context:
                yield context, word, drawn


# ── the fast path


def step(method: Method, inner: Tensor, outer: Tensor, batch: Batch, negative: float, rate: float, *, measure: bool = False) -> float:
    """`plain_step` for all pairs at once. Returns the loss a pair where it is to be measured, else NaN."""
    return (_skip_gram if method == "skip-gram" else _cbow)(inner, outer, batch, negative, rate, measure)


def _skip_gram(inner: Tensor, outer: Tensor, batch: Batch, negative: float, rate: float, measure: bool) -> float:
    seen = visible(batch, inner.dtype)  # (B, L, C)
    size = seen.shape[2]
    weights = (batch.left + batch.right).to(inner.dtype) * (negative / batch.drawn.shape[1])  # (B, L)
    targets = torch.cat([batch.around, batch.drawn], dim=1)  # (B, C + M)
    x, y = F.embedding(batch.centres, inner), F.embedding(targets, outer)  # (B, L, D), (B, C + M, D)
    scores = x @ y.transpose(1, 2)  # (B, L, C + M)
    loss = math.nan
    if measure:
        loss = -float((F.logsigmoid(scores[..., :size]) * seen).sum() + (F.logsigmoid(-scores[..., size:]) * weights[..., None]).sum())
        loss /= max(1.0, float(seen.sum()))
    errors = scores.sigmoid_()  # probability - label, each as often as it counts
    errors[..., :size].sub_(1).mul_(seen)
    errors[..., size:].mul_(weights[..., None])
    errors.mul_(-rate)
    _add(inner, batch.centres, errors @ y)
    _add(outer, targets, errors.transpose(1, 2) @ x)
    return loss


def _cbow(inner: Tensor, outer: Tensor, batch: Batch, negative: float, rate: float, measure: bool) -> float:
    """The gradient of a mean is divided by as many as there are, as calculus says (İrsoy et al. 2021); Mikolov's program did not."""
    count = (batch.left + batch.right).to(inner.dtype)  # (B, L)
    seen = visible(batch, inner.dtype) / count.clamp(min=1)[..., None]  # (B, L, C)
    asked = (count > 0).to(inner.dtype)  # (B, L): a word alone in its line asks nothing
    weights = asked * (negative / batch.drawn.shape[1])
    x = F.embedding(batch.around, inner)  # (B, C, D)
    mean = seen @ x  # (B, L, D)
    y, z = F.embedding(batch.centres, outer), F.embedding(batch.drawn, outer)  # (B, L, D), (B, M, D)
    own = (mean * y).sum(-1)  # (B, L)
    others = mean @ z.transpose(1, 2)  # (B, L, M)
    loss = math.nan
    if measure:
        loss = -float((F.logsigmoid(own) * asked).sum() + (F.logsigmoid(-others) * weights[..., None]).sum())
        loss /= max(1.0, float(asked.sum()))
    own = own.sigmoid_().sub_(1).mul_(asked).mul_(-rate)[..., None]
    others = others.sigmoid_().mul_(weights[..., None]).mul_(-rate)
    change = own * y + others @ z  # (B, L, D)
    _add(inner, batch.around, seen.transpose(1, 2) @ change)
    _add(outer, batch.centres, own * mean)
    _add(outer, batch.drawn, others.transpose(1, 2) @ mean)
    return loss


def visible(batch: Batch, dtype: torch.dtype) -> Tensor:
    """1 where the word at C is in the window of the word at L, else 0: (B, L, C)."""
    length, around = batch.centres.shape[1], batch.around.shape[1]
    apart = (torch.arange(around) - torch.arange(length)[:, None] - batch.window).clamp(-128, 127)  # (L, C)
    apart[apart == 0] = 127  # a word is not in its own window
    apart = apart.to(torch.int8)
    return ((apart >= -batch.left[..., None]) & (apart <= batch.right[..., None])).to(dtype)


def _add(table: Tensor, words: Tensor, change: Tensor) -> None:
    """table[w] += the sum of the changes of w."""
    table.index_add_(0, words.flatten(), change.flatten(0, 1))
