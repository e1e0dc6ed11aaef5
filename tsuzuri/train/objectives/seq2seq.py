"""Source to target with teacher forcing: every token of a target is predicted from its source and what stands before it
(Sutskever et al. 2014; Vaswani et al. 2017).

In: pairs of ids. Out: rows in which several pairs are packed, each target seeing its own source alone. A source ends with the
end-of-text token; a target begins with the start token, which is not trained, and ends by predicting the end of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tsuzuri.errors import InputError, Words
from tsuzuri.model.encoder_decoder import EncoderDecoder
from tsuzuri.train import loss
from tsuzuri.train.data import Pair, Pairs, collate_pairs, pack_pairs


@dataclass(frozen=True, slots=True)
class Settings:
    length: int = 256  # tokens of targets a row, the start included; a longer pair is refused, never cut
    source_length: int = 256  # tokens of sources a row, the end included


@dataclass(frozen=True, slots=True)
class Example:
    source: NDArray[np.int64]  # (S,) without its end
    target: NDArray[np.int64]  # (T,) without start and end


class Objective:
    def __init__(self, settings: Settings, examples: Sequence[Example], start: int, end: int) -> None:
        self.settings, self.examples, self.start, self.end = settings, examples, start, end
        self._room = settings.source_length, settings.length
        sizes = [(len(example.source) + 1, len(example.target) + 1) for example in examples]
        long = [number for number, size in enumerate(sizes, 1) if not fits(size, self._room)]
        if long:
            raise InputError(
                Words("文章の組を学習の行に並べようとしました。", "Laying out pairs of texts in rows."),
                found=Words(
                    f"{len(long)} 組が source_length={self._room[0]} か length={self._room[1]} トークンを超えています（最初は {long[0]} 組目）。",
                    f"{len(long)} are longer than source_length={self._room[0]} or length={self._room[1]} tokens (the first is number {long[0]}).",
                ),
                todo=Words("長さの設定を増やすか、長い組を除いてください。", "Raise the lengths or leave the long ones out."),
            )
        self._rows = pack_pairs(sizes, self._room)

    @property
    def rows(self) -> int:
        return len(self._rows)

    def batch(self, indices: Sequence[int]) -> Pairs:
        """The rows named by `indices`: targets (B, T) and sources (B, S)."""
        return collate_pairs([[self._pair(number) for number in self._rows[index]] for index in indices], self._room, self.end)

    def loss(self, model: EncoderDecoder, batch: Pairs) -> Tensor:
        """Nats summed over the targets of the batch."""
        return loss.given_source(model, batch)

    def _pair(self, number: int) -> Pair:
        return framed(self.examples[number].source, self.examples[number].target, self.start, self.end)


def framed(source: NDArray[np.int64], target: NDArray[np.int64], start: int, end: int) -> Pair:
    """What the encoder reads, what the decoder reads, and what it is to say."""
    return np.append(source, end), np.concatenate(([start], target)), np.append(target, end)


def fits(size: tuple[int, int], room: tuple[int, int]) -> bool:
    return size[0] <= room[0] and size[1] <= room[1]
