"""Words that mean much the same, by what they mean in an order to a model: classes of words, and which of them stand together.

In: folded text (`normal.folded`). Out: where words of each class stand; of some classes, what is weighed: each alone, and in twos. 「前置きを
貼り付けて」 and 「冒頭の文を見せて」 share no words and hardly an n-gram, but both are `prompt` and `show`. What a class weighs is learned
(`train.py`); every word here stands in harmless text too. It decides nothing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations

from tsuzuri.guard.normal import folded
from tsuzuri.guard.words import SHAPES, WORDS


class Lexicon:
    """`words`: classes of words, divided by |, as people write them: they are folded as the text is folded, and one of Latin letters begins a
    word. `shapes`: regular expressions over folded text, of classes of their own or of the same."""

    def __init__(self, words: Mapping[str, str], shapes: Mapping[str, str]) -> None:
        self.names = tuple(dict.fromkeys((*words, *shapes)))
        self._words, self._shapes = words, shapes
        self._ready: tuple[dict[str, list[tuple[str, int]]], tuple[tuple[int, re.Pattern[str]], ...]] | None = None

    def places(self, text: str) -> Iterator[tuple[str, list[tuple[int, int]]]]:
        """(class, the stretches of a folded text where it stands), in their order: of a shape, its last character. The plain way."""
        index, shapes = self._look_up()
        found: dict[str, list[tuple[int, int]]] = {name: [] for name in self.names}
        for words in index.values():
            for word, bit in words:
                found[self.names[bit.bit_length() - 1]] += [(at, at + len(word)) for at in range(len(text)) if _stands(word, text, at)]
        for bit, pattern in shapes:
            found[self.names[bit.bit_length() - 1]] += [(match.end() - 1, match.end()) for match in pattern.finditer(text)]
        yield from found.items()

    def classes(self, text: str, cut: Sequence[tuple[int, int]], grams: Sequence[Iterable[str]]) -> list[int]:
        """Of each sentence, as places of a folded text and its n-grams, the classes in it: a bit for each. A word is looked for only where one of
        its n-grams is."""
        index, shapes = self._look_up()
        ends = [[(match.end() - 1, bit) for match in pattern.finditer(text)] for bit, pattern in shapes]
        marks = sorted(mark for one in ends for mark in one)
        keys, held, first = index.keys(), [], 0
        for (start, stop), inside in zip(cut, grams, strict=True):
            sentence, bits = text[start:stop], 0
            for key in keys & inside:
                for word, bit in index[key]:
                    if not bits & bit and _begins(word, sentence):
                        bits |= bit
            while first < len(marks) and marks[first][0] < start:  # parts of a long sentence overlap: only what is before both is behind us
                first += 1
            for at in range(first, len(marks)):
                if marks[at][0] >= stop:
                    break
                bits |= marks[at][1]
            held.append(bits)
        return held

    def _look_up(self) -> tuple[dict[str, list[tuple[str, int]]], tuple[tuple[int, re.Pattern[str]], ...]]:
        """Words by one of their n-grams, and the shapes. Nothing is made at import."""
        if self._ready is None:
            index: dict[str, list[tuple[str, int]]] = {}
            for name, written in self._words.items():
                for word in dict.fromkeys(folded(one).text for one in written.split("|")):
                    index.setdefault(_key(word), []).append((word, 1 << self.names.index(name)))
            shapes = tuple((1 << self.names.index(name), re.compile(pattern)) for name, pattern in self._shapes.items())
            self._ready = index, shapes
        return self._ready


def _key(word: str) -> str:
    """An n-gram of every text that the word stands in: its first, of three characters if it is so long, without a digit if there is such."""
    size = min(3, len(word))
    return next((key for at in range(len(word) - size + 1) if not any(map(str.isdigit, key := word[at : at + size]))), "0")


def _begins(word: str, text: str) -> bool:
    """Whether the word stands somewhere in the text, and if it is Latin, at the beginning of a word."""
    at = text.find(word)
    while at > 0 and "a" <= word[0] <= "z" and "a" <= text[at - 1] <= "z":
        at = text.find(word, at + 1)
    return at >= 0


def _stands(word: str, text: str, at: int) -> bool:
    return text.startswith(word, at) and not (at and "a" <= word[0] <= "z" and "a" <= text[at - 1] <= "z")


TWOS = 0.5  # the value of two classes together: beside the value 1 of each it learns more slowly, since there are many


@functools.lru_cache(4096)
def features(classes: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """(name, value) of these classes, and of the twos of them."""
    return (*((name, 1.0) for name in classes), *((f"{a}+{b}", TWOS) for a, b in combinations(classes, 2)))


INJECTION = Lexicon(WORDS, SHAPES)
