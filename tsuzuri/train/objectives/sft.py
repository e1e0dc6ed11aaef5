"""Supervised fine-tuning on conversations: only the assistant's words and its end of turn are trained (Ouyang et al. 2022).

In: conversations as ids with a mask of what is trained (`chat/template.py` makes both). Out: packed batches.
A row with nothing trained, with everything trained, or with an untrained end of turn stops the run: each means
that the template and the data do not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tsuzuri.errors import InputError, TrainingError, Words
from tsuzuri.model.transformer import Transformer
from tsuzuri.train import loss
from tsuzuri.train.data import IGNORED, Batch, collate, pack


@dataclass(frozen=True, slots=True)
class Settings:
    length: int = 256  # tokens a row; a longer conversation is refused, never cut


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation as the model sees it."""

    ids: NDArray[np.int64]  # (T,)
    trained: NDArray[np.bool_]  # (T,) whether the token is a target


class Objective:
    def __init__(self, settings: Settings, examples: Sequence[Example], boundary: int, end_of_turn: int) -> None:
        self.settings, self.examples, self.boundary = settings, examples, boundary
        for number, example in enumerate(examples, 1):
            check(number, example, end_of_turn)
        self._check_lengths()
        self._rows = pack([len(example.ids) - 1 for example in examples], settings.length)

    @property
    def rows(self) -> int:
        return len(self._rows)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The rows named by `indices`, (B, T)."""
        rows = [[self._stretch(piece.document) for piece in self._rows[index]] for index in indices]
        return collate(rows, self.settings.length, self.boundary)

    def loss(self, model: Transformer, batch: Batch) -> Tensor:
        """Nats summed over the trained targets."""
        return loss.next_token(model, batch)

    def _stretch(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """Each token and the one after it. Positions start at 0: a conversation is served just so."""
        example = self.examples[number]
        return example.ids[:-1], np.where(example.trained[1:], example.ids[1:], IGNORED), 0

    def _check_lengths(self) -> None:
        longest = self.settings.length + 1  # the last token is a target only
        long = [(len(example.ids), number) for number, example in enumerate(self.examples, 1) if len(example.ids) > longest]
        if long:
            most, number = max(long)
            raise InputError(
                Words("会話データを学習の行に並べようとしました。", "Laying out conversations in rows."),
                found=Words(
                    f"{len(long)} 件が length={self.settings.length} トークンを超えています（最長は {number} 件目の {most}）。",
                    f"{len(long)} are longer than length={self.settings.length} tokens (the longest is number {number} with {most}).",
                ),
                todo=Words("length を増やすか、長い会話を除いてください。", "Raise length or leave the long ones out."),
            )


def check(number: int, example: Example, end_of_turn: int) -> None:
    """Raises TrainingError for a conversation that would teach nothing, teach the person's words, or not to stop after
    one of the answers: each stretch that is trained must end with the end of a turn."""
    trained = example.trained
    ends = example.ids[trained & ~np.append(trained[1:], False)]
    if not trained[1:].any():
        found = Words("学習するトークンが一つもありません。", "Not one token is trained.")
    elif trained.all():
        found = Words("すべてのトークンが学習対象になっています。", "Every token is trained, the person's words too.")
    elif (ends != end_of_turn).any():
        found = Words("答えの終わり（<|im_end|>）が学習対象になっていません。", "The end of the turn (<|im_end|>) is not trained.")
    else:
        return
    raise TrainingError(
        Words(f"会話データの {number} 件目に問題があります。", f"Checking conversation number {number}."),
        found=found,
        todo=Words(
            "tsuzuri inspect で各トークンを確かめ、データか書式を直してください。",
            "Look at each token with tsuzuri inspect; correct the data or the template.",
        ),
    )
