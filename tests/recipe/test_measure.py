"""What the machine can do: measured where it tells, and said to be assumed where it does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tsuzuri.recipe import measure
from tsuzuri.recipe.measure import WATTS_PER_CORE, cache, clock, matrix_rate, others, power, read_rate

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


def test_the_read_rate_counts_four_bytes_a_number_and_the_fastest_round(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1e7 < read_rate(CPU, size=1 << 20, rounds=3) < 1e13
    clock = iter([0.0, 4.0, 10.0, 12.0])
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    assert read_rate(CPU, size=4000, rounds=2) == 4000 / 2.0


def test_the_read_rate_is_measured_on_more_than_the_cache_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "CACHES", tmp_path)
    assert cache() is None
    for index, size in enumerate(("48K", "2048K", "600M")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n")
    assert cache() == 600 << 20
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert measure._more_than_cached() == min(1200 << 20, memory // 8 // 4 * 4)
    for unclear in ("large\n", "", "K", "9T"):
        (tmp_path / "index2" / "size").write_text(unclear)
        assert cache() == 2048 << 10


def test_others_are_what_the_machine_did_less_what_we_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """3 of 4 core seconds in 2 seconds were not ours; idle, waiting for disks and a guest's share are no work."""
    monkeypatch.setattr(measure, "STAT", tmp_path / "stat")
    moments = []
    for wall, ours, line in ((0.0, 1.0, "cpu  100 0 100 500 9 0 0 0 70 0"), (2.0, 2.0, "cpu  300 50 150 900 99 25 25 50 170 0")):
        measure.STAT.write_text(f"{line}\ncpu0 1 2 3\n")
        monkeypatch.setattr(measure.time, "perf_counter", lambda wall=wall: wall)
        monkeypatch.setattr(measure.time, "process_time", lambda ours=ours: ours)
        monkeypatch.setattr(measure.os, "sysconf", lambda _: 100)
        moments.append(clock())
    assert others(*moments) == pytest.approx(1.5)
    measure.STAT.write_text("nothing\n")
    assert others(moments[0], clock()) is None
    measure.STAT.unlink()
    assert others(clock(), moments[1]) is None
