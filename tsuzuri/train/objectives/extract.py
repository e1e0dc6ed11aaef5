"""Find the answer to a question in a context (Devlin et al. 2019, sections 4.2 and 4.3): where it begins and where it ends.

In: questions and contexts as ids, and the tokens of the answer, or none. Out: batches in which a long context comes in
overlapping windows, a row each. In a window without the answer the target is the first token: "not here".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tsuzuri.errors import InputError, Words
from tsuzuri.model.transformer import Transformer
from tsuzuri.text.framing import Frame, Window, windows
from tsuzuri.train import loss
from tsuzuri.train.data import Batch
from tsuzuri.train.objectives._framed import padded


@dataclass(frozen=True, slots=True)
class Settings:
    length: int = 256  # tokens of a row: question, stretch of the context and frame
    stride: int = 64  # tokens that neighbouring windows share


@dataclass(frozen=True, slots=True)
class Example:
    question: Sequence[int]
    context: Sequence[int]
    answer: tuple[int, int] | None  # its tokens in the context, start … stop; None: it is not there


class Objective:
    def __init__(self, settings: Settings, examples: Sequence[Example], frame: Frame) -> None:
        self.settings, self.frame = settings, frame
        self._rows = [row for number, example in enumerate(examples, 1) for row in self._windows(number, example)]

    def _windows(self, number: int, example: Example) -> list[tuple[Window, tuple[int, int]]]:
        """Each with the places of start and end in its ids. Raises InputError where no window holds the answer whole."""
        found = []
        for window in windows(self.frame, example.question, example.context, self.settings.length, self.settings.stride):
            place = (0, 0)
            if example.answer is not None and window.start <= example.answer[0] and example.answer[1] <= window.stop:
                shift = window.begin - window.start
                place = (example.answer[0] + shift, example.answer[1] + shift - 1)
            found.append((window, place))
        if example.answer is not None and all(place == (0, 0) for _, place in found):
            size = example.answer[1] - example.answer[0]
            raise InputError(
                Words("質問と文章を学習の行に並べようとしました。", "Laying out questions and contexts in rows."),
                found=Words(
                    f"{number} 件目の答え（{size} トークン）が、どの行にも収まりません。",
                    f"No row holds the answer of number {number} ({size} tokens).",
                ),
                todo=Words("stride か length を増やしてください。", "Raise stride or length."),
            )
        return found

    @property
    def rows(self) -> int:
        return len(self._rows)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The windows named by `indices`, (B, T), with targets (B, 2): start and last token of the answer."""
        chosen = [self._rows[index] for index in indices]
        found = padded([window.ids for window, _ in chosen], self.frame.padding)
        segments = np.zeros(found.tokens.shape, np.int64)
        for r, (window, _) in enumerate(chosen):
            segments[r, : len(window.segments)] = window.segments
        return replace(found, targets=torch.tensor([place for _, place in chosen]), segments=torch.from_numpy(segments))

    def loss(self, model: Transformer, batch: Batch) -> Tensor:
        """Nats summed over starts and ends."""
        assert batch.segments is not None
        shown = batch if model.shape.type_vocab_size > 1 else replace(batch, segments=None)
        scores = model(batch.tokens, loss.bidirectional(shown))  # (B, T, 2)
        scores = scores.masked_fill(~possible(batch.tokens, batch.segments, self.frame)[..., None], -math.inf)
        return loss.cross_entropy(scores.transpose(1, 2).flatten(0, 1), batch.targets.flatten())


def possible(tokens: Tensor, segments: Tensor, frame: Frame) -> Tensor:
    """(B, T) bool: where an answer may begin or end: in the context, or at the first token, which says that there is none."""
    found = (segments == 1) & (tokens != frame.last)
    found[:, 0] = True
    return found
