"""Next-token prediction over packed documents (Bengio et al. 2003; Radford et al. 2018).

In: token documents. Out: batches in which each document begins with the end-of-text token and ends by predicting it,
so that the model knows where texts begin and learns where they stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tsuzuri.model.transformer import Transformer
from tsuzuri.train import loss
from tsuzuri.train.data import Batch, collate, pack


class Documents(Protocol):
    """What `text/shards.py` gives: documents of ids, memory-mapped."""

    @property
    def lengths(self) -> NDArray[np.int64]: ...
    def document(self, index: int) -> NDArray[np.integer[Any]]: ...


@dataclass(frozen=True, slots=True)
class Settings:
    length: int = 256  # tokens a row


class Objective:
    """Rows of `length` tokens; a document of n ids gives n + 1 targets (its ids and the end)."""

    def __init__(self, settings: Settings, documents: Documents, boundary: int) -> None:
        self.settings, self.documents, self.boundary = settings, documents, boundary
        self._rows = pack(np.asarray(documents.lengths) + 1, settings.length)

    @property
    def rows(self) -> int:
        return len(self._rows)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The rows named by `indices`, (B, T)."""
        rows = [[self._stretch(piece.document, piece.start, piece.stop) for piece in self._rows[index]] for index in indices]
        return collate(rows, self.settings.length, self.boundary)

    def loss(self, model: Transformer, batch: Batch) -> Tensor:
        """Nats summed over the targets of the batch."""
        return loss.next_token(model, batch)

    def _stretch(self, document: int, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """Inputs and targets for tokens start … stop of [boundary] + ids + [boundary]; positions start at 0 in every stretch."""
        ids = self.documents.document(document)
        framed = np.full(stop - start + 1, self.boundary, np.int64)
        inner = np.asarray(ids[max(start - 1, 0) : stop])
        framed[start == 0 :][: len(inner)] = inner
        return framed[:-1], framed[1:], 0
