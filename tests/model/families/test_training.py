"""Every family trains through the one loop and generates through the one engine, from the shape that a recipe gives it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tsuzuri.engine.engine import LocalEngine
from tsuzuri.engine.sampling import Sampling
from tsuzuri.folder import find, names
from tsuzuri.model import weights
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.train import loop
from tsuzuri.train.objectives import pretrain

sys.path.insert(0, str(Path(__file__).parents[2]))
from test_open_folders import usual

FAMILIES = [name for name in names(weights.FAMILIES) if hasattr(find(weights.FAMILIES, name), "names")]
# What predicts the next token: other kinds of model have objectives of their own.
DECODERS = [
    name
    for name in FAMILIES
    for shape in [usual(find(weights.FAMILIES, name))]
    if isinstance(shape, Shape) and shape.head == "next_token" and shape.causal and not shape.cross_attention
]


class Circle:
    """Documents that count round and round from 1 to 12: easy to learn, with something to copy."""

    lengths = np.array([10] * 12)

    def document(self, index: int) -> np.ndarray:
        return (index + np.arange(10)) % 12 + 1


@pytest.mark.parametrize("name", DECODERS)
def test_the_loss_falls_and_the_engine_generates(tmp_path: Path, name: str) -> None:
    family = find(weights.FAMILIES, name)
    model: Any = weights.build(family, usual(family))
    if isinstance(model, Transformer):
        model.initialise(1)
    objective = pretrain.Objective(pretrain.Settings(16), Circle(), 0)
    settings = loop.LoopSettings(steps=24, batch=8, precision="float32", learning_rate=0.02, checkpoint_every=0)
    loop.train(model, objective, settings, tmp_path, recipe={}, family=name)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert losses[-1] < 0.8 * losses[0], losses
    engine = LocalEngine(model.eval(), [], model.context_length)
    found = [token.id for token in engine.stream([0, 3, 4, 5], Sampling(temperature=0, max_tokens=8))]
    assert len(found) == 8 and all(0 <= each < 20 for each in found)
