"""Checkpoints: everything a run needs to go on as if it had never stopped.

    run/checkpoints/step-00000100/
      model/                 a Hugging Face directory
      state.safetensors      optimizer and random states
      state.json             step, counters, recipe
      files.json             size and SHA-256 of each

In: the state of a run. Out: such a directory, whole or not at all, and the newest good one again. No pickle.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from tsuzuri import directory as directories
from tsuzuri.errors import FormatError, Words
from tsuzuri.model import safe

NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True, slots=True)
class State:
    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]  # JSON


def save(root: Path, state: State, write_model: Callable[[Path], None], *, keep: int = 2) -> Path:
    """Write `root/step-…`, then remove older ones beyond `keep`, and newer ones: those are damaged, or the run would have
    gone on from them. Raises SpaceError, leaving all there were."""
    target = root / f"step-{state.step:08}"
    if target.is_dir() and not (target / directories.MANIFEST).is_file():
        shutil.rmtree(target)  # damaged, as `latest` has said; `whole` would take it for a person's own files
    with directories.whole(target) as temporary:
        (temporary / "model").mkdir()
        write_model(temporary / "model")
        safe.write(temporary / "state.safetensors", {name: value.contiguous() for name, value in state.tensors.items()})
        text = json.dumps({"step": state.step, **state.values}, ensure_ascii=False, indent=1)
        (temporary / "state.json").write_text(text, encoding="utf-8")
    kept = [path for path in _all(root) if path.name <= target.name][:keep]
    for path in _all(root):
        if path not in kept:
            shutil.rmtree(path)
    return target


def latest(root: Path) -> tuple[Path | None, list[Words]]:
    """The newest checkpoint that verifies (None: nothing was saved yet), and a notice for each newer one that does not.

    Raises FormatError when there are some and not one verifies: to start over is for the person to say.
    """
    notices: list[Words] = []
    found = _all(root)
    for path in found:
        try:
            directories.verify(path)
            return path, notices
        except FormatError as error:
            notices.append(
                Words(
                    f"途中保存 {path.name} は壊れているので、一つ前を使います（{error.found.ja}）",
                    f"Checkpoint {path.name} is damaged, trying the one before ({error.found.en})",
                )
            )
    if found:
        raise FormatError(
            Words(f"{root} から再開しようとしました。", f"Resuming from {root}."),
            found=Words(
                f"途中保存 {len(found)} 個のどれも壊れています（{found[0].name} ほか）。",
                f"All {len(found)} checkpoints are damaged ({found[0].name} and older).",
            ),
            todo=Words(
                "バックアップがあれば戻してください。最初から学習し直すなら、このディレクトリを消してください。",
                "Put back a copy if there is one. To train from the start again, remove that directory.",
            ),
        )
    return None, notices


def load(path: Path) -> State:
    """The state of a verified checkpoint."""
    values = json.loads((path / "state.json").read_text(encoding="utf-8"))
    return State(int(values.pop("step")), safe.read(path / "state.safetensors"), values)


def rng_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Every generator of the process: tensors for torch, JSON for Python and NumPy."""
    tensors = {"rng.cpu": torch.get_rng_state()}
    for number in range(torch.cuda.device_count()):
        tensors[f"rng.cuda.{number}"] = torch.cuda.get_rng_state(number)
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = numpy.random.get_state()
    values = {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, [int(k) for k in keys], int(position), int(has_gauss), float(cached)],
    }
    return tensors, values


def restore_rng(tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """The inverse of `rng_state`."""
    torch.set_rng_state(tensors["rng.cpu"])
    for number in range(torch.cuda.device_count()):
        if f"rng.cuda.{number}" in tensors:
            torch.cuda.set_rng_state(tensors[f"rng.cuda.{number}"], number)
    version, numbers, gauss = values["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached = values["numpy"]
    numpy.random.set_state((kind, numpy.array(keys, numpy.uint32), position, has_gauss, cached))


def _all(root: Path) -> list[Path]:
    """Checkpoints, newest first; what a killed process left is cleared away."""
    if not root.is_dir():
        return []
    for entry in root.glob(".step-*.tmp"):
        directories.recover(root / entry.name[1:].split(".")[0])
    return sorted((path for path in root.iterdir() if NAME.fullmatch(path.name)), reverse=True)
