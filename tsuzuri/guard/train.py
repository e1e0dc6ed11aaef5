"""The weights of the injection score, learned from the templates that are not held out: `python -m tsuzuri.guard.train`.

In: the corpus. Out: `injection.json`, the same bytes every time on one machine. A logistic regression over rules and n-grams; the
threshold lies MARGIN above the score that all but FALSE_ALARMS of harmless texts stay below, each scored by weights that did not see its
template (five folds of groups). It reads no text of a held-out template.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tsuzuri.directory import write_text
from tsuzuri.guard import corpus, rules
from tsuzuri.guard.normal import folded
from tsuzuri.guard.score import FILE, Weights, grams, score, windows

MOST = 9000  # n-grams
SEEN_IN = 3  # templates at least
FALSE_ALARMS, MARGIN = 0.0005, 0.3  # of training texts; in logits above that: new templates bring new words
FOLDS = 5
STEPS, RATE, DECAY = 400, 0.05, 1e-5


def main() -> None:
    """Writes the weights beside this file."""
    examples, labels = training()
    weights = fit(examples, labels)
    threshold = choose(examples, labels)
    record = {
        "card": {
            "what": "logistic regression over rules and character n-grams of folded text; see tsuzuri/guard/score.py",
            "learned_from": {"attacks": sum(labels), "harmless": len(labels) - sum(labels), "templates": len({e.group for e in examples})},
            "corpus": fingerprint(examples),
            "false_alarms_in_training": FALSE_ALARMS,
            "not_for": "a boundary: what a model may do must not depend on this score",
        },
        "bias": round(weights.bias, 4),
        "threshold": round(threshold, 4),
        "rules": dict(weights.rules),
        "ngrams": dict(sorted(weights.ngrams.items())),
    }
    write_text(Path(__file__).parent / FILE, json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")


def training() -> tuple[list[corpus.Example], list[int]]:
    """The texts to learn from, 1 for an attack."""
    attacks = [one for one in corpus.attacks() if not one.held_out]
    harmless = [one for one in corpus.harmless() if not one.held_out]
    return [*attacks, *harmless], [1] * len(attacks) + [0] * len(harmless)


def fingerprint(examples: Sequence[corpus.Example]) -> str:
    """Of the texts to learn from: a change of any of them shows."""
    return hashlib.sha256("\0".join(one.text for one in examples).encode()).hexdigest()[:16]


def choose(examples: Sequence[corpus.Example], labels: Sequence[int]) -> float:
    """The threshold, from scores of texts whose templates the weights did not see."""
    groups = sorted({one.group for one in examples})
    fold = {group: at % FOLDS for at, group in enumerate(np.random.default_rng(1).permutation(groups))}
    found = []
    for part in range(FOLDS):
        inside = [at for at, one in enumerate(examples) if fold[one.group] != part]
        weights = fit([examples[at] for at in inside], [labels[at] for at in inside])
        found += [
            score(one.text, weights).value for one, label in zip(examples, labels, strict=True) if fold[one.group] == part and not label
        ]
    highest = sorted(found)[int(len(found) * (1 - FALSE_ALARMS))]
    return 1 / (1 + math.exp(-math.log(highest / (1 - highest)) - MARGIN))


def fit(examples: Sequence[corpus.Example], labels: Sequence[int]) -> Weights:
    """Logistic regression by Adam over all texts at once, each template counting once, attacks as much as the rest."""
    texts, target, groups = [], [], []
    for one, label in zip(examples, labels, strict=True):
        whole = folded(one.text).text
        for start, stop in windows(whole) if not label else windows(whole)[:1]:
            texts.append(whole[start:stop])
            target.append(label)
            groups.append(one.group)
    vocabulary = _vocabulary(texts, groups)
    names = list(rules.RULES)
    rows, columns, values = _matrix(texts, vocabulary, names)
    y = np.array(target, np.float64)
    size = Counter(groups)
    share = np.array([1 / size[group] for group in groups])
    for label in (0, 1):
        share[y == label] /= share[y == label].sum()
    weight, bias = _descend(rows, columns, values, y, share, len(vocabulary) + len(names))
    thousandths = [round(1000 * float(w)) for w in weight]
    return Weights(
        {gram: thousandths[at] for gram, at in vocabulary.items() if thousandths[at]},
        {name: thousandths[len(vocabulary) + at] for at, name in enumerate(names)},
        bias,
        0.5,
    )


def _vocabulary(texts: Sequence[str], groups: Sequence[str]) -> dict[str, int]:
    """The n-grams that occur in the most templates."""
    where: dict[str, set[str]] = {}
    for text, group in zip(texts, groups, strict=True):
        for gram in grams(text):
            where.setdefault(gram, set()).add(group)
    often = sorted((gram for gram in where if len(where[gram]) >= SEEN_IN), key=lambda gram: (-len(where[gram]), gram))
    return {gram: at for at, gram in enumerate(often[:MOST])}


Matrix = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


def _matrix(texts: Sequence[str], vocabulary: dict[str, int], names: list[str]) -> Matrix:
    """(row, column, value) of what is not zero: what `score.weighed` adds up."""
    rows, columns, values = [], [], []
    for row, text in enumerate(texts):
        every = grams(text)
        for gram in sorted(every):
            if gram in vocabulary:
                rows.append(row)
                columns.append(vocabulary[gram])
                values.append(1 / np.sqrt(len(every)))
        for name in rules.matched(text):
            rows.append(row)
            columns.append(len(vocabulary) + names.index(name))
            values.append(1.0)
    return np.array(rows), np.array(columns), np.array(values)


def _descend(
    rows: NDArray[np.int64], columns: NDArray[np.int64], values: NDArray[np.float64], y: NDArray[np.float64], share: NDArray[np.float64], width: int
) -> tuple[NDArray[np.float64], float]:  # fmt: skip
    weight = np.zeros(width + 1)
    first, second = np.zeros(width + 1), np.zeros(width + 1)
    for step in range(1, STEPS + 1):
        logits = weight[-1] + np.bincount(rows, values * weight[columns], minlength=len(y))
        error = share * (1 / (1 + np.exp(-logits)) - y)
        slope = np.append(np.bincount(columns, values * error[rows], minlength=width) + DECAY * weight[:-1], error.sum())
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        weight -= RATE * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return weight[:-1], float(weight[-1])


if __name__ == "__main__":
    main()
