"""What the machine can do: measured where it tells, and said to be assumed where it does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tsuzuri.recipe import measure
from tsuzuri.recipe.measure import WATTS_PER_CORE, matrix_rate, power

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
def test_the_matrix_rate_is_that_of_some_machine(precision: str) -> None:
    """From a small board to a large server: 10 MFLOP/s … 100 TFLOP/s."""
    assert 1e7 < matrix_rate(CPU, precision, size=128, rounds=2) < 1e14


def test_the_matrix_rate_counts_a_multiplication_and_an_addition(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product of size n is 2 n³ operations; the fastest round counts."""
    clock = iter([0.0, 4.0, 10.0, 12.0])
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    assert matrix_rate(CPU, "float32", size=10, rounds=2) == 2 * 10**3 / 2.0


def test_watts_as_given() -> None:
    found = power(65.0)
    assert found.watts == 65.0
    assert str(found.how) == "指定値"


@pytest.mark.parametrize("content", [None, "", "no number"])
def test_watts_are_assumed_and_said_to_be_where_nothing_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None) -> None:
    monkeypatch.setattr(measure, "ENERGY", tmp_path / "energy_uj")
    if content is not None:
        measure.ENERGY.write_text(content)
    found = power(None)
    assert found.watts == WATTS_PER_CORE * len(os.sched_getaffinity(0))
    assert "仮定" in str(found.how)


@pytest.mark.parametrize(("after", "measured"), [(50_000_000, True), (5_000_000, False), (10_000_000, False)])
def test_watts_are_measured_where_the_processor_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, measured: bool) -> None:
    """40 J over the loop's seconds; a counter that went backwards or stood still tells nothing."""
    counts = iter([10_000_000, after])
    monkeypatch.setattr(measure, "_energy", lambda: next(counts))
    found = power(None)
    assert ("計測" in str(found.how)) == measured
    if measured:
        assert 20 < found.watts <= 80, "the loop runs for half a second, or a little more"
