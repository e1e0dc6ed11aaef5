"""The seams: short enough to be read first, and free of torch."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from tsuzuri import types


def test_the_first_file_to_open_stays_short() -> None:
    assert len(Path(types.__file__).read_text(encoding="utf-8").splitlines()) < 150


@pytest.mark.parametrize("module", ["types", "errors", "config", "folder", "directory", "engine.sampling", "chat.scripted", "commands"])
def test_it_loads_without_torch(module: str) -> None:
    """Also what a server of remote models needs."""
    script = f"import sys, tsuzuri.{module}; print([name for name in ('torch', 'tokenizers', 'rich') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout == "[]\n"


def test_the_values_that_cross_a_seam_cannot_be_changed() -> None:
    values = [value for value in vars(types).values() if dataclasses.is_dataclass(value)]
    assert len(values) >= 10
    for kind in values:
        assert kind.__dataclass_params__.frozen, kind
        assert "__slots__" in vars(kind), kind
