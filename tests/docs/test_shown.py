"""The words: output that a page shows as it is (```text right after ```python) is what the code prints.

What depends on a trained model is shown in a fence without a name and called an example; it is run in test_pages.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from place import ROOT

SHOWN = re.compile(r"^```python\n((?:(?!```).*\n)*)```\n\n```text\n((?:(?!```).*\n)*)```", re.MULTILINE)
PAGES = sorted((ROOT / "docs").glob("*/*.md"))
FOUND = [
    pytest.param(code, shown, id=page.relative_to(ROOT).as_posix())
    for page in PAGES
    for code, shown in SHOWN.findall(page.read_text("utf-8"))
]


def test_pages_show_what_they_print() -> None:
    assert len(FOUND) >= 20


@pytest.mark.parametrize(("code", "shown"), FOUND)
def test_shown_output_is_what_the_code_prints(
    code: str, shown: str, life: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(life)
    monkeypatch.setenv("TSUZURI_LANG", "en" if "/en/" in request.node.name else "ja")
    exec(compile(code, request.node.name, "exec"), {})
    assert capsys.readouterr().out.rstrip("\n") == shown.rstrip("\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_is_short(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) < 250


def test_both_languages_show_the_same_code() -> None:
    code = re.compile(r"^```python\n((?:(?!```).*\n)*)```", re.MULTILINE)
    for page in (ROOT / "docs" / "ja").glob("*.md"):
        other = ROOT / "docs" / "en" / page.name
        assert code.findall(page.read_text(encoding="utf-8")) == code.findall(other.read_text(encoding="utf-8")), page.name
