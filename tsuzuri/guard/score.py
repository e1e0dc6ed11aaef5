"""How much a text looks like an injection: rules and character n-grams, weighed together, between 0 and 1, with reasons.

In: a text. Out: `Score`. The text is read in windows of a few sentences, so that one sentence in a long document is not lost in it; what
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
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources

from tsuzuri.errors import Words
from tsuzuri.guard import rules
from tsuzuri.guard.normal import Normal, fold, plain

WINDOW = 160  # folded characters; longer than nearly every attack, shorter than a document
STRIDE = 64  # the next window begins at least so far on: any sentence of 96 is whole in some window
SIZES = (1, 2, 3)  # of the n-grams
_ENDS = re.compile(r"[。！？!?\n]+|\.\s")
FILE = "injection.json"


@dataclass(frozen=True, slots=True)
class Weights:
    """`ngrams` and `rules` in thousandths; `threshold` is the one at which one harmless text in a hundred is taken for an attack."""

    ngrams: Mapping[str, int]
    rules: Mapping[str, int]
    bias: float
    threshold: float


@dataclass(frozen=True, slots=True)
class Score:
    """The highest window's value, where it stands in the original, what spoke for it, and how it was written if not plainly."""

    value: float
    start: int
    stop: int
    rules: tuple[str, ...]
    window: str  # folded
    written: str = "plain"

    def reasons(self, weights: Weights | None = None) -> list[str]:
        """In the reader's language."""
        told = [str(rules.RULES[name].called) for name in self.rules]
        if self.written != "plain":
            told.append(str(Words(f"{self.written} で書かれている", f"it is written in {self.written}")))
        grams = heaviest(self.window, weights or load())
        if grams:
            told.append(str(Words(f"攻撃によくある文字の並び：{'、'.join(grams)}", f"sequences usual in attacks: {', '.join(grams)}")))
        return told


def score(text: str, weights: Weights | None = None) -> Score:
    """Of a whole text. `weights` are those of the package unless given."""
    return max(scores(plain(text), weights or load()), key=lambda one: one.value, default=Score(0.0, 0, len(text), (), ""))


def scores(seen: Normal, weights: Weights) -> Iterator[Score]:
    """Of every window, and of what is written in another way, each in places of the original."""
    folded = fold(seen)
    among = rules.possible(folded.text)
    for start, stop in windows(folded.text):
        value, held = weighed(folded.text[start:stop], weights, among)
        yield Score(value, *folded.span(start, stop), held, folded.text[start:stop])
    for written, start, stop, hidden in _hidden(seen):
        inside = fold(plain(hidden)).text
        for a, b in windows(inside):
            value, held = weighed(inside[a:b], weights)
            yield Score(value, *seen.span(start, stop), held, inside[a:b], written)


def windows(text: str) -> list[tuple[int, int]]:
    """Stretches of whole sentences, each as long as WINDOW allows, one beginning at each sentence; a longer sentence in overlapping parts."""
    ends = [match.end() for match in _ENDS.finditer(text) if text[: match.start()].strip()]
    borders = [0, *(end for end in ends if end < len(text)), len(text)]
    cut = [0]
    for end in borders[1:]:
        while end - cut[-1] > WINDOW:
            cut.append(cut[-1] + WINDOW // 2)
        cut.append(end)
    found: list[tuple[int, int]] = []
    for at, start in enumerate(cut[:-1]):
        if found and start - found[-1][0] < STRIDE and cut[at + 1] <= found[-1][1]:
            continue
        stop = max((end for end in cut[at + 1 : at + 12] if end - start <= WINDOW), default=cut[at + 1])
        if not (found and stop <= found[-1][1]) and text[start:stop].strip():  # what lies inside the window before says nothing new
            found.append((start, stop))
    return found


def weighed(text: str, weights: Weights, among: Collection[str] | None = None) -> tuple[float, tuple[str, ...]]:
    """(value, rules that hold) of one folded window; `among`: the rules that may."""
    held = tuple(rules.matched(text, among))
    every = grams(text)
    logit = weights.bias + sum([weights.rules.get(name, 0) for name in held]) / 1000
    known = weights.ngrams
    logit += sum([known[gram] for gram in every if gram in known]) / 1000 / math.sqrt(max(len(every), 1))
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, logit)))), held


def heaviest(text: str, weights: Weights) -> tuple[str, ...]:
    """The n-grams of a folded window that weighed most, each in no longer one; three at most."""
    most = sorted(((weights.ngrams.get(gram, 0), gram) for gram in grams(text)), reverse=True)[:12]
    return tuple(
        [gram for weight, gram in most if weight > 0 and len(gram) > 1 and not any(gram in more for _, more in most if more != gram)][:3]
    )


def grams(text: str) -> set[str]:
    """The different n-grams of a folded text; digits are alike."""
    even = _DIGITS.sub("0", text)
    return {even[at : at + size] for size in SIZES for at in range(len(even) - size + 1)}


_DIGITS = re.compile(r"[0-9]+")


@functools.cache
def load() -> Weights:
    """The weights that come with the package."""
    read = json.loads(resources.files("tsuzuri.guard").joinpath(FILE).read_text(encoding="utf-8"))
    return Weights(read["ngrams"], read["rules"], read["bias"], read["threshold"])


_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{20,4096}={0,2}")
_HEXADECIMAL = re.compile(r"(?:[0-9a-fA-F]{2}[ :]?){12,2048}")
_PERCENT = re.compile(r"(?:[A-Za-z0-9._~+-]{0,40}%[0-9a-fA-F]{2}){6,1024}[A-Za-z0-9._~+-]{0,40}")
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
        yield "ROT13", *match.span(), codecs.decode(match[0], "rot13")
