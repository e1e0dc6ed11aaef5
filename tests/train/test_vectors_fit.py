"""The epochs: the loss falls, the seed decides every bit, and stopped anywhere is as if never stopped."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from word_lines import ordered, some

from tsuzuri.errors import ConfigError, StopRequested, TrainingError
from tsuzuri.train.vectors.fit import OF_METHOD, Outcome, VectorSettings, fit
from tsuzuri.train.vectors.lines import Lines
from tsuzuri.train.watch import Metrics, Watch

METHODS = ("skip-gram", "cbow", "glove")


class Stopping(Watch):
    """Presses Ctrl-C when so many losses have been shown; keeps what it was told."""

    def __init__(self, after: int) -> None:
        self.after, self.shown = after, list[Metrics]()

    def step(self, metrics: Metrics, steps: int) -> None:
        self.shown.append(metrics)
        if len(self.shown) == self.after:
            os.kill(os.getpid(), signal.SIGINT)


def trained(directory: Path, watch: Watch | None = None, text: Lines | None = None, **choices: Any) -> Outcome:
    settings = VectorSettings(**{"vector_size": 12, "epochs": 2, "seed": 3, **choices})
    return fit(text or some(4000), settings, directory, watch=watch)


@pytest.mark.parametrize("method", METHODS)
def test_words_of_a_topic_come_together(method: Any, tmp_path: Path) -> None:
    epochs = 15 if method == "glove" else 12
    rate = {} if method == "glove" else {"sample": 0.0, "learning_rate": 0.05}
    found = trained(tmp_path, text=ordered(), method=method, epochs=epochs, **rate)
    assert len(found.losses) == epochs and found.losses[-1] < found.losses[0]
    unit = torch.nn.functional.normalize(found.vectors - found.vectors.mean(0))
    cosines = unit @ unit.T
    same = torch.eye(10).repeat_interleave(5, 0).repeat_interleave(5, 1).bool()
    within = cosines[same & ~torch.eye(50).bool()].mean()
    assert within > cosines[~same].mean() + 0.5


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides_every_bit(method: Any, tmp_path: Path) -> None:
    one, again, other = (trained(tmp_path / name, method=method, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert torch.equal(one.vectors, again.vectors)
    assert one.losses == again.losses
    assert not torch.equal(one.vectors, other.vectors)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("after", [1, 3])
def test_stopped_and_resumed_is_uninterrupted(method: Any, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tsuzuri.train.vectors import glove

    monkeypatch.setattr(glove, "MOST_ROWS", 8)  # several steps an epoch
    whole = trained(tmp_path / "whole", method=method)
    with pytest.raises(StopRequested, match="続きから再開"):
        trained(tmp_path / "parts", Stopping(after), method=method)
    resumed = trained(tmp_path / "parts", method=method)
    assert torch.equal(resumed.vectors, whole.vectors)
    assert resumed.losses == whole.losses
    assert trained(tmp_path / "parts", method=method).resumed_at == 2, "what is finished is only read"


def test_progress_goes_to_its_end_and_tells_words_a_second(tmp_path: Path) -> None:
    watch = Stopping(after=0)
    found = trained(tmp_path, watch)
    steps = [metrics.step for metrics in watch.shown]
    assert steps == sorted(steps) and steps[-1] == 200
    assert all(metrics.tokens_per_second > 0 for metrics in watch.shown)
    assert found.words_per_second > 0


def test_a_rate_that_is_too_large_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="learning_rate"):
        trained(tmp_path, learning_rate=1e30, epochs=3)


# ── settings


def test_what_the_recipe_leaves_out_is_filled_in_by_the_method() -> None:
    for method, values in OF_METHOD.items():
        settings: Any = VectorSettings(method=method)  # type: ignore[arg-type]
        assert {name: getattr(settings, name) for name in values} == values
    assert VectorSettings(window=2).window == 2


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"method": "glove", "negative": 5}, "negative"),
        ({"method": "glove", "sample": 0.0}, "sample"),
        ({"method": "cbow", "x_max": 10.0}, "x_max"),
        ({"vector_size": 0}, "vector_size"),
        ({"vector_size": 5000}, "vector_size"),
        ({"window": 0}, "window"),
        ({"window": 101}, "window"),
        ({"sample": 1.5}, "sample"),
        ({"sample": float("nan")}, "sample"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"seed": -1}, "seed"),
        ({"epochs": 0}, "epochs"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        VectorSettings(**settings)
