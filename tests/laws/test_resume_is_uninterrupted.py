"""Stopped at any step and resumed = never stopped: weights, optimizer, random states and journal, to the last bit."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tsuzuri.errors import FormatError, StopRequested
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.train import checkpoint
from tsuzuri.train.data import Batch
from tsuzuri.train.loop import LoopSettings, train
from tsuzuri.train.objectives import pretrain
from tsuzuri.train.watch import Metrics, Watch

SHAPE = Shape(vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, max_position_embeddings=32)
STEPS = 5


class Texts:
    """Documents of very different lengths: rows are packed, and epochs end in the middle of a step."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.texts = [random.integers(1, 300, length) for length in random.integers(1, 70, 12)]
        self.lengths = np.array([len(text) for text in self.texts])

    def document(self, index: int) -> np.ndarray:
        return self.texts[index]


class Objective(pretrain.Objective):
    """Next tokens, with noise drawn from torch's own generator, as dropout would: its state must be kept too."""

    def loss(self, model: Transformer, batch: Batch) -> Tensor:
        return super().loss(model, batch) * (1 + 0.1 * torch.rand(()))


def run(directory: Path, watch: Watch | None = None, **choices: Any) -> Transformer:
    """From the start, or on from what is there; a model with other weights shows that all come from the checkpoint."""
    resumed = (directory / "checkpoints").exists()
    model = Transformer(SHAPE).initialise(99 if resumed else 1)
    settings = LoopSettings(**{"steps": STEPS, "batch": 3, "micro_batch": 2, "checkpoint_every": 2, **choices})
    train(model, Objective(pretrain.Settings(32), Texts(), 0), settings, directory, recipe={}, watch=watch)
    return model


def left(directory: Path) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """All tensors of the newest checkpoint, and what the journal says but for the seconds."""
    found, _ = checkpoint.latest(directory / "checkpoints")
    assert found is not None and found.name == f"step-{STEPS:08}"
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    timed = ("seconds", "tokens_per_second")
    return checkpoint.load(found).tensors, [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]


def same(directory: Path, wanted: Path) -> None:
    (mine, my_journal), (theirs, their_journal) = left(directory), left(wanted)
    assert my_journal == their_journal
    assert [record["step"] for record in my_journal] == list(range(1, STEPS + 1))
    assert set(mine) == set(theirs)
    different = [name for name in mine if not torch.equal(mine[name], theirs[name])]
    assert different == []
    weights = [path / "checkpoints" / f"step-{STEPS:08}" / "model" / "model.safetensors" for path in (directory, wanted)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


class Crash(Exception):
    pass


class Interrupting(Watch):
    """Something happens when a step has been written down, before it can be saved."""

    def __init__(self, at: int, crash: bool) -> None:
        self.at, self.crash = at, crash

    def step(self, metrics: Metrics, steps: int) -> None:
        if metrics.step == self.at and self.crash:
            raise Crash
        if metrics.step == self.at:
            signal.raise_signal(signal.SIGTERM)


PRECISIONS = [("bfloat16", "muon"), ("float32", "adamw"), ("float64", "muon")]


@pytest.fixture(scope="module", params=PRECISIONS, ids=str)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run that nothing interrupted, and its settings."""
    precision, optimizer = request.param
    choices = {"precision": precision, "optimizer": optimizer}
    directory = tmp_path_factory.mktemp("whole")
    run(directory, **choices)
    return directory, choices


@pytest.mark.parametrize("at", range(1, STEPS + 1))
@pytest.mark.parametrize("crash", [False, True], ids=["stop", "crash"])
def test_interrupted_once(tmp_path: Path, kind: tuple[Path, dict[str, Any]], at: int, crash: bool) -> None:
    """A stop goes on after its step; a crash from the last checkpoint, doing up to two steps again."""
    wanted, choices = kind
    with pytest.raises(Crash if crash else StopRequested):
        run(tmp_path, Interrupting(at, crash), **choices)
    run(tmp_path, **choices)
    same(tmp_path, wanted)


def test_interrupted_after_every_step(tmp_path: Path, kind: tuple[Path, dict[str, Any]]) -> None:
    wanted, choices = kind
    for at in range(1, STEPS + 1):
        with pytest.raises(StopRequested):
            run(tmp_path, Interrupting(at, crash=False), **choices)
    run(tmp_path, **choices)
    same(tmp_path, wanted)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, kind: tuple[Path, dict[str, Any]]) -> None:
    wanted, choices = kind
    run(tmp_path, **choices)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").rglob("*")}
    run(tmp_path, **choices)
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").rglob("*")}
    same(tmp_path, wanted)


class Listening(Watch):
    def __init__(self) -> None:
        self.notices: list[str] = []

    def notice(self, words: object) -> None:
        self.notices.append(str(words))


def damage(directory: Path, count: int) -> None:
    """The newest checkpoints lose the end of their largest file."""
    for path in sorted((directory / "checkpoints").iterdir(), reverse=True)[:count]:
        data = (path / "state.safetensors").read_bytes()
        (path / "state.safetensors").write_bytes(data[:-100])


def test_from_the_checkpoint_before_a_damaged_one(tmp_path: Path, kind: tuple[Path, dict[str, Any]]) -> None:
    wanted, choices = kind
    with pytest.raises(StopRequested):
        run(tmp_path, Interrupting(3, crash=False), **choices)
    damage(tmp_path, 1)
    watch = Listening()
    run(tmp_path, watch, **choices)
    assert len(watch.notices) == 1 and "step-00000003" in watch.notices[0]
    same(tmp_path, wanted)


def test_when_every_checkpoint_is_damaged_nothing_is_thrown_away(tmp_path: Path, kind: tuple[Path, dict[str, Any]]) -> None:
    _, choices = kind
    with pytest.raises(StopRequested):
        run(tmp_path, Interrupting(3, crash=False), **choices)
    damage(tmp_path, 2)
    files = sorted(tmp_path.rglob("*"))
    with pytest.raises(FormatError, match="2 個のどれも壊れて"):
        run(tmp_path, **choices)
    assert sorted(tmp_path.rglob("*")) == files


def test_another_optimizers_checkpoint_is_refused(tmp_path: Path) -> None:
    run(tmp_path, steps=2, optimizer="muon", precision="bfloat16")
    with pytest.raises(FormatError, match="別の形のモデルか設定"):
        run(tmp_path, steps=4, optimizer="adamw", precision="bfloat16")
    with pytest.raises(FormatError, match="別の形のモデルか設定"):
        run(tmp_path, steps=4, optimizer="muon", precision="float32")
