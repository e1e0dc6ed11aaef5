"""Texts that belong together lie close together (van den Oord et al. 2018, InfoNCE; Gao et al. 2021, SimCSE; Su 2022, CoSENT).

In: pairs of texts as ids, each perhaps with a score of how close they are. Out: rows of `group` pairs. Without scores, the
second of each pair is to be found among the seconds of its group; with scores, pairs of a higher score are to lie closer.
A row is a whole group, so a batch in parts has the same negatives as the whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tsuzuri.errors import InputError, Words
from tsuzuri.model.pooling import embedded
from tsuzuri.model.transformer import Transformer
from tsuzuri.text.framing import Frame
from tsuzuri.train import loss
from tsuzuri.train.data import Batch, order
from tsuzuri.train.objectives._framed import check_lengths, padded


@dataclass(frozen=True, slots=True)
class Settings:
    length: int = 128  # tokens of a text with its frame, at most
    group: int = 16  # pairs that are compared with one another
    temperature: float = 0.05  # of the cosines
    scored: bool = False  # the pairs have scores, and their order is what is learned
    seed: int = 1  # of which pairs share a group


@dataclass(frozen=True, slots=True)
class Example:
    one: Sequence[int]
    other: Sequence[int]
    score: float = 0.0


class Objective:
    """The last group is filled up with pairs of the first ones, so that all are of one size and none is left out."""

    def __init__(self, settings: Settings, examples: Sequence[Example], frame: Frame) -> None:
        self.settings, self.examples, self.frame = settings, examples, frame
        check_lengths([max(len(example.one), len(example.other)) + 2 for example in examples], settings.length)
        if len(examples) < settings.group:
            raise InputError(
                Words("文章の対を組に分けようとしました。", "Dividing pairs of texts into groups."),
                found=Words(
                    f"対が {len(examples)} 件で、一組の {settings.group} 件に足りません。",
                    f"There are {len(examples)} pairs, fewer than the {settings.group} of a group.",
                ),
                todo=Words("対を増やすか、group を減らしてください。", "Give more pairs, or lower group."),
            )
        count = math.ceil(len(examples) / settings.group)
        self._groups = np.asarray(order(len(examples), settings.seed, 0, count * settings.group)).reshape(count, settings.group)

    @property
    def rows(self) -> int:
        return len(self._groups)

    def batch(self, indices: Sequence[int]) -> Batch:
        """Groups named by `indices`: tokens (B, 2 G, T), the firsts before the seconds; targets (B, G): the place of the second,
        or the rank of the score."""
        groups = [[self.examples[number] for number in self._groups[index]] for index in indices]
        texts = [self.frame.around(text) for group in groups for side in ("one", "other") for text in (getattr(e, side) for e in group)]
        found = padded(texts, self.frame.padding)
        size = self.settings.group
        tokens, positions = (torch.unflatten(x, 0, (len(groups), 2 * size)) for x in (found.tokens, found.positions))
        documents = None if found.documents is None else torch.unflatten(found.documents, 0, (len(groups), 2 * size))
        if self.settings.scored:
            targets = torch.from_numpy(np.stack([np.unique([e.score for e in group], return_inverse=True)[1] for group in groups]))
        else:
            targets = torch.arange(size).expand(len(groups), size)
        return replace(found, tokens=tokens, positions=positions, documents=documents, targets=targets)

    def loss(self, model: Transformer, batch: Batch) -> Tensor:
        """Nats summed over the pairs."""
        flat = Batch(*(None if x is None else x.flatten(0, 1) for x in (batch.tokens, batch.targets, batch.positions, batch.documents)))  # type: ignore[arg-type]
        vectors = embedded(model, flat.tokens, loss.bidirectional(flat))  # (B 2 G, D)
        one, other = torch.unflatten(vectors, 0, batch.tokens.shape[:2]).chunk(2, 1)  # (B, G, D) each
        if self.settings.scored:
            return self._in_order((one * other).sum(-1) / self.settings.temperature, batch.targets)
        cosines = one @ other.transpose(1, 2) / self.settings.temperature  # (B, G, G)
        seconds = batch.tokens[:, self.settings.group :]
        same = (seconds[:, :, None] == seconds[:, None, :]).all(-1)  # (B, G, G): the same text is no wrong answer
        same = same & ~torch.eye(same.shape[-1], dtype=torch.bool, device=same.device)
        return loss.cross_entropy(cosines.masked_fill(same, -math.inf).flatten(0, 1), batch.targets.flatten())

    @staticmethod
    def _in_order(cosines: Tensor, ranks: Tensor) -> Tensor:
        """(B, G) each -> G · log(1 + Σ exp(s_i − s_j)) over pairs of pairs in which j is the closer one, summed over groups."""
        apart = cosines[:, :, None] - cosines[:, None, :]  # (B, G, G)
        apart = apart.masked_fill(ranks[:, :, None] >= ranks[:, None, :], -math.inf).flatten(1)
        return (torch.cat((apart, torch.zeros_like(apart[:, :1])), 1).logsumexp(1) * cosines.shape[1]).sum()
