"""Whether what is asked and answered is still as it used to be: a window of requests against a baseline, one quantity after another.

In: a few numbers and words of each request (lengths, languages, outcomes, what the guard found, time to the first event), never its text.
Out: the population stability index of each quantity, PSI = Σ (p - q) ln(p / q) over bins, and whether that is more than chance: without any change
PSI is close to (1/n + 1/m) χ² with B - 1 degrees of freedom (Yurdakul and Naranjo, 2020). A drift is called one only where it is both: large
(`over`, by custom 0.25) and, for all quantities together, one that chance brings in at most one window of a thousand. Each window is looked at once,
when it is full: so that is the rate of false alarms. A window that is not full is compared with nothing, and nothing is said of it.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, TypeAlias

from tsuzuri.directory import write_text
from tsuzuri.errors import FormatError, Words

Value: TypeAlias = float | str
Seen: TypeAlias = Mapping[str, Value]  # of one request, by quantity
ALPHA = 0.001  # of a window, for all quantities together
BINS = 10
FEWEST = 5  # of a baseline in a bin: what is rarer counts as "other"
SAMPLE = 2000  # characters that a language is told by
VERSION = 1
SCRIPTS = {"ja": r"[ぁ-ゖァ-ヺー]", "ko": r"[가-힣]", "han": r"[\u4e00-\u9fff]", "latin": r"[A-Za-z]"}


@dataclass(frozen=True, slots=True)
class Finding:
    """Of one quantity. `chance`: the index that chance alone does not pass (see ALPHA)."""

    quantity: str
    psi: float
    chance: float
    drifted: bool


@dataclass(frozen=True, slots=True)
class Bins:
    """How values of one quantity are counted: those that are frequent each by itself, other numbers between `edges`, the rest as "other"."""

    alone: tuple[Value, ...]
    edges: tuple[float, ...]
    counts: Mapping[str, int]

    def bin(self, value: Value) -> str:
        if value in self.alone:
            return f"={value}"
        return "other" if isinstance(value, str) else f"#{bisect_right(self.edges, value)}"

    def counted(self, values: Sequence[Value]) -> Counter[str]:
        return Counter(self.bin(value) for value in values)


def bins(values: Sequence[Value]) -> Bins:
    """Of a baseline: a value that a tenth of all have stands alone, words that a few have too, other numbers are cut at their quantiles."""
    counts = Counter(values)
    alone = [value for value, count in counts.items() if count >= (FEWEST if isinstance(value, str) else len(values) / BINS)]
    rest = sorted(value for value in values if not isinstance(value, str) and value not in alone)
    parts = min(BINS, len(rest) // FEWEST)
    edges = sorted({rest[len(rest) * part // parts] for part in range(1, parts)}) if parts > 1 else []
    made = Bins(tuple(alone), tuple(edges), {})
    return Bins(made.alone, made.edges, made.counted(values))


def compare(quantity: str, base: Bins, values: Sequence[Value], over: float, quantities: int = 1) -> Finding:
    """`values` of a window against a baseline; `quantities` are looked at together."""
    now = base.counted(values)
    names = sorted({*base.counts, *now})
    n, m = sum(base.counts.values()), len(values)
    if len(names) < 2:
        return Finding(quantity, 0.0, 0.0, False)
    psi = 0.0
    for name in names:
        p = (base.counts.get(name, 0) + 0.5) / (
            n + 0.5 * len(names)
        )  # so that a bin that one of them lacks is a large number, not infinity
        q = (now.get(name, 0) + 0.5) / (m + 0.5 * len(names))
        psi += (p - q) * math.log(p / q)
    chance = (1 / n + 1 / m) * chi_squared(len(names) - 1, ALPHA / quantities)
    return Finding(quantity, psi, chance, psi > max(over, chance))


def chi_squared(freedom: int, alpha: float) -> float:
    """What χ² of so many degrees passes with probability `alpha` (Wilson and Hilferty, 1931: at 1 and 2 degrees up to 4 % too much)."""
    part = 2 / (9 * freedom)
    return freedom * float(1 - part + NormalDist().inv_cdf(1 - alpha) * math.sqrt(part)) ** 3


def language(text: str) -> str:
    """By its script alone: ja, ko, han (no kana), latin, other, or none."""
    text = text[:SAMPLE]
    found = {name: len(re.findall(pattern, text)) for name, pattern in SCRIPTS.items()}
    letters = sum(char.isalpha() for char in text)
    if not letters:
        return "none"
    if found["ja"] * 10 >= letters:  # kana stand beside much else
        return "ja"
    name = max(found, key=lambda one: found[one])
    return name if found[name] * 2 >= letters else "other"


class Drift:
    """Windows of `window` requests. Raises FormatError for a baseline that cannot be read."""

    def __init__(self, path: Path, window: int, over: float) -> None:
        self._path, self._window, self._over = path, window, over
        self._now: list[Seen] = []
        self.baseline = read(path) if path.exists() else None
        self.findings: tuple[Finding, ...] = ()  # of the last window that was full

    def add(self, seen: Seen) -> bool:
        """Whether a window is full with it."""
        self._now.append(seen)
        return len(self._now) >= self._window

    def look(self) -> bool:
        """Compares the window, and begins a new one; where there is no baseline it becomes that: False. Raises OSError."""
        window, self._now = self._now, []
        values = {name: [one[name] for one in window] for name in window[0]}
        if self.baseline is None:
            self.baseline = {name: bins(each) for name, each in values.items()}
            write(self._path, self.baseline)
            return False
        both = [name for name in values if name in self.baseline]
        self.findings = tuple(compare(name, self.baseline[name], values[name], self._over, len(both)) for name in both)
        return True


def write(path: Path, baseline: Mapping[str, Bins]) -> None:
    """Counts alone, no request."""
    made = {name: {"alone": each.alone, "edges": each.edges, "counts": each.counts} for name, each in baseline.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"version": VERSION, "quantities": made}, ensure_ascii=False, indent=1))


def read(path: Path) -> dict[str, Bins]:
    """Raises FormatError."""
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
        if value["version"] != VERSION:
            raise ValueError
        found = {str(name): _bins(each) for name, each in value["quantities"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(
            Words(f"比べるための基準 {path} を読もうとしました。", f"Reading the baseline {path}."),
            found=Words("このプログラムが書いた基準ではありません。", "It is no baseline that this program wrote."),
            todo=Words("消せば、次の窓が新しい基準になります。", "Delete it, and the next window becomes the new one."),
        ) from error
    return found


def _bins(value: Any) -> Bins:
    alone, edges, counts = tuple(value["alone"]), tuple(map(float, value["edges"])), value["counts"]
    good = all(isinstance(one, str | int | float) for one in alone) and list(edges) == sorted(edges)
    if not good or not counts or not all(isinstance(one, int) and one >= 0 for one in counts.values()):
        raise ValueError
    return Bins(alone, edges, dict(counts))
