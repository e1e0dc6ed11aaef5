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


def retrieved(scores: Callable[[int, NDArray[np.int64]], Sequence[float]], items: int, among: int = 100) -> Score:
    """The share of items that find their own among `among` of all, itself and those that follow, the first after the last.
    `scores(item, candidates)`: how well each candidate suits. Where several suit best, one of them is drawn: it counts in part."""
    hits = []
    for item in range(items):
        candidates = (item + np.arange(min(among, items))) % items
        found = np.asarray(scores(item, candidates), np.float64)
        hits.append(float(found[0] >= found.max()) / int((found == found.max()).sum()))
    return mean(hits)


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


def linear(train: Sequence[Labelled], texts: Sequence[str], *, epochs: int = 8, batch: int = 32, rate: float = 1.0) -> list[str]:
    """Multinomial logistic regression on which character 1- to 3-grams of at least two examples a text has, by Adagrad (Duchi et al. 2011):
    what counts together is learned together, which naive Bayes counts twice."""
    often = Counter(gram for one in train for gram in {*grams(one.text, 1, 3)})
    number = {gram: place for place, gram in enumerate(sorted(gram for gram, count in often.items() if count > 1))}
    labels = sorted({one.label for one in train})

    def places(text: str) -> NDArray[np.int64]:
        return np.array(sorted({number[gram] for gram in grams(text, 1, 3) if gram in number}), np.int64)

    rows, right = [places(one.text) for one in train], np.array([labels.index(one.label) for one in train])
    weights, squares = (np.zeros((len(number), len(labels))) for _ in range(2))
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(rows))
        for chosen in (order[start : start + batch] for start in range(0, len(order), batch)):
            flat, owner, share = _flat([rows[row] for row in chosen])
            wrong = _softmax(_scores(weights, flat, owner, share))  # (B, labels)
            wrong[np.arange(len(chosen)), right[chosen]] -= 1
            some, which = np.unique(flat, return_inverse=True)
            slopes = np.zeros((len(some), len(labels)))
            np.add.at(slopes, which, (wrong * share[:, None])[owner] / len(chosen))
            squares[some] += slopes**2
            weights[some] -= rate * slopes / np.sqrt(squares[some] + 1e-10)
    said = _scores(weights, *_flat([places(text) for text in texts])).argmax(1)
    return [labels[label] for label in said.tolist()]


def _flat(rows: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """All rows in one, whose each number is, and one over the length of each row."""
    sizes = np.array([len(row) for row in rows])
    return np.concatenate(rows), np.repeat(np.arange(len(rows)), sizes), 1 / np.maximum(sizes, 1)


def _scores(
    weights: NDArray[np.float64], flat: NDArray[np.int64], owner: NDArray[np.int64], share: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(rows, labels): the mean of the weights of what a text has, on a scale on which few steps are enough."""
    found = np.zeros((len(share), weights.shape[1]))
    np.add.at(found, owner, weights[flat])
    return 5 * share[:, None] * found


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(rows, labels) -> the same, each row a probability."""
    raised = np.exp(scores - scores.max(1, keepdims=True))
    found: NDArray[np.float64] = raised / raised.sum(1, keepdims=True)
    return found


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


WHEN, MANY = re.compile("いつ|何(?:年|月|日|世紀|時代)"), re.compile("いく[つら]|ど(?:の|れ)くらい|何[^のをでがはと]")
DATE = r"(?:紀元前)?\d+(?:年|世紀)(?:\([^)]*\))?(?:\d+月)?(?:\d+日)?|\d+月(?:\d+日)?|\d+日"
NUMBER = r"約?[\d,.万億千百]+[一-龯ァ-ヶーa-zA-Z%]{0,3}"
NAME = r"「[^」]+」|『[^』]+』|[ァ-ヶー・]{2,}|[一-龯]{2,}"
NEAR = 15  # characters on either side


def typed(one: Question, length: int) -> str:
    """By the question's word: a date where it asks when, a number where it asks how many, else a name; of all that the question does not
    have itself the one whose neighbourhood shares most with it. Where there is none, `sliding`."""
    wanted, context = {*grams(one.question, 2, 2)}, one.context
    first = [DATE] if WHEN.search(one.question) else [NUMBER] if MANY.search(one.question) else []
    for pattern in (*first, NAME):
        found = [match for match in re.finditer(pattern, context) if match[0] not in one.question]
        if found:
            return max(found, key=lambda m: len(wanted & {*grams(context[max(0, m.start() - NEAR) : m.end() + NEAR], 2, 2)}))[0]
    return sliding(one, length)


class Okapi:
    """BM25 of character n-grams (Robertson & Zaragoza 2009, equation 3.15): rare ones count more, the second time one counts less.
    How rare they are is counted over `documents`."""

    def __init__(self, documents: Sequence[str], longest: int = 1, *, k1: float = 1.2, b: float = 0.75) -> None:
        self.longest, self.k1, self.b, self.documents = longest, k1, b, len(documents)
        self._seen = Counter(gram for text in documents for gram in {*grams(text, 1, longest)})
        self._kept: dict[str, Counter[str]] = {}  # every text is asked of many times
        self._usual = sum(len(grams(text, 1, longest)) for text in documents) / max(1, len(documents))

    def __call__(self, asked: str, texts: Sequence[str]) -> list[float]:
        wanted = Counter(grams(asked, 1, self.longest))
        for text in texts:
            if text not in self._kept:
                self._kept[text] = Counter(grams(text, 1, self.longest))
        return [self._suits(wanted, self._kept[text]) for text in texts]

    def _suits(self, wanted: Counter[str], there: Counter[str]) -> float:
        full = self.k1 * (1 - self.b + self.b * there.total() / self._usual)
        return sum(
            times * self._rare(gram) * there[gram] * (self.k1 + 1) / (there[gram] + full) for gram, times in wanted.items() if gram in there
        )

    def _rare(self, gram: str) -> float:
        return math.log(1 + (self.documents - self._seen[gram] + 0.5) / (self._seen[gram] + 0.5))


def rarity(texts: Sequence[str], length: int = 1) -> Callable[[str], float]:
    """The weight of a character n-gram: ln of texts over texts that have it (Spärck Jones 1972)."""
    seen = Counter(gram for text in texts for gram in {*grams(text, length, length)})
    return lambda gram: math.log((len(texts) + 1) / (seen[gram] + 0.5))


def cosine(one: Pair, length: int, weight: Callable[[str], float] | None = None) -> float:
    """Of the counts of character n-grams of that length, each times its weight."""
    a, b = (
        {gram: count * (weight(gram) if weight else 1) for gram, count in Counter(grams(text, length, length)).items()}
        for text in (one.one, one.other)
    )
    norm = math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))
    return sum(a[gram] * b[gram] for gram in a.keys() & b.keys()) / norm if norm else 0.0
