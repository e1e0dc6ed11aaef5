"""The package as others meet it: its one door is shown, its types are shipped."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import typing
from collections.abc import Generator

from place import ROOT

import tsuzuri
from tsuzuri.chat.local import LocalModel


def test_the_door_is_shown_before_it_is_used() -> None:
    script = "import sys, tsuzuri; print('load' in dir(tsuzuri), '__version__' in dir(tsuzuri), 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "True True False\n"
    assert set(tsuzuri.__all__) <= set(dir(tsuzuri))


def test_whatever_is_no_python_is_shipped() -> None:
    """Types, prices, weights and the text of the checks: an installation has them as the tree has them."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    shipped = {path for package, patterns in data.items() for each in patterns for path in (ROOT / package.replace(".", "/")).glob(each)}
    built = (".py", ".pyc", ".so")
    there = {path for path in (ROOT / "tsuzuri").rglob("*") if path.is_file() and path.suffix not in built}
    assert there - shipped == set()
    assert ROOT / "tsuzuri" / "py.typed" in shipped


def test_a_stream_may_be_closed_and_its_type_says_so() -> None:
    assert typing.get_type_hints(LocalModel.stream)["return"] == Generator[str, None, None]
