"""How much a text looks like an injection: rules, classes of words and n-grams, weighed together, between 0 and 1, with reasons.

In: a text. Out: `Score`. Every sentence is read alone and with the one or two behind it, so that none is lost in a long document; what
is written in Base64, hexadecimal, percent-encoding or ROT13 is read as well. The weights come from `train.py`. It refuses nothing:
people who know it will get past it, and what a tool may do must not depend on it.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import functools
import json
import math
import re
import urllib.parse
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from operator import add

from tsuzuri.errors import Words
from tsuzuri.guard import lexicon, rules
from tsuzuri.guard.normal import Normal, fold, plain

WINDOW = 160  # folded characters of a run of sentences; longer than nearly every attack, shorter than a document
SENTENCES = 3  # in a run
_ENDS = re.compile(r"[。！？!?\n]+|\.\s")
FILE = "injection.json"


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """`ngrams`, `rules` and `lexicon` in thousandths; `threshold` is the one that all but a few harmless texts stay below (see `train.py`)."""

    ngrams: Mapping[str, int]
    rules: Mapping[str, int]
    lexicon: Mapping[str, int]
    bias: float
    threshold: float


@dataclass(frozen=True, slots=True)
class Signs:
    """What is looked for besides n-grams: rules and classes of words, by name, each with a way to find where they stand in a folded text. Where
    there are `topics`, only a run with a word of one of these classes is anything at all."""

    rules: tuple[str, ...]
    rule_places: Callable[[str], Iterable[tuple[str, Sequence[tuple[int, int]]]]]
    lexicon: lexicon.Lexicon
    topics: tuple[str, ...] = ()


INJECTION = Signs(tuple(rules.RULES), rules.places, lexicon.INJECTION)


@dataclass(frozen=True, slots=True)
class Score:
    """The highest run's value, where it stands in the original, what spoke for it, and how it was written if not plainly."""

    value: float
    start: int
    stop: int
    rules: tuple[str, ...]
    text: str  # folded
    written: str = "plain"

    def reasons(self, weights: Weights | None = None) -> list[str]:
        """In the reader's language."""
        told = [str(rules.RULES[name].called) for name in self.rules]
        if self.written != "plain":
            told.append(str(Words(f"{self.written} で書かれている", f"it is written in {self.written}")))
        grams = heaviest(self.text, weights or load())
        if grams:
            told.append(str(Words(f"攻撃によくある文字の並び：{'、'.join(grams)}", f"sequences usual in attacks: {', '.join(grams)}")))
        return told


def score(text: str, weights: Weights | None = None) -> Score:
    """Of a whole text. `weights` are those of the package unless given."""
    return max(scores(plain(text), weights or load()), key=lambda one: one.value, default=Score(0.0, 0, len(text), (), ""))


def scores(seen: Normal, weights: Weights) -> Iterator[Score]:
    """Of every run, and of what is written in another way, each in places of the original."""
    folded = fold(seen)
    for value, start, stop, held in values(folded.text, weights, INJECTION):
        yield Score(value, *folded.span(start, stop), _named(INJECTION.rules, held), folded.text[start:stop])
    for written, first, last, hidden in _hidden(seen):
        inside = fold(plain(hidden)).text
        for value, start, stop, held in values(inside, weights, INJECTION):
            yield Score(value, *seen.span(first, last), _named(INJECTION.rules, held), inside[start:stop], written)


def values(text: str, weights: Weights, signs: Signs) -> Iterator[tuple[float, int, int, int]]:
    """(how much it looks like what the weights were learned for, start, stop, its rules: a bit for each) of every run of a folded text that has a topic. What
    `weighed` says of each of `runs`, but an n-gram that goes on in the next run is not added up again."""
    cut, known = sentences(text), weights.ngrams
    every = [grams(text[start:stop]) for start, stop in cut]
    ruled, words, names = _ruled(text, cut, signs), signs.lexicon.classes(text, cut, every), signs.lexicon.names
    sizes = [*map(len, every)]
    kept = [one & known.keys() for one in every]
    sums = [sum(map(known.__getitem__, one)) for one in kept]
    topics = sum(1 << bit for bit, name in enumerate(names) if name in signs.topics)
    for first, (start, _) in enumerate(cut):
        together, total, size, classes = kept[first], sums[first], 0, 0
        for last in range(first, min(first + SENTENCES, len(cut))):
            stop = cut[last][1]
            if last > first:
                if stop - start > WINDOW:
                    break
                new = kept[last] - together
                total += sum(map(known.__getitem__, new))
                together = together | new
            size, classes, held = size + sizes[last], classes | words[last], ruled.get((first, last), 0)
            if topics and not classes & topics:
                continue
            told = _told(weights, signs.rules, held, names, classes)
            yield _squeezed(weights.bias + (total / math.sqrt(size or 1) + told) / 1000), start, stop, held


@functools.lru_cache(1 << 14)
def _told(weights: Weights, rules: tuple[str, ...], held: int, words: tuple[str, ...], classes: int) -> float:
    """What rules and classes add, in thousandths."""
    alone, twos = _classed(weights, words)
    at = [bit for bit in range(classes.bit_length()) if classes >> bit & 1]
    added = sum([alone[bit] for bit in at])
    for first, bit in enumerate(at, start=1):
        row = twos[bit]
        added += sum([row[other] for other in at[first:]])
    return added + sum([weights.rules.get(name, 0) for name in _named(rules, held)])


@functools.lru_cache(8)
def _classed(weights: Weights, words: tuple[str, ...]) -> tuple[list[float], list[list[float]]]:
    """What each class adds alone, and each two of them besides."""
    told = weights.lexicon.get
    alone = [float(told(word, 0)) for word in words]
    return alone, [[lexicon.TWOS * told(f"{word}+{other}", 0) for other in words] for word in words]


def _squeezed(logit: float) -> float:
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, logit))))


@dataclass(frozen=True, slots=True)
class Run:
    """Sentences one behind the other, as places of a folded text, and what is in them: what is learned from, and what is weighed. `size`: the
    different n-grams of each sentence, added up."""

    start: int
    stop: int
    size: int
    grams: frozenset[str]
    rules: tuple[str, ...]
    words: tuple[str, ...]  # classes of the lexicon


def runs(text: str, signs: Signs = INJECTION) -> Iterator[Run]:
    """Every sentence of a folded text alone, and with those behind it as far as SENTENCES and WINDOW allow."""
    cut = sentences(text)
    every = [grams(text[start:stop]) for start, stop in cut]
    ruled, words = _ruled(text, cut, signs), signs.lexicon.classes(text, cut, every)
    for first, (start, _) in enumerate(cut):
        for last in range(first, min(first + SENTENCES, len(cut))):
            stop = cut[last][1]
            if last > first and stop - start > WINDOW:
                break
            together, classes = every[first : last + 1], 0
            for bits in words[first : last + 1]:
                classes |= bits
            held = _named(signs.rules, ruled.get((first, last), 0))
            yield Run(start, stop, sum(map(len, together)), frozenset().union(*together), held, _named(signs.lexicon.names, classes))


def _ruled(text: str, cut: Sequence[tuple[int, int]], signs: Signs) -> dict[tuple[int, int], int]:
    """(first, last sentence of a run) -> the rules that hold inside: a bit for each."""
    starts, stops = [start for start, _ in cut], [stop for _, stop in cut]
    held: dict[tuple[int, int], int] = {}
    for bit, (_, spans) in enumerate(signs.rule_places(text)):
        for start, stop in spans:
            latest, earliest = bisect_right(starts, start) - 1, bisect_left(stops, stop)  # a run holds it that begins and ends so
            for first in range(max(earliest - SENTENCES + 1, 0), latest + 1):
                for last in range(max(first, earliest), first + SENTENCES):
                    held[first, last] = held.get((first, last), 0) | 1 << bit
    return held


@functools.lru_cache(4096)
def _named(names: tuple[str, ...], bits: int) -> tuple[str, ...]:
    return tuple(name for at, name in enumerate(names) if bits >> at & 1)


def sentences(text: str) -> list[tuple[int, int]]:
    """Where they begin and end; of one longer than WINDOW, overlapping parts of so many characters. None is empty."""
    first = len(text) - len(text.lstrip())
    borders = [0, *(match.end() for match in _ENDS.finditer(text) if match.start() > first), len(text)]
    found: list[tuple[int, int]] = []
    for start, stop in pairwise(borders):
        if text[start:stop].strip():
            found += [(at, min(at + WINDOW, stop)) for at in range(start, max(stop - WINDOW // 2, start + 1), WINDOW // 2)]
    return found


def weighed(run: Run, weights: Weights) -> float:
    """How much a run looks like an injection: the plain way, see `values`."""
    known = weights.ngrams
    thousandths = sum([known[gram] for gram in run.grams if gram in known]) / math.sqrt(max(run.size, 1))
    thousandths += sum([weights.rules.get(name, 0) for name in run.rules])
    thousandths += sum([weights.lexicon.get(name, 0) * value for name, value in lexicon.features(run.words)])
    return _squeezed(weights.bias + thousandths / 1000)


def heaviest(text: str, weights: Weights) -> tuple[str, ...]:
    """The n-grams of a folded text that weighed most, each in no longer one; three at most."""
    most = sorted(((weights.ngrams.get(gram, 0), gram) for gram in grams(text)), reverse=True)[:12]
    return tuple(
        [gram for weight, gram in most if weight > 0 and len(gram) > 1 and not any(gram in more for _, more in most if more != gram)][:3]
    )


def grams(text: str) -> set[str]:
    """The different n-grams of a folded text, one to three characters long, and its Latin words and twos of them; digits are alike."""
    even = _DIGITS.sub("0", text)
    twos = [*map(add, even, even[1:])]
    words = _LATIN_WORD.findall(even)
    return {*even, *twos, *map(add, twos, even[2:]), *words, *map("{} {}".format, words, words[1:])}


_DIGITS = re.compile(r"[0-9]+")
_LATIN_WORD = re.compile(r"[a-z']{2,24}")


@functools.cache
def load() -> Weights:
    """The weights that come with the package."""
    read = json.loads(resources.files("tsuzuri.guard").joinpath(FILE).read_text(encoding="utf-8"))
    return Weights(read["ngrams"], read["rules"], read["lexicon"], read["bias"], read["threshold"])


_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{20,4096}={0,2}")
_HEXADECIMAL = re.compile(r"(?:[0-9a-fA-F]{2}[ :]?){12,2048}")
_PERCENT = re.compile(r"(?:[A-Za-z0-9._~+-]{0,40}%[0-9a-fA-F]{2}){6,1024}[A-Za-z0-9._~+-]{0,40}")
_ENGLISH = re.compile(r"\b(?:the|you|your|and|all|to|of|is|in|me|my|do|not|no|it|as|for|with|any|are)\b", re.IGNORECASE)  # in what is text
_LATIN = re.compile(r"[A-Za-z][A-Za-z ,.'!?:;-]{23,400}")


def _hidden(seen: Normal) -> Iterator[tuple[str, int, int, str]]:
    """(how it is written, start, stop, what it says) of stretches that are text in another writing."""
    text = seen.text
    for match in _BASE64.finditer(text):
        body = match[0].rstrip("=").replace("-", "+").replace("_", "/")
        try:
            yield "Base64", *match.span(), base64.b64decode(body + "=" * (-len(body) % 4)).decode()
        except (binascii.Error, ValueError):
            continue
    for match in _HEXADECIMAL.finditer(text):
        try:
            yield "hexadecimal", *match.span(), bytes.fromhex(match[0].replace(":", " ")).decode()
        except ValueError:
            continue
    for match in _PERCENT.finditer(text):
        yield "percent-encoding", *match.span(), urllib.parse.unquote(match[0], errors="replace")
    for match in _LATIN.finditer(text):
        turned = codecs.decode(match[0], "rot13")
        if _ENGLISH.search(turned):
            yield "ROT13", *match.span(), turned
