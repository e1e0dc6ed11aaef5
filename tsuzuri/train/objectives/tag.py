"""Give each token of a text a label (Devlin et al. 2019, section 5.3); `text/spans.py` makes labels of stretches and back.

In: texts as ids with the number of a label for each. Out: batches of one text a row. A text longer than a row is refused,
not cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tsuzuri.model.transformer import Transformer
from tsuzuri.text.framing import Frame
from tsuzuri.train import loss
from tsuzuri.train.data import IGNORED, Batch
from tsuzuri.train.objectives._framed import check_lengths, padded


@dataclass(frozen=True, slots=True)
class Settings:
    length: int = 256  # tokens of a text with its frame, at most


@dataclass(frozen=True, slots=True)
class Example:
    ids: Sequence[int]
    labels: Sequence[int]  # as many


class Objective:
    def __init__(self, settings: Settings, examples: Sequence[Example], frame: Frame) -> None:
        self.settings, self.examples, self.frame = settings, examples, frame
        check_lengths([len(example.ids) + 2 for example in examples], settings.length)

    @property
    def rows(self) -> int:
        return len(self.examples)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The texts named by `indices`, (B, T); the frame has no label."""
        chosen = [self.examples[index] for index in indices]
        targets = [[IGNORED, *example.labels, IGNORED] for example in chosen]
        return padded([self.frame.around(example.ids) for example in chosen], self.frame.padding, targets)

    def loss(self, model: Transformer, batch: Batch) -> Tensor:
        """Nats summed over the tokens."""
        return loss.at_targets(model, batch)
