"""Guess hidden tokens from both sides (Devlin et al. 2019, section 3.1; whole words: Cui et al. 2021).

In: token documents. Out: batches in which 15 % of the tokens are targets: of them 80 % are hidden, 10 % are another token,
10 % stay as they are. Which ones is drawn from torch's own generator each time, so that every epoch differs and a resumed
run draws on as it would have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsuzuri.model.transformer import Transformer
from tsuzuri.text.framing import Frame
from tsuzuri.train import loss
from tsuzuri.train.data import IGNORED, Batch, collate, pack
from tsuzuri.train.objectives.pretrain import Documents

HIDDEN, OTHER = 0.8, 0.1  # of the targets; the rest stay as they are


@dataclass(frozen=True, slots=True)
class Settings:
    length: int = 256  # tokens a row
    share: float = 0.15  # of the tokens, or of the words, that are targets
    whole_words: bool = False  # the tokens of a word are targets together


class Objective:
    """Rows of `length` tokens. A document is cut into stretches that each stand in a frame of their own."""

    def __init__(
        self,
        settings: Settings,
        documents: Documents,
        frame: Frame,
        vocab_size: int,
        words: Callable[[Sequence[int]], Sequence[int]] | None = None,
    ) -> None:
        """`words`: ids -> the number of the word that each token belongs to; needed for `whole_words`."""
        assert words is not None or not settings.whole_words, "whole words need to be known"
        self.settings, self.documents, self.frame, self.vocab_size, self.words = settings, documents, frame, vocab_size, words
        room = settings.length - 2
        self._stretches = [(d, at, min(at + room, int(n))) for d, n in enumerate(documents.lengths) for at in range(0, int(n), room)]
        self._rows = pack([stop - start + 2 for _, start, stop in self._stretches], settings.length)

    @property
    def rows(self) -> int:
        return len(self._rows)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The rows named by `indices`, (B, T), with their targets drawn."""
        rows, words = [], np.zeros((len(indices), self.settings.length), np.int64)
        for r, index in enumerate(indices):
            row, at = [], 0
            for piece in self._rows[index]:
                ids = self._framed(*self._stretches[piece.document])
                row.append((ids, ids, 0))
                words[r, at : at + len(ids)] = at + self._words(ids)
                at += len(ids)
            rows.append(row)
        whole = collate(rows, self.settings.length, self.frame.padding)
        return self._hidden(whole, torch.from_numpy(words))

    def loss(self, model: Transformer, batch: Batch) -> Tensor:
        """Nats summed over the targets of the batch."""
        return loss.at_targets(model, batch)

    def _framed(self, document: int, start: int, stop: int) -> NDArray[np.int64]:
        ids = np.asarray(self.documents.document(document)[start:stop]).astype(np.int64)
        return np.concatenate(([self.frame.first], ids, [self.frame.last]))

    def _words(self, framed: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which word of the stretch each token belongs to: itself, where words are not hidden whole."""
        if self.words is None or not self.settings.whole_words:
            return np.arange(len(framed))
        inner = np.asarray(self.words(framed[1:-1].tolist()), np.int64)
        return np.concatenate(([0], inner + 1, [len(framed) - 1]))

    def _hidden(self, batch: Batch, words: Tensor) -> Batch:
        """Targets by word, then what is shown in their place by token."""
        frame, shape = self.frame, batch.tokens.shape
        text = (batch.tokens != frame.first) & (batch.tokens != frame.last) & (batch.targets != IGNORED)
        chosen = (torch.rand(shape) < self.settings.share).gather(-1, words) & text  # a draw for each word
        draw, other = torch.rand(shape), torch.randint(self.vocab_size, shape)
        shown = torch.where(draw < HIDDEN, frame.mask, torch.where(draw < HIDDEN + OTHER, other, batch.tokens))
        return replace(
            batch, tokens=torch.where(chosen, shown, batch.tokens), targets=torch.where(chosen, batch.tokens, torch.tensor(IGNORED))
        )
