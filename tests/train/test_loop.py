"""The loop: it learns, counts, writes down, evaluates, keeps, and stops for a reason it names."""

from __future__ import annotations

import json
import math
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tsuzuri.errors import ConfigError, StopRequested, TrainingError
from tsuzuri.model import weights
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.train import loop
from tsuzuri.train.data import Batch
from tsuzuri.train.loop import LoopSettings, Outcome
from tsuzuri.train.objectives import pretrain
from tsuzuri.train.watch import Metrics, Watch
from tsuzuri.types import Past

SHAPE = Shape(vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, max_position_embeddings=16)


class Counting:
    """Documents that count on from a random number: easy to learn. 12 targets, and 4 of padding in a row of 16."""

    def __init__(self, count: int = 20) -> None:
        starts = np.random.default_rng(0).integers(1, 250, count)
        self.texts = [np.arange(start, start + 11) for start in starts]
        self.lengths = np.array([11] * count)

    def document(self, index: int) -> np.ndarray:
        return self.texts[index]


def objective(documents: int = 20) -> pretrain.Objective:
    """One row a document."""
    return pretrain.Objective(pretrain.Settings(16), Counting(documents), 0)


def model() -> Transformer:
    return Transformer(SHAPE).initialise(1)


def train(directory: Path, *, made: Transformer | None = None, rows: int = 20, **choices: Any) -> Outcome:
    """Arguments of LoopSettings, and the hooks."""
    hooks = {name: choices.pop(name) for name in ("watch", "evaluate", "matrix_rate", "write_extras") if name in choices}
    settings = LoopSettings(**{"steps": 6, "batch": 4, "precision": "float32", **choices})
    return loop.train(made or model(), objective(rows), settings, directory, recipe={"name": "toy"}, **hooks)


def journal(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def checkpoints(directory: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (directory / "checkpoints").iterdir())


# ── learning


@pytest.mark.parametrize("precision", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_the_loss_falls_on_a_toy(tmp_path: Path, optimizer: str, precision: str) -> None:
    """From knowing nothing (ln 300 = 5.70) to counting."""
    made = model()
    outcome = train(tmp_path, made=made, steps=40, batch=8, optimizer=optimizer, precision=precision, learning_rate=0.02)
    losses = [record["loss"] for record in journal(tmp_path)]
    assert losses[0] == pytest.approx(math.log(300), abs=0.05)
    assert losses[-1] == outcome.loss < 1.5
    assert {str(weight.dtype) for weight in made.parameters()} == {f"torch.{precision}"}


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path: Path) -> None:
    trained = []
    for number, seed in enumerate((1, 1, 2)):
        made = model()
        train(tmp_path / str(number), made=made, seed=seed)
        trained.append(made.embedding.weight.detach())
    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])


def test_micro_batches_of_bfloat16_differ_by_rounding_alone(tmp_path: Path) -> None:
    outcomes = [train(tmp_path / str(rows), precision="bfloat16", batch=8, micro_batch=rows) for rows in (8, 3)]
    assert outcomes[0].loss == pytest.approx(outcomes[1].loss, rel=2e-3)


# ── counting


def test_what_is_counted(tmp_path: Path) -> None:
    """6 steps of 4 rows of 12 targets, over 20 rows: no matter that an epoch ends on the way."""
    outcome = train(tmp_path, matrix_rate=1e12)
    records = journal(tmp_path)
    assert (outcome.steps, outcome.tokens, outcome.resumed_at) == (6, 288, 0)
    assert [(record["step"], record["tokens"]) for record in records] == [(n, 48 * n) for n in range(1, 7)]
    assert outcome.seconds == pytest.approx(sum(record["seconds"] for record in records))
    parameters = sum(weight.numel() for weight in model().parameters())
    for record in records:
        assert record["tokens_per_second"] == pytest.approx(64 / record["seconds"])
        assert record["mfu"] == pytest.approx(6 * parameters * record["tokens_per_second"] / 1e12)
        assert record["gradient_norm"] > 0


def test_without_a_measured_rate_nothing_is_said_of_mfu(tmp_path: Path) -> None:
    train(tmp_path, steps=1)
    assert journal(tmp_path)[0]["mfu"] is None


def test_rates_follow_the_schedule(tmp_path: Path) -> None:
    train(tmp_path, schedule="cosine", warmup=0.5)
    settings = LoopSettings(steps=6, schedule="cosine", warmup=0.5)
    assert [record["factor"] for record in journal(tmp_path)] == [settings.factor(step, 6) for step in range(6)]


class Noting(pretrain.Objective):
    """Keeps which rows were asked for."""

    def batch(self, indices: Sequence[int]) -> Batch:
        self.seen = [*getattr(self, "seen", []), *indices]
        return super().batch(indices)


def test_every_epoch_sees_every_row_once(tmp_path: Path) -> None:
    """20 rows, 3 a step: two epochs are 13 steps and a third of one."""
    noting = Noting(pretrain.Settings(16), Counting(), 0)
    loop.train(model(), noting, LoopSettings(epochs=2, batch=3, precision="float32"), tmp_path, recipe={})
    assert [sorted(noting.seen[:20]), sorted(noting.seen[20:40])] == [list(range(20))] * 2
    assert len(noting.seen) == 14 * 3


@pytest.mark.parametrize(("epochs", "batch", "steps"), [(1, 4, 5), (2, 4, 10), (1, 7, 3), (0.5, 4, 3), (0.01, 4, 1), (1, 64, 1)])
def test_epochs_become_steps(tmp_path: Path, epochs: float, batch: int, steps: int) -> None:
    """20 rows; a step that is begun is done whole."""
    assert train(tmp_path, steps=None, epochs=epochs, batch=batch).steps == steps


# ── hooks and what is kept


def test_evaluation_on_the_way(tmp_path: Path) -> None:
    """Every two steps, but not after the last: that score is the caller's."""
    seen: list[int] = []

    def evaluate(found: Transformer, step: int) -> dict[str, float]:
        seen.append(step)
        return {"bits_per_byte": step / 10}

    train(tmp_path, evaluate=evaluate, evaluate_every=2)
    assert seen == [2, 4]
    assert [record.get("bits_per_byte") for record in journal(tmp_path)] == [None, 0.2, None, 0.4, None, None]


@pytest.mark.parametrize(("every", "keep", "kept"), [(2, 2, [4, 6]), (2, 9, [2, 4, 6]), (4, 2, [4, 6]), (0, 2, [6]), (5, 1, [6])])
def test_checkpoints_that_are_kept(tmp_path: Path, every: int, keep: int, kept: list[int]) -> None:
    train(tmp_path, checkpoint_every=every, keep=keep)
    assert checkpoints(tmp_path) == kept


def test_a_checkpoint_holds_a_model_directory_recipe_and_extras(tmp_path: Path) -> None:
    made = model()
    train(tmp_path, made=made, write_extras=lambda path: (path / "extra.txt").write_text("x"))
    path = tmp_path / "checkpoints" / "step-00000006"
    stored = weights.load(path / "model")
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(made.parameters(), stored.parameters(), strict=True))
    assert (path / "model" / "extra.txt").is_file()
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    assert (state["step"], state["tokens"], state["recipe"]) == (6, 288, {"name": "toy"})


class Recorder(Watch):
    def __init__(self) -> None:
        self.heard: list[object] = []

    def begin(self, steps: int, done: int) -> None:
        self.heard.append(("begin", steps, done))

    def step(self, metrics: Metrics, steps: int) -> None:
        self.heard.append(metrics.step)

    def end(self) -> None:
        self.heard.append("end")


def test_the_watch_hears_begin_steps_and_end(tmp_path: Path) -> None:
    watch = Recorder()
    train(tmp_path, steps=2, watch=watch)
    assert watch.heard == [("begin", 2, 0), 1, 2, "end"]


# ── stopping


class Poisoned(Transformer):
    """Not a number from the third step on, in the loss or only in the gradient."""

    calls, where = 0, ""

    def hidden(self, tokens: Tensor, past: Past) -> Tensor:
        self.calls += 1
        out = super().hidden(tokens, past)
        if self.calls < 3:
            return out
        return out * math.nan if self.where == "loss" else out * _infinite_slope(out)


def _infinite_slope(x: Tensor) -> Tensor:
    """One, with a slope that is not a number."""
    return 1 + (x - x.detach()).abs().sqrt()


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, where: str) -> None:
    """The step is not written down, and the checkpoint before it is good: resumed with sane weights, it goes on from there."""
    poisoned = Poisoned(SHAPE)
    poisoned.initialise(1)
    poisoned.where = where
    watch = Recorder()
    with pytest.raises(TrainingError, match="3 ステップ目") as caught:
        train(tmp_path, made=poisoned, checkpoint_every=1, watch=watch)
    assert "途中保存は残って" in str(caught.value)
    assert watch.heard[-1] == "end"
    assert all(weight.isfinite().all() for weight in poisoned.parameters())
    assert [record["step"] for record in journal(tmp_path)] == [1, 2]
    assert checkpoints(tmp_path) == [1, 2]
    assert train(tmp_path).resumed_at == 2
    assert [record["step"] for record in journal(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="一行もありません"):
        train(tmp_path, rows=0)


class Stopping(Watch):
    """Asks to stop, by a signal, while a step is shown."""

    def __init__(self, at: int, number: int = signal.SIGINT) -> None:
        self.at, self.number = at, number

    def step(self, metrics: Metrics, steps: int) -> None:
        if metrics.step == self.at:
            signal.raise_signal(self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [1, 4, 6])
def test_a_signal_stops_after_the_step_and_saves_it(tmp_path: Path, at: int, number: int) -> None:
    """After the last step too: who asked to stop does not want the next stage."""
    before = signal.getsignal(number)
    with pytest.raises(StopRequested, match=f"{at} / 6 ステップ"):
        train(tmp_path, watch=Stopping(at, number))
    assert checkpoints(tmp_path) == [at]
    assert signal.getsignal(number) is before
    assert train(tmp_path).resumed_at == at


class Impatient(Stopping):
    def step(self, metrics: Metrics, steps: int) -> None:
        super().step(metrics, steps)
        super().step(metrics, steps)


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, watch=Impatient(2))
    assert not (tmp_path / "checkpoints").exists()


def test_it_runs_in_a_thread_too(tmp_path: Path) -> None:
    """Where signals cannot be taken, they are left alone."""
    found: list[Outcome] = []
    thread = threading.Thread(target=lambda: found.append(train(tmp_path)))
    thread.start()
    thread.join()
    assert found[0].steps == 6


# ── settings

WRONG = [
    ({"steps": 5, "epochs": 1.0}, "steps と epochs"),
    ({"steps": None}, "steps と epochs"),
    ({"steps": 0}, "steps が 0"),
    ({"steps": None, "epochs": -1.0}, "epochs が -1"),
    ({"batch": 0}, "batch が 0"),
    ({"micro_batch": -2}, "micro_batch が -2"),
    ({"keep": 0}, "keep が 0"),
    ({"evaluate_every": -1}, "evaluate_every が -1"),
    ({"checkpoint_every": -5}, "checkpoint_every が -5"),
    ({"precision": "float16"}, "float16"),
    ({"learning_rate": -1.0}, "learning_rate"),
]


@pytest.mark.parametrize(("choices", "message"), WRONG, ids=str)
def test_impossible_settings_are_refused_by_name(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoopSettings(**{"steps": 5, **choices})
