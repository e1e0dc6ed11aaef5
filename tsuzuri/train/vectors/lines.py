"""Text as numbers of words: what Word2Vec and GloVe read.

In: texts and a way of cutting (`text/words.py`). Out: `Lines`: the vocabulary, the most frequent word first, and the whole
text as one row of numbers with the line each stands in, since no window reaches into another line.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tsuzuri.errors import TrainingError, Words

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Lines:
    """N words of text, V different ones."""

    words: list[str]  # V
    counts: NDArray[np.int64]  # (V,) how often each was read
    ids: Ints  # (N,)
    line: Ints  # (N,) the number of the line, never falling
    left_out: int  # words of the text that were too rare to have a number; they are as if they were not there

    def __len__(self) -> int:
        return len(self.ids)

    def thinned(self, sample: float, random: np.random.Generator) -> tuple[Ints, Ints]:
        """(ids, line) without most of the frequent words: one of share f of the text stays with probability √(t/f) + t/f.

        Mikolov et al. 2013b, section 2.3, in the form of their program (the paper has √(t/f) alone). `sample` 0 keeps all.
        """
        if not sample:
            return self.ids, self.line
        share = self.counts / self.counts.sum()
        kept = np.sqrt(sample / share) + sample / share  # (V,)
        stay = random.random(len(self.ids), np.float32) < kept.astype(np.float32)[self.ids]
        return self.ids[stay], self.line[stay]


def read(texts: Iterable[str], cut: Callable[[str], list[str]], *, min_count: int = 5, max_words: int = 100_000) -> Lines:
    """Counts and numbers the words of all texts; a line ends where the text has a line end.

    Words read fewer than `min_count` times are left out, and those past the `max_words` most frequent. Ties go to the word
    that sorts first. Raises TrainingError when fewer than two words are left.
    """
    numbers: dict[str, int] = {}
    ids, lengths = array("i"), array("i")
    for text in texts:
        for one in text.split("\n"):
            found = cut(one)
            ids.extend(numbers.setdefault(word, len(numbers)) for word in found)
            lengths.append(len(found))
    row = np.frombuffer(ids, np.int32) if ids else np.empty(0, np.int32)
    counts = np.bincount(row, minlength=len(numbers))
    spelt = list(numbers)
    kept = sorted((n for n in range(len(spelt)) if counts[n] >= min_count), key=lambda n: (-counts[n], spelt[n]))[:max_words]
    if len(kept) < 2:
        raise TrainingError(
            Words("単語ベクトルを学習しようとしました。", "Training word vectors."),
            found=Words(
                f"{min_count} 回以上現れる語が {len(kept)} 個しかありません。", f"Only {len(kept)} words occur {min_count} times or more."
            ),
            todo=Words("文章を増やすか、min_count を小さくしてください。", "Give it more text, or a smaller min_count."),
        )
    renumbered = np.full(len(spelt), -1, np.int32)
    renumbered[kept] = np.arange(len(kept), dtype=np.int32)
    new = renumbered[row]
    line = np.repeat(np.arange(len(lengths), dtype=np.int32), np.frombuffer(lengths, np.int32))
    there = new >= 0
    return Lines([spelt[n] for n in kept], counts[kept].astype(np.int64), new[there], line[there], int(len(new) - there.sum()))
