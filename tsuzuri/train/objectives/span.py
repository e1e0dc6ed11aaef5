"""Span corruption (Raffel et al. 2020, T5, section 3.1.4 and figure 2): spans are taken out, and the decoder says what stood there.

    Thank you ⟨0⟩ me to your party ⟨1⟩ week ⏎   →   ⟨0⟩ for inviting ⟨1⟩ last ⟨2⟩ ⏎

In: token documents and the ids of the sentinels ⟨0⟩, ⟨1⟩ …. Out: packed pairs. 15 % of the tokens in spans of 3 on average; where
they stand is a function of the seed and the place in the text, so that resuming needs no state. Nothing is lost: source and target
together hold every token once (`joined`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tsuzuri.errors import ConfigError, Words
from tsuzuri.model.encoder_decoder import EncoderDecoder
from tsuzuri.train import loss
from tsuzuri.train.data import Pair, Pairs, collate_pairs, pack_pairs
from tsuzuri.train.objectives.seq2seq import fits, framed


class Documents(Protocol):
    """What `text/shards.py` gives: documents of ids, memory-mapped."""

    @property
    def lengths(self) -> NDArray[np.int64]: ...
    def document(self, index: int) -> NDArray[np.integer[Any]]: ...


@dataclass(frozen=True, slots=True)
class Settings:
    length: int = 512  # tokens of a stretch of text before anything is taken out; a longer document is cut into several
    density: float = 0.15  # share of the tokens that is taken out
    span: float = 3.0  # tokens, on average
    seed: int = 1

    def __post_init__(self) -> None:
        if self.length < 2 or not 0 < self.density < 1 or not self.span >= 1:
            raise ConfigError(
                Words("穴埋めの学習の設定に問題があります。", "Checking the settings of span corruption."),
                found=Words(
                    f"length {self.length}、density {self.density}、span {self.span} です。",
                    f"length is {self.length}, density {self.density}, span {self.span}.",
                ),
                todo=Words(
                    "length は 2 以上、density は 0 と 1 の間、span は 1 以上にしてください。",
                    "length is at least 2, density lies between 0 and 1, span is at least 1.",
                ),
            )


class Objective:
    def __init__(self, settings: Settings, documents: Documents, sentinels: Sequence[int], start: int, end: int) -> None:
        self.settings, self.documents, self.start, self.end = settings, documents, start, end
        self.sentinels = np.asarray(sentinels, np.int64)
        most = counts(settings.length, settings)[1] + 1
        if len(sentinels) < most:
            raise ConfigError(
                Words("穴の目印を用意しようとしました。", "Looking for sentinels."),
                found=Words(f"{most} 個要りますが、{len(sentinels)} 個です。", f"There are {len(sentinels)}; {most} are needed."),
                todo=Words(
                    "語彙の後ろに目印の番号を足すか、length を減らしてください。", "Add ids behind the vocabulary, or lower length."
                ),
            )
        cuts = [(d, at, min(at + settings.length, n)) for d, n in enumerate(documents.lengths) for at in range(0, int(n), settings.length)]
        self._stretches = [cut for cut in cuts if cut[2] - cut[1] > 1]  # one token alone leaves nothing to say it from
        self._room = _sizes(settings.length, settings)
        sizes = [_sizes(stop - begin, settings) for _, begin, stop in self._stretches]
        assert all(fits(size, self._room) for size in sizes)
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
        document, begin, stop = self._stretches[number]
        ids = np.asarray(self.documents.document(document)).astype(np.int64)[begin:stop]
        random = np.random.default_rng((self.settings.seed % 2**64, document, begin))
        source, target = corrupted(ids, taken(len(ids), self.settings, random), self.sentinels)
        return framed(source, target, self.start, self.end)


def counts(length: int, settings: Settings) -> tuple[int, int]:
    """(tokens taken out, spans) of a stretch: at least one of each, and at least one token stays for each span."""
    out = min(max(round(length * settings.density), 1), length - 1)
    spans = min(max(round(out / settings.span), 1), out, length - out)
    return out, spans


def _sizes(length: int, settings: Settings) -> tuple[int, int]:
    """(source, target) tokens: one sentinel a span in both, one more at the end of the target, and an end or a start each."""
    out, spans = counts(length, settings)
    return length - out + spans + 1, out + spans + 2


def taken(length: int, settings: Settings, random: np.random.Generator) -> NDArray[np.bool_]:
    """(length,) whether a token is taken out: stays and spans alternate, both cut at random places, the first one stays."""
    out, spans = counts(length, settings)
    lengths = np.stack((_cut(length - out, spans, random), _cut(out, spans, random)), 1).flatten()
    return np.repeat(np.arange(2 * spans) % 2 == 1, lengths)


def _cut(total: int, parts: int, random: np.random.Generator) -> NDArray[np.int64]:
    """`total` in so many parts of at least one, every way equally likely."""
    places = np.sort(random.choice(total - 1, parts - 1, replace=False)) + 1
    return np.diff(np.concatenate(([0], places, [total])))


def corrupted(ids: NDArray[np.int64], out: NDArray[np.bool_], sentinels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The text with a sentinel for every span, and the spans each after its sentinel, with one more at the end."""
    begins = out & ~np.append(False, out[:-1])
    number = np.cumsum(begins) - 1  # of the span that a token belongs to or comes after
    source = np.where(begins, sentinels[number], ids)[~out | begins]
    spans = [np.append(sentinels[n], ids[out & (number == n)]) for n in range(int(begins.sum()))]
    return source, np.concatenate((*spans, sentinels[len(spans) : len(spans) + 1]))


def joined(source: Sequence[int], target: Sequence[int], sentinels: Sequence[int]) -> list[int]:
    """The text that `corrupted` took apart."""
    marks, current = set(sentinels), list[int]()
    spans: dict[int, list[int]] = {}
    for id in target:
        if id in marks:
            spans[id] = current = []
        else:
            current.append(id)
    return [other for id in source for other in (spans[id] if id in marks else [id])]
