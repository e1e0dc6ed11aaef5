"""What a check finds, and what becomes of many findings: one plain value, and one rule for those that overlap.

In: a text. Out: findings in its own places, none overlapping. It changes no text.
"""

from __future__ import annotations

import functools
import re
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tsuzuri.errors import Words
from tsuzuri.folder import find, names
from tsuzuri.guard.normal import Normal, plain

CHECKS = "tsuzuri.guard.checks"
LONGEST = 200  # characters of the original text; what is longer is no personal datum, and a stream need not wait for it


@dataclass(frozen=True, slots=True)
class Finding:
    """`text` is original[start:stop]. `confidence` is how sure the check is, from 0 to 1: a rank, not a probability."""

    kind: str
    start: int
    stop: int
    text: str
    confidence: float


def found(kind: str, seen: Normal, start: int, stop: int, confidence: float) -> Finding:
    """A finding from places in the normalised text."""
    first, last = seen.span(start, stop)
    return Finding(kind, first, last, seen.original[first:last], confidence)


@functools.cache
def personal() -> tuple[str, ...]:
    """The checks that find personal data, by file name."""
    return tuple(name for name in names(CHECKS) if find(CHECKS, name).PERSONAL)


@functools.cache
def label(kind: str) -> Words:
    """What a kind of finding is called; of `content.weapons`, what `content` is called."""
    words = find(CHECKS, kind.partition(".")[0]).LABEL
    assert isinstance(words, Words)
    return words


def look(text: str, kinds: Sequence[str]) -> list[Finding]:
    """What the checks find, in order of place; where findings overlap, the surer one, then the longer, then the earlier stays."""
    seen = plain(text)
    held = {needs: any(need.search(seen.text) for need in needs) for needs in needed(tuple(kinds))}
    return sought(seen, [kind for needs, those in needed(tuple(kinds)).items() if not needs or held[needs] for kind in those])


def sought(seen: Normal, kinds: Iterable[str]) -> list[Finding]:
    """What these checks find, whatever they need; by the rule of `look`."""
    every = [one for kind in kinds for one in _finder(kind)(seen) if one.stop - one.start <= LONGEST]
    return settled(every) if every else every


@functools.cache
def _finder(kind: str) -> Callable[[Normal], Iterator[Finding]]:
    finder: Callable[[Normal], Iterator[Finding]] = find(CHECKS, kind).find
    return finder


@functools.cache
def needed(kinds: tuple[str, ...]) -> Mapping[tuple[re.Pattern[str], ...], tuple[str, ...]]:
    """What the checks need -> the checks that need it."""
    found: dict[tuple[str, ...], list[str]] = {}
    for kind in kinds:
        found.setdefault(find(CHECKS, kind).NEEDS, []).append(kind)
    return {tuple(map(re.compile, needs)): tuple(those) for needs, those in found.items()}


def settled(findings: Iterable[Finding]) -> list[Finding]:
    """None overlapping, in order of place; by the rule of `look`."""
    starts: list[int] = []  # of those kept, sorted: they do not overlap, so only two neighbours matter
    kept: dict[int, Finding] = {}
    for one in sorted(findings, key=lambda f: (-f.confidence, f.start - f.stop, f.start, f.kind)):
        at = bisect_left(starts, one.stop)
        if at == 0 or kept[starts[at - 1]].stop <= one.start:
            insort(starts, one.start)
            kept[one.start] = one
    return [kept[start] for start in starts]
