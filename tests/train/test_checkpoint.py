"""Checkpoints: whole or not at all, the newest good one, nothing lost and nothing kept for ever, random state included."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tsuzuri.errors import FormatError, SpaceError
from tsuzuri.train import checkpoint
from tsuzuri.train.checkpoint import State


def write(root: Path, step: int, *, keep: int = 2, note: str = "x") -> Path:
    state = State(step, {"first.w": torch.full((3,), float(step))}, {"tokens": step * 10, "語": "綴り"})
    return checkpoint.save(root, state, lambda path: (path / "config.json").write_text(note), keep=keep)


def steps(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = write(tmp_path, 7)
    assert path.name == "step-00000007"
    assert sorted(file.name for file in path.rglob("*") if file.is_file()) == [
        "config.json",
        "files.json",
        "state.json",
        "state.safetensors",
    ]
    found = checkpoint.load(path)
    assert (found.step, found.values) == (7, {"tokens": 70, "語": "綴り"})
    assert torch.equal(found.tensors["first.w"], torch.full((3,), 7.0))


def test_the_newest_is_taken_and_old_ones_go(tmp_path: Path) -> None:
    for step in (2, 4, 100, 6_000_000):
        write(tmp_path, step)
    assert steps(tmp_path) == ["step-00000100", "step-06000000"]
    assert checkpoint.latest(tmp_path) == (tmp_path / "step-06000000", [])


def test_one_is_enough_where_one_is_wanted(tmp_path: Path) -> None:
    for step in (2, 4):
        write(tmp_path, step, keep=1)
    assert steps(tmp_path) == ["step-00000004"]


def test_nothing_saved_yet(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) == (None, [])
    assert checkpoint.latest(tmp_path / "none") == (None, [])


def cut(path: Path) -> None:
    data = (path / "state.safetensors").read_bytes()
    (path / "state.safetensors").write_bytes(data[: len(data) // 2])


def flip(path: Path) -> None:
    data = bytearray((path / "state.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "state.safetensors").write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": cut,
    "one bit": flip,
    "no weights": lambda path: (path / "model" / "config.json").unlink(),
    "no manifest": lambda path: (path / "files.json").unlink(),
    "empty": lambda path: [file.unlink() for file in path.rglob("*") if file.is_file()],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_one_is_passed_over_with_a_notice(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    write(tmp_path, 2)
    damage(write(tmp_path, 4))
    found, notices = checkpoint.latest(tmp_path)
    assert found == tmp_path / "step-00000002"
    assert len(notices) == 1
    assert "step-00000004" in notices[0].ja and "壊れている" in notices[0].ja
    assert "step-00000004" in notices[0].en


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("again", [3, 4])
def test_a_damaged_one_is_replaced_when_the_run_comes_by_again(tmp_path: Path, damage: Callable[[Path], object], again: int) -> None:
    """Saved at the same step, or earlier because someone stopped the run: what is kept is good."""
    write(tmp_path, 2)
    damage(write(tmp_path, 4))
    path = write(tmp_path, again, keep=2)
    assert steps(tmp_path) == ["step-00000002", path.name]
    assert checkpoint.latest(tmp_path) == (path, [])


def test_when_all_are_damaged_the_person_decides(tmp_path: Path) -> None:
    """Starting over unasked would throw away what can perhaps be mended or put back."""
    for step in (2, 4):
        cut(write(tmp_path, step))
    with pytest.raises(FormatError, match="2 個のどれも壊れて") as caught:
        checkpoint.latest(tmp_path)
    assert "このディレクトリを消してください" in str(caught.value)
    assert steps(tmp_path) == ["step-00000002", "step-00000004"]


def test_a_write_that_fails_leaves_what_there_was(tmp_path: Path) -> None:
    write(tmp_path, 2)

    def fail(path: Path) -> None:
        (path / "half").write_text("x")
        raise OSError(28, "No space left on device", str(path / "half"))

    with pytest.raises(SpaceError):
        checkpoint.save(tmp_path, State(4, {"w": torch.zeros(1)}, {}), fail)
    assert steps(tmp_path) == ["step-00000002"]
    assert checkpoint.latest(tmp_path)[0] == tmp_path / "step-00000002"


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    write(tmp_path, 2)
    for name in (".step-00000004.4194304-0a1b2c3d.tmp", ".step-00000002.4194304-0a1b2c3d.tmp"):  # past the highest process id
        (tmp_path / name / "model").mkdir(parents=True)
    assert checkpoint.latest(tmp_path)[0] == tmp_path / "step-00000002"
    assert steps(tmp_path) == ["step-00000002"]


def test_other_files_beside_the_checkpoints_stay(tmp_path: Path) -> None:
    (tmp_path / "メモ.txt").write_text("大切")
    (tmp_path / "step-2").mkdir()
    for step in (2, 4, 6):
        write(tmp_path, step)
    assert steps(tmp_path) == ["step-00000004", "step-00000006", "step-2", "メモ.txt"]


def drawn() -> tuple[object, ...]:
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.standard_normal(), torch.rand(3).tolist()


def test_random_state_goes_through_a_checkpoint(tmp_path: Path) -> None:
    """Half of a pair of Gaussians still to come included."""
    random.gauss(0, 1), np.random.standard_normal()
    tensors, values = checkpoint.rng_state()
    wanted = drawn(), drawn()
    path = checkpoint.save(tmp_path, State(1, tensors, {"rng": values}), lambda path: None)
    found = checkpoint.load(path)
    checkpoint.restore_rng(found.tensors, found.values["rng"])
    assert (drawn(), drawn()) == wanted
