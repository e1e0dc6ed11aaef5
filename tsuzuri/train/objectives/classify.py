"""Give a text a label (Devlin et al. 2019, section 4.1): cross-entropy at what sums the text up.

In: texts as ids with the number of their label. Out: batches of one text a row. A text longer than a row is refused, not cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tsuzuri.model.pooling import classified
from tsuzuri.model.transformer import Transformer
from tsuzuri.text.framing import Frame
from tsuzuri.train import loss
from tsuzuri.train.data import Batch
from tsuzuri.train.objectives._framed import check_lengths, padded


@dataclass(frozen=True, slots=True)
class Settings:
    length: int = 256  # tokens of a text with its frame, at most


@dataclass(frozen=True, slots=True)
class Example:
    ids: Sequence[int]
    label: int


class Objective:
    def __init__(self, settings: Settings, examples: Sequence[Example], frame: Frame) -> None:
        self.settings, self.examples, self.frame = settings, examples, frame
        check_lengths([len(example.ids) + 2 for example in examples], settings.length)

    @property
    def rows(self) -> int:
        return len(self.examples)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The texts named by `indices`, (B, T), with targets (B, 1)."""
        chosen = [self.examples[index] for index in indices]
        found = padded([self.frame.around(example.ids) for example in chosen], self.frame.padding)
        return replace(found, targets=torch.tensor([[example.label] for example in chosen]))

    def loss(self, model: Transformer, batch: Batch) -> Tensor:
        """Nats summed over the texts."""
        return loss.cross_entropy(classified(model, batch.tokens, loss.bidirectional(batch)), batch.targets[:, 0])
