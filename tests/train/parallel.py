"""Training runs for `test_shard.py`, done by one process or by several: `python parallel.py RUNS` or under torchrun.

In: JSON, a list of {directory, stop, choices}. Out: the directories. `stop`: the last process alone is asked to stop at that step.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed

from tsuzuri import device
from tsuzuri.errors import StopRequested
from tsuzuri.evals.windows import bits_per_byte
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.train.data import Batch
from tsuzuri.train.loop import LoopSettings, train
from tsuzuri.train.objectives import pretrain

SHAPE = {
    "vocab_size": 301,  # no process gets as many rows as the other
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
}


class Texts:
    """Documents of very different lengths, so that processes have very different numbers of targets."""

    def __init__(self, count: int) -> None:
        random = np.random.default_rng(0)
        self.texts = [random.integers(1, 300, length) for length in random.integers(1, 70, count)]
        self.lengths = self.byte_lengths = np.array([len(text) for text in self.texts])

    def __len__(self) -> int:
        return len(self.texts)

    def document(self, index: int) -> np.ndarray:
        return self.texts[index]


class Stopping(pretrain.Objective):
    """Asks this process to stop while it computes the given step."""

    stop: int | None = None
    steps = 0

    def batch(self, indices: Sequence[int]) -> Batch:
        self.steps += 1
        if self.steps == self.stop:
            signal.raise_signal(signal.SIGTERM)
        return super().batch(indices)


def run(directory: Path, *, tied: bool = False, stop: int | None = None, **choices: Any) -> None:
    """One run: six steps of four rows, scored every two steps, on from what is there."""
    model = Transformer(Shape(**SHAPE, tie_word_embeddings=tied)).initialise(1)
    objective = Stopping(pretrain.Settings(32), Texts(12), 0)
    rank, world = device.rank()
    objective.stop = stop if rank == world - 1 else None
    held = Texts(3)
    with suppress(StopRequested):
        train(
            model,
            objective,
            LoopSettings(**{"steps": 6, "batch": 4, "checkpoint_every": 0, "evaluate_every": 2, **choices}),
            directory,
            recipe={},
            evaluate=lambda model, step: {"bits_per_byte": bits_per_byte(model, held, 0).bits_per_byte},
        )


def main(runs: str) -> None:
    for entry in json.loads(runs):
        run(Path(entry["directory"]), stop=entry["stop"], **entry["choices"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1])
    if distributed.is_initialized():
        distributed.destroy_process_group()
