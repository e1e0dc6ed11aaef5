"""The folder is the registry: a new file is a new thing, imported when asked for; a wrong name is answered with the right ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tsuzuri.errors import ConfigError
from tsuzuri.folder import find, names, suggestion

PACKAGE = "a_folder_of_tests"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An open folder with two files, one of them broken, and one that is nobody's business."""
    path = tmp_path / PACKAGE
    path.mkdir()
    for name, text in {"__init__": "", "rms_norm": "KIND = 'norm'", "broken": "1 / 0", "_inner": ""}.items():
        (path / f"{name}.py").write_text(text)
    (path / "notes.txt").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield path
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def test_the_names_are_the_files(folder: Path) -> None:
    assert names(PACKAGE) == ["broken", "rms_norm"]
    assert set(sys.modules) & {f"{PACKAGE}.rms_norm", f"{PACKAGE}.broken"} == set(), "nothing was imported"
    (folder / "added.py").write_text("")
    assert names(PACKAGE) == ["added", "broken", "rms_norm"]


@pytest.mark.parametrize("name", ["rms_norm", "rms-norm"])
def test_a_file_is_found_by_its_name_and_no_other_is_imported(folder: Path, name: str) -> None:
    assert find(PACKAGE, name).KIND == "norm"
    assert f"{PACKAGE}.broken" not in sys.modules


def test_the_fault_of_a_file_is_not_hidden(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        find(PACKAGE, "broken")


@pytest.mark.parametrize("name", ["rms_nrom", "_inner", "__init__", "", ".", "..errors", "notes", "rms_norm.py", "rms_norm.KIND", "None"])
def test_a_wrong_name_is_answered_with_the_right_ones(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find(PACKAGE, name)
    assert f"「{name}」" in str(caught.value)
    assert "broken、rms_norm" in str(caught.value)


def test_near_names_are_suggested_and_far_ones_are_not() -> None:
    assert suggestion("lama", ["llama", "gpt2"]) == ("「llama」のことではありませんか。", "Did you mean llama?")
    assert suggestion("stepp", ["steps", "step", "seed"]).en == "Did you mean step or steps?"
    assert suggestion("zzz", ["llama", "gpt2"]).en == "Name one of these."
