"""How much of a reference stands in a translation: chrF (Popović 2015) and BLEU (Papineni et al. 2002), with their errors.

In: hypotheses and references. Out: a number of 0 … 100 for the whole set, its 95 % interval, and that of the difference of two systems
on the same sentences. chrF as sacrebleu counts it by default: 1 … 6 characters without spaces, β = 2. BLEU has to know what a word is:
characters where a text is Japanese, else runs of letters and digits and single signs; it compares only with itself.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CHARACTERS, BETA = 6, 2.0  # of chrF
WORDS = 4  # of BLEU
WORD = re.compile(r"[ぁ-んァ-ヶー々〆一-龯]|[^\W_]+|[^\w\s]|_")

Counts = NDArray[np.int64]  # (sentences, counts): sums over sentences are all that a score needs
Metric = Callable[[Counts], float]  # (counts,) summed -> score


@dataclass(frozen=True, slots=True)
class Score:
    score: float
    interval: tuple[float, float]  # 95 %, sentences drawn again with replacement (Efron 1979)


def chrf_counts(hypotheses: Sequence[str], references: Sequence[str]) -> Counts:
    """(sentences, 18): for each length of n-gram those of the hypothesis, of the reference, and in both."""
    rows = []
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        texts = ["".join(text.split()) for text in (hypothesis, reference)]
        rows.append([count for n in range(1, CHARACTERS + 1) for count in _common(*(_grams(text, n) for text in texts))])
    return np.array(rows, np.int64)


def chrf(counts: Counts) -> float:
    """Of summed counts (18,): F of precision and recall, each the mean over the lengths that occur on both sides."""
    grams = counts.reshape(CHARACTERS, 3).astype(np.float64)
    used = grams[(grams[:, 0] > 0) & (grams[:, 1] > 0)]
    if not len(used):
        return 0.0
    precision, recall = float((used[:, 2] / used[:, 0]).mean()), float((used[:, 2] / used[:, 1]).mean())
    if not precision + recall:
        return 0.0
    return 100 * (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)


def bleu_counts(hypotheses: Sequence[str], references: Sequence[str]) -> Counts:
    """(sentences, 10): words of hypothesis and reference, then for each length the n-grams of the hypothesis and those in both."""
    rows = []
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        texts = [WORD.findall(text) for text in (hypothesis, reference)]
        commons = [_common(*(_grams(text, n) for text in texts)) for n in range(1, WORDS + 1)]
        rows.append([len(texts[0]), len(texts[1]), *(count for there, _, both in commons for count in (there, both))])
    return np.array(rows, np.int64)


def bleu(counts: Counts) -> float:
    """Of summed counts (10,): brevity penalty × geometric mean of the precisions, unsmoothed: 0 where a length never matches."""
    hypothesis, reference = (int(count) for count in counts[:2])
    there, both = counts[2::2].astype(np.float64), counts[3::2].astype(np.float64)
    if not hypothesis or not both.all():
        return 0.0
    brevity = min(1.0, math.exp(1 - reference / hypothesis))
    return 100 * brevity * math.exp(float(np.log(both / there).mean()))


def score(metric: Metric, counts: Counts, *, seed: int = 0, resamples: int = 1000) -> Score:
    values = [metric(summed) for summed in _drawn(len(counts), seed, resamples) @ counts]
    return Score(metric(counts.sum(0)), _interval(values))


def difference(metric: Metric, one: Counts, other: Counts, *, seed: int = 0, resamples: int = 1000) -> Score:
    """one − other on the same sentences, drawn together (paired bootstrap, Koehn 2004)."""
    assert len(one) == len(other), "the same sentences"
    draws = _drawn(len(one), seed, resamples)
    values = [metric(a) - metric(b) for a, b in zip(draws @ one, draws @ other, strict=True)]
    return Score(metric(one.sum(0)) - metric(other.sum(0)), _interval(values))


class Nearest:
    """The baseline that looks up: of all pairs it has seen, the target whose source shares most character pairs (Dice)."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self.pairs = pairs
        self._sizes = [len(_pairs(source)) for source, _ in pairs]
        self._where: dict[str, list[int]] = {}
        for number, (source, _) in enumerate(pairs):
            for gram in _pairs(source):
                self._where.setdefault(gram, []).append(number)

    def __call__(self, source: str) -> str:
        own = _pairs(source)
        shared = Counter(number for gram in own for number in self._where.get(gram, ()))
        best = max(shared, key=lambda number: (2 * shared[number] / (len(own) + self._sizes[number]), -number), default=0)
        return self.pairs[best][1]


def _pairs(text: str) -> set[str]:
    return {text[i : i + 2] for i in range(len(text) - 1)}


def _grams(items: Sequence[str], n: int) -> Counter[Sequence[str]]:
    return Counter(items[i : i + n] if isinstance(items, str) else tuple(items[i : i + n]) for i in range(len(items) - n + 1))


def _common(one: Counter[Sequence[str]], other: Counter[Sequence[str]]) -> tuple[int, int, int]:
    """How many here, how many there, how many in both, each counted as often as the rarer side has it."""
    return one.total(), other.total(), (one & other).total()


def _drawn(sentences: int, seed: int, resamples: int) -> Counts:
    return np.random.default_rng(seed).multinomial(sentences, np.full(sentences, 1 / sentences), size=resamples)


def _interval(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
