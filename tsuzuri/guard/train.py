"""The weights of the injection score and of the content check, learned from the templates that are not held out: `python -m tsuzuri.guard.train`.

In: the corpus. Out: `injection.json` and `harm.json`, the same bytes every time on one machine. A logistic regression over rules, classes of words and n-grams; the
threshold is the score that all but FALSE_ALARMS of harmless texts stay below, each scored by weights that did not see its
template (five folds of groups). It reads no text of a held-out template. Besides the corpus it reads half of the repository's `sample/`: harmless
texts by others.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from tsuzuri.directory import write_text
from tsuzuri.guard import corpus, harm, lexicon
from tsuzuri.guard.checks.content import CATEGORIES
from tsuzuri.guard.normal import folded
from tsuzuri.guard.score import FILE, INJECTION, WINDOW, Run, Signs, Weights, runs, weighed

EACH = 4  # fillings of a template
MOST = 30000  # n-grams
SEEN_IN = 3  # templates at least
FALSE_ALARMS = 0.006  # of training texts; of those held out it is about as many
HARM_ALARMS = 0.004  # the same of the content check
OTHERS = "others"  # the kind of texts by others
DOCUMENTS, HARDEST = 150, 8  # of each part of the sample; runs of each
FOLDS = 5
STEPS, HARM_STEPS = 100, 200  # the second has fewer texts of what it is to find
RATE, DECAY = 0.05, 1e-5


def main() -> None:
    """Writes both records beside this file."""
    folder = Path(__file__).parent
    for name, record in ((FILE, of_injection()), (harm.FILE, of_harm())):
        write_text(folder / name, json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")


def of_injection() -> dict[str, Any]:
    """What injection.json holds."""
    examples, labels = training()
    table = learned(examples, labels)
    weights = table.weights(*table.fit(table.everyone()))
    told = card(
        "rules, classes of words and character n-grams of folded text; see tsuzuri/guard/score.py",
        "attacks",
        examples,
        labels,
        FALSE_ALARMS,
    )
    told["not_for"] = "a boundary: what a model may do must not depend on this score"
    return {"card": told, **kept(weights, choose(table, FALSE_ALARMS)), "rules": dict(weights.rules)}


def of_harm() -> dict[str, Any]:
    """What harm.json holds: whether harm is asked for, and of which category."""
    examples, labels = training_of_harm()
    table = learned(examples, labels, harm.SIGNS, HARM_STEPS)
    weights = table.weights(*table.fit(table.everyone()))
    told = card(
        "classes of words and character n-grams of folded text; see tsuzuri/guard/harm.py", "requests", examples, labels, HARM_ALARMS
    )
    categories = {}
    for category in CATEGORIES:
        one = table.weights(*table.fit(table.labels == 1, category))
        categories[category] = {"bias": one.bias, "lexicon": dict(one.lexicon)}
    return {"card": told, **kept(weights, choose(table, HARM_ALARMS)), "categories": categories}


def kept(weights: Weights, threshold: float) -> dict[str, Any]:
    """Weights as a record keeps them."""
    ngrams = dict(sorted(weights.ngrams.items()))
    return {"bias": weights.bias, "threshold": round(threshold, 4), "lexicon": dict(weights.lexicon), "ngrams": ngrams}


def card(features: str, found: str, examples: Sequence[corpus.Example], labels: Sequence[int], false_alarms: float) -> dict[str, Any]:
    """What was learned, and from what."""
    counts = {found: sum(labels), "harmless": len(labels) - sum(labels), "templates": len({e.group for e in examples})}
    return {
        "what": f"logistic regression over {features}",
        "learned_from": counts,
        "corpus": fingerprint(examples),
        "false_alarms_in_training": false_alarms,
    }


def training() -> tuple[list[corpus.Example], list[int]]:
    """The texts that the injection score learns from, 1 for an attack."""
    attacks = [one for one in corpus.attacks(EACH) if not one.held_out]
    harmless = [one for one in corpus.harmless(EACH) if not one.held_out]
    return [*attacks, *harmless], [1] * len(attacks) + [0] * len(harmless)


def training_of_harm() -> tuple[list[corpus.Example], list[int]]:
    """The texts that the content check learns from, 1 for a request for harm: its kind is the category."""
    written = [*corpus.content(EACH), *(one for name in (corpus.HARM, corpus.HARM_2) for one in corpus.asked(name) if not one.held_out)]
    business = [one for one in corpus.harmless(EACH) if not one.held_out]
    examples = [*written, *business]
    return examples, [int(one.kind in CATEGORIES) for one in examples]


def fingerprint(examples: Sequence[corpus.Example]) -> str:
    """Of the texts to learn from: a change of any of them shows."""
    return hashlib.sha256("\0".join(one.text for one in examples).encode()).hexdigest()[:16]


def learned(examples: Sequence[corpus.Example], labels: Sequence[int], signs: Signs = INJECTION, steps: int = STEPS) -> Table:
    """Twice: of texts by others, the runs that the weights of the first time took most for attacks are learned from the second time."""
    rows = list(_runs(examples, labels, signs))
    first = Table(examples, labels, rows, signs, steps)
    weights = first.weights(*first.fit(first.everyone()))
    others = [
        corpus.Example(text, OTHERS, f"{name} {at}")
        for name, texts in sample(learned=True).items()
        for at, text in enumerate(random.Random(2).sample(texts, min(DOCUMENTS, len(texts))))  # noqa: S311  not for secrets
    ]
    for at, one in enumerate(others, start=len(examples)):
        hardest = sorted(runs(folded(one.text).text, signs), key=lambda run: (-weighed(run, weights), run.start, run.stop))[:HARDEST]
        rows += [(at, True, run) for run in hardest]
    return Table([*examples, *others], [*labels, *([0] * len(others))], rows, signs, steps)


def sample(*, learned: bool) -> dict[str, list[str]]:
    """Texts by others, of the repository's `sample/`: the first 1,000 characters of documents, and questions; every other one is learned from."""
    found: dict[str, list[str]] = {}
    for path in sorted((Path(__file__).parents[2] / "sample").glob("*/*.jsonl.zst")):
        if path.parent.name not in ("chat", "pretrain"):
            continue
        with path.open("rb") as file:
            rows = [json.loads(line) for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")]
        name = path.name.partition(".")[0]
        if path.parent.name == "chat":
            texts = [message["content"] for row in rows for message in row["messages"] if message["role"] == "user"]
            found[f"chat {name}"] = texts[0 if learned else 1 :: 2]
        else:
            found[name] = [row["text"][:1000] for row in rows[0 if learned else 1 :: 2]]
    return found


def choose(table: Table, false_alarms: float) -> float:
    """The threshold, from scores of texts whose templates the weights did not see."""
    groups = sorted(set(table.groups))
    fold = {group: at % FOLDS for at, group in enumerate(np.random.default_rng(1).permutation(groups))}
    folds = np.array([fold[group] for group in table.groups])
    highest: dict[int, float] = {}
    for part in range(FOLDS):
        logits = table.logits(*table.fit(folds != part))
        for at in np.flatnonzero((folds == part) & (table.labels == 0) & table.alone):
            highest[table.texts[at]] = max(highest.get(table.texts[at], -30.0), float(logits[at]))
    harmless = len({text for text, label in zip(table.texts, table.labels, strict=True) if not label})
    least = sorted(highest.values(), reverse=True)[int(harmless * false_alarms)]
    return 1 / (1 + math.exp(-least))


class Table:
    """What is learned from: a row for every run of the texts, with what `score.weighed` adds up. Of an attack there is the longest run alone; of
    a harmless text every run, and those in which it stands among others, as in a document."""

    def __init__(
        self,
        examples: Sequence[corpus.Example],
        labels: Sequence[int],
        rows: Sequence[tuple[int, bool, Run]],
        signs: Signs = INJECTION,
        steps: int = STEPS,
    ) -> None:
        self._steps = steps
        self.texts = [text for text, *_ in rows]
        self.groups = [examples[text].group for text in self.texts]
        self.kinds = [examples[text].kind for text in self.texts]
        self.labels = np.array([labels[text] for text in self.texts])
        self.alone = np.array([alone and (not signs.topics or any(name in signs.topics for name in run.words)) for _, alone, run in rows])
        runs = [run for *_, run in rows]
        vocabulary = _vocabulary(runs, self.groups)
        words = dict.fromkeys(name for run in runs for name, _ in lexicon.features(run.words))
        self.names = [*(f"g {gram}" for gram in vocabulary), *(f"r {name}" for name in signs.rules), *(f"l {name}" for name in words)]
        places = {name: at for at, name in enumerate(self.names)}
        width = len(self.names)
        starts: list[int] = []
        columns: list[int] = []
        values: list[float] = []
        for run in runs:
            starts.append(len(columns))
            held = [(place, 1 / math.sqrt(max(run.size, 1))) for one in sorted(run.grams) if (place := places.get(f"g {one}")) is not None]
            held += [(places[f"r {name}"], 1.0) for name in run.rules]
            held += [(places[f"l {name}"], value) for name, value in lexicon.features(run.words)]
            held += [(width, 0.0)]  # so that no row is empty
            columns += [place for place, _ in held]
            values += [value for _, value in held]
        self._starts, self._columns, self._values = np.array(starts), np.array(columns), np.array(values)

    def everyone(self) -> NDArray[np.bool_]:
        return np.ones(len(self.groups), bool)

    def fit(self, chosen: NDArray[np.bool_], kind: str | None = None) -> tuple[NDArray[np.float64], float]:
        """(weights, bias), from the chosen rows: of attacks against harmless texts; or of one kind of attack against the others, by classes of
        words alone."""
        labels = self.labels if kind is None else np.array([one == kind for one in self.kinds], int)
        free = np.array([kind is None or name[0] == "l" for name in self.names] + [True, True])
        size = Counter(group for group, one in zip(self.groups, chosen, strict=True) if one)
        share = np.array([1 / size[group] if one else 0.0 for group, one in zip(self.groups, chosen, strict=True)])
        for label in (0, 1):
            share[labels == label] /= share[labels == label].sum()
        sizes = np.diff(np.append(self._starts, len(self._columns)))
        rows = np.repeat(np.arange(len(sizes)), sizes)
        inside = np.flatnonzero(chosen[rows])
        columns, values, rows = self._columns[inside], self._values[inside], rows[inside]
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        present = rows[starts]
        weight = np.zeros(len(self.names) + 2)  # that of the column of nothing, and the bias, last
        first, second = np.zeros_like(weight), np.zeros_like(weight)
        for step in range(1, self._steps + 1):
            logits = weight[-1] + np.add.reduceat(values * weight[columns], starts)
            error = share[present] * (1 / (1 + np.exp(-logits)) - labels[present])
            slope = np.bincount(columns, values * np.repeat(error, sizes[present]), minlength=len(weight)) + DECAY * weight
            slope[-1] = error.sum()
            slope[~free] = 0
            first = 0.9 * first + 0.1 * slope
            second = 0.999 * second + 0.001 * slope**2
            weight -= RATE * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        return weight[:-1], float(weight[-1])

    def logits(self, weight: NDArray[np.float64], bias: float) -> NDArray[np.float64]:
        """Of every row."""
        found: NDArray[np.float64] = bias + np.add.reduceat(self._values * weight[self._columns], self._starts)
        return found

    def weights(self, weight: NDArray[np.float64], bias: float) -> Weights:
        """In thousandths, as they are kept."""
        kept = [(name, round(1000 * float(one))) for name, one in zip(self.names, weight, strict=False)]
        part = {which: {name[2:]: one for name, one in kept if name[0] == which and one} for which in "grl"}
        return Weights(part["g"], part["r"], part["l"], round(bias, 4), 0.5)


def _runs(examples: Sequence[corpus.Example], labels: Sequence[int], signs: Signs) -> Iterator[tuple[int, bool, Run]]:
    """(number of the example, whether it stands alone, run)."""
    calm = [one.text for one, label in zip(examples, labels, strict=True) if not label]
    for at, (one, label) in enumerate(zip(examples, labels, strict=True)):
        alone = list(runs(folded(one.text).text, signs))
        if label:
            yield at, True, max(alone, key=lambda run: run.stop - run.start)
            continue
        yield from ((at, True, run) for run in alone)
        among = _among(one.text, calm, random.Random(one.text))  # noqa: S311  not for secrets
        yield from ((at, False, run) for run in runs(folded(among).text, signs) if run.stop - run.start > WINDOW // 2)


def _among(text: str, calm: Sequence[str], draw: random.Random) -> str:
    """The text and harmless ones before or behind it, as many as a run holds."""
    parts = [text]
    while sum(map(len, parts)) + len(other := draw.choice(calm)) < WINDOW:
        parts.insert(draw.choice((0, len(parts))), other)
    return "\n".join(parts)


def _vocabulary(every: Sequence[Run], groups: Sequence[str]) -> list[str]:
    """The n-grams that occur in the most templates."""
    where: dict[str, set[str]] = {}
    for run, group in zip(every, groups, strict=True):
        for gram in run.grams:
            where.setdefault(gram, set()).add(group)
    often = sorted((gram for gram in where if len(where[gram]) >= SEEN_IN), key=lambda gram: (-len(where[gram]), gram))
    return often[:MOST]


if __name__ == "__main__":
    main()
