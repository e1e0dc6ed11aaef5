"""A batch in parts = the whole batch: the same loss, gradients and weights, however unevenly its targets fall on the rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.train.data import Batch
from tsuzuri.train.loop import LoopSettings, train
from tsuzuri.train.objectives import sft

SHAPE = Shape(vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, max_position_embeddings=40)
END = 2
TRAINED = (1, 38, 2, 20, 5, 11)  # targets of each row: a mean of means would weigh the first row 38 times as much as the second


def built() -> Transformer:
    """No zero matrices: every gradient is there from the first step."""
    model, generator = Transformer(SHAPE), torch.Generator().manual_seed(1)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.2, generator=generator)
    return model


def objective() -> sft.Objective:
    """Conversations of 40 tokens, one a row, of which the last few are trained."""
    random = np.random.default_rng(4)

    def example(count: int) -> sft.Example:
        ids: NDArray[np.int64] = random.integers(4, 300, 40)
        ids[-1] = END
        return sft.Example(ids, np.arange(40) >= 40 - count)

    return sft.Objective(sft.Settings(39), [example(count) for count in TRAINED], 0, END)


def stepped(micro_batch: int | None, optimizer: str, directory: Path) -> tuple[dict[str, Tensor], float]:
    model = built()
    settings = LoopSettings(steps=3, batch=6, micro_batch=micro_batch, precision="float64", optimizer=optimizer, clip=0.05)
    outcome = train(model, objective(), settings, directory, recipe={})
    return {name: weight.detach() for name, weight in model.named_parameters()}, outcome.loss


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("micro_batch", [1, 2, 3, 4])
def test_stepped_weights_are_those_of_the_whole_batch(tmp_path: Path, micro_batch: int, optimizer: str) -> None:
    """Three steps with clipping and decay; 4 does not divide 6."""
    whole, whole_loss = stepped(None, optimizer, tmp_path / "whole")
    parts, loss = stepped(micro_batch, optimizer, tmp_path / "parts")
    assert loss == pytest.approx(whole_loss, rel=1e-12)
    start = dict(built().named_parameters())
    for name, weight in whole.items():
        assert (parts[name] - weight).norm() <= 1e-12 * weight.norm(), name
        assert (weight - start[name]).norm() > 1e-4 * weight.norm(), f"{name} did not move"


def gradients(parts: list[Batch], targets: int) -> dict[str, Tensor]:
    model = built().double()
    for part in parts:
        (objective().loss(model, part) / targets).backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_gradients_of_the_parts_sum_to_those_of_the_whole(rows: int) -> None:
    batch = objective().batch(list(range(6)))
    assert sorted((batch.targets >= 0).sum(-1).tolist()) == sorted(TRAINED)
    whole, parts = gradients([batch], batch.trained), gradients(batch.split(rows), batch.trained)
    assert len(whole) == len(dict(built().named_parameters()))
    for name, gradient in whole.items():
        assert (parts[name] - gradient).norm() <= 1e-12 * gradient.norm(), name
