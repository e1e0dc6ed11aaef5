"""Guess hidden tokens from both sides (Devlin et al. 2019, section 3.1; whole words: Cui et al. 2021).

In: token documents. Out: batches in which 15 % of the tokens are targets: of them 80 % are hidden, 10 % are another token,
10 % stay as they are. Which ones is drawn from torch's own generator each time, so that every epoch differs and a resumed
run draws on as it would have.
"""

from __future__ import annotations

from collections.abc import Sequence
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
GOES_ON = -1  # in place of a script: the token is the rest of a character that the one before it began


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
        scripts: NDArray[np.int32] | None = None,
    ) -> None:
        """`scripts` (V, 2): those that each id begins and ends in, or GOES_ON; needed for `whole_words`. A word is a run of one script."""
        assert scripts is not None or not settings.whole_words, "whole words need to be known"
        self.settings, self.documents, self.frame, self.vocab_size = settings, documents, frame, vocab_size
        self.scripts = scripts if settings.whole_words else None
        room = settings.length - 2
        self._stretches = [(d, at, min(at + room, int(n))) for d, n in enumerate(documents.lengths) for at in range(0, int(n), room)]
        self._rows = pack([stop - start + 2 for _, start, stop in self._stretches], settings.length)

    @property
    def rows(self) -> int:
        return len(self._rows)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The rows named by `indices`, (B, T), with their targets drawn."""
        rows = []
        for index in indices:
            framed = (self._framed(*self._stretches[piece.document]) for piece in self._rows[index])
            rows.append([(ids, ids, 0) for ids in framed])
        return self._hidden(collate(rows, self.settings.length, self.frame.padding))

    def loss(self, model: Transformer, batch: Batch) -> Tensor:
        """Nats summed over the targets of the batch."""
        return loss.at_targets(model, batch)

    def _framed(self, document: int, start: int, stop: int) -> NDArray[np.int64]:
        found = np.empty(stop - start + 2, np.int64)
        found[0], found[1:-1], found[-1] = self.frame.first, self.documents.document(document)[start:stop], self.frame.last
        return found

    def _words(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T): which word of its row each token belongs to; itself, where words are not hidden whole."""
        if self.scripts is None:
            return torch.arange(tokens.shape[-1]).expand(tokens.shape)
        first, last = np.moveaxis(self.scripts[tokens.numpy()], -1, 0)  # (B, T) each
        own = np.where(last == GOES_ON, 0, np.arange(last.shape[-1]))
        last = np.take_along_axis(last, np.maximum.accumulate(own, -1), -1)  # of the token that began the character
        begins = (first[:, 1:] != last[:, :-1]) & (first[:, 1:] != GOES_ON)
        return torch.from_numpy(np.pad(begins, ((0, 0), (1, 0))).cumsum(-1))

    def _hidden(self, batch: Batch) -> Batch:
        """Targets by word, then what is shown in their place by token."""
        frame, shape = self.frame, batch.tokens.shape
        text = (batch.tokens != frame.first) & (batch.tokens != frame.last) & (batch.targets != IGNORED)
        chosen = (torch.rand(shape) < self.settings.share).gather(-1, self._words(batch.tokens)) & text  # a draw for each word
        draw, other = torch.rand(shape), torch.randint(self.vocab_size, shape)
        shown = torch.where(draw < HIDDEN, frame.mask, torch.where(draw < HIDDEN + OTHER, other, batch.tokens))
        return replace(
            batch, tokens=torch.where(chosen, shown, batch.tokens), targets=torch.where(chosen, batch.tokens, torch.tensor(IGNORED))
        )
