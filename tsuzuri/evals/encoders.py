"""How well an encoder does its task, with its error, and what simple things without a network do on the same.

In: what was right and what was said, item by item. Out: numbers with 95 % intervals (bootstrap over items, Efron 1979), and
the rivals: what stands between two tokens, the commonest label, naive Bayes of character n-grams, a dictionary, the sentence that shares most with the
question, cosine of characters and of pairs of them.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsuzuri.text.examples import Labelled, Pair, Question, Tagged
from tsuzuri.text.spans import Span


@dataclass(frozen=True, slots=True)
class Score:
    value: float
    interval: tuple[float, float]  # 95 %
    items: int


def interval(statistic: Callable[[NDArray[np.int64]], float], items: int, *, seed: int = 0, resamples: int = 1000) -> Score:
    """`statistic` of the items whose numbers it is given, over all of them and over resamples."""
    random = np.random.default_rng(seed)
    values = [statistic(random.integers(items, size=items)) for _ in range(resamples)]
    low, high = np.quantile(values, [0.025, 0.975])
    return Score(float(statistic(np.arange(items))), (float(low), float(high)), items)


def mean(values: Sequence[float]) -> Score:
    each = np.asarray(values, np.float64)
    return interval(lambda drawn: float(each[drawn].mean()), len(each))


def guessed(right: NDArray[np.int64], said: NDArray[np.int64]) -> Score:
    """(B, T) each -> the share of the hidden tokens (`right` at least 0) that was said; rows are drawn, not tokens."""
    counts = np.stack([((right == said) & (right >= 0)).sum(1), (right >= 0).sum(1)], 1)

    def share(drawn: NDArray[np.int64]) -> float:
        found, hidden = counts[drawn].sum(0)
        return float(found / max(1, hidden))

    rows = interval(share, len(counts))
    return Score(rows.value, rows.interval, int(counts[:, 1].sum()))


def entity_f1(right: Sequence[Sequence[Span]], said: Sequence[Sequence[Span]]) -> Score:
    """F1 of stretches: start, end and label all the same (Tjong Kim Sang & De Meulder 2003)."""
    counts = np.array([(len({*one} & {*other}), len(one), len(other)) for one, other in zip(right, said, strict=True)])

    def f1(drawn: NDArray[np.int64]) -> float:
        both, there, found = counts[drawn].sum(0)
        return float(2 * both / max(1, there + found))

    return interval(f1, len(counts))


def character_f1(right: str | None, said: str | None) -> float:
    """Of one answer, by characters; of no answer, whether that was said (Rajpurkar et al. 2018)."""
    if right is None or said is None:
        return float(right == said)
    both = sum((Counter(right) & Counter(said)).values())
    return 2 * both / (len(right) + len(said))


def spearman(right: Sequence[float], said: Sequence[float]) -> Score:
    """Correlation of the ranks; ties share the mean of theirs."""
    one, other = np.asarray(right, np.float64), np.asarray(said, np.float64)
    return interval(lambda drawn: _correlation(_ranks(one[drawn]), _ranks(other[drawn])), len(one), resamples=400)


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """0 where one of them does not vary."""
    one, other = one - one.mean(), other - other.mean()
    return float((one * other).sum() / max(1e-12, math.sqrt((one**2).sum() * (other**2).sum())))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks


# ── rivals


class Neighbours:
    """What stands most often between two tokens; where they were never seen so, after the left one; else the commonest token."""

    def __init__(self, documents: Sequence[NDArray[np.integer[Any]]], vocab_size: int) -> None:
        self.vocab_size = vocab_size
        each = [np.asarray(ids, np.int64) for ids in documents if len(ids) > 2]
        self._left, self._token, self._right = (np.concatenate([ids[n : len(ids) - 2 + n] for ids in each]) for n in range(3))
        self.commonest = int(np.bincount(self._token).argmax())

    def __call__(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """(B, T) -> (B, T): a guess at every place, from the tokens on both sides of it."""
        left, right = np.roll(tokens, 1, 1), np.roll(tokens, -1, 1)
        after = self._table(self._left, left, np.full(tokens.shape, self.commonest))
        return self._table(self._left * self.vocab_size + self._right, left * self.vocab_size + right, after)

    def _table(self, seen: NDArray[np.int64], asked: NDArray[np.int64], otherwise: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each key that is asked for the token that was seen with it most often."""
        needed = np.isin(seen, asked)
        pairs, counts = np.unique(seen[needed] * self.vocab_size + self._token[needed], return_counts=True)
        order = np.argsort(counts, kind="stable")
        best = dict(zip((pairs[order] // self.vocab_size).tolist(), (pairs[order] % self.vocab_size).tolist(), strict=True))
        found = [best.get(key, other) for key, other in zip(asked.flatten().tolist(), otherwise.flatten().tolist(), strict=True)]
        return np.array(found, np.int64).reshape(asked.shape)


def majority(train: Sequence[Labelled], texts: Sequence[str]) -> list[str]:
    return [Counter(one.label for one in train).most_common(1)[0][0]] * len(texts)


def naive_bayes(train: Sequence[Labelled], texts: Sequence[str]) -> list[str]:
    """Character 1- to 3-grams, multinomial, add-half (McCallum & Nigam 1998)."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    classes = Counter(one.label for one in train)
    for one in train:
        counts[one.label].update(grams(one.text, 1, 3))
    known = {gram for count in counts.values() for gram in count}
    totals = {label: sum(count.values()) + 0.5 * len(known) for label, count in counts.items()}

    def best(text: str) -> str:
        some = [gram for gram in grams(text, 1, 3) if gram in known]
        return max(
            classes,
            key=lambda label: math.log(classes[label]) + sum(math.log((counts[label][gram] + 0.5) / totals[label]) for gram in some),
        )

    return [best(text) for text in texts]


def grams(text: str, low: int, high: int) -> list[str]:
    return [text[i : i + n] for n in range(low, high + 1) for i in range(len(text) - n + 1)]


def dictionary(train: Sequence[Tagged], texts: Sequence[str]) -> list[list[Span]]:
    """Every stretch that was seen in training, the longest first."""
    known: dict[str, Counter[str]] = defaultdict(Counter)
    for one in train:
        for span in one.spans:
            known[one.text[span.start : span.stop]][span.label] += 1
    pattern = re.compile("|".join(re.escape(name) for name in sorted(known, key=len, reverse=True)) or r"(?!)")
    return [[Span(m.start(), m.end(), known[m[0]].most_common(1)[0][0]) for m in pattern.finditer(text)] for text in texts]


def overlap(one: Question) -> str:
    """The sentence that shares most character bigrams with the question, for its length."""
    wanted = {*grams(one.question, 2, 2)}
    sentences = [part for part in re.split(r"(?<=[。！？\n])", one.context) if part.strip()]
    return max(sentences, key=lambda part: len(wanted & {*grams(part, 2, 2)}) / math.sqrt(len(part))).strip()


def sliding(one: Question, length: int) -> str:
    """The stretch of that many characters, not in the question itself, whose neighbourhood shares most with the question."""
    wanted, context = {*grams(one.question, 2, 2)}, one.context

    def near(start: int) -> float:
        around = context[max(0, start - 3 * length) : start + 4 * length]
        own = context[start : start + length]
        return len(wanted & {*grams(around, 2, 2)}) - 2 * len(wanted & {*grams(own, 2, 2)})

    start = max(range(max(1, len(context) - length + 1)), key=near)
    return context[start : start + length]


def cosine(one: Pair, length: int) -> float:
    """Of the counts of character n-grams of that length."""
    a, b = Counter(grams(one.one, length, length)), Counter(grams(one.other, length, length))
    norm = math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))
    return sum(a[gram] * b[gram] for gram in a) / norm if norm else 0.0
