"""The pictures of the guide are what the code draws today, each in both languages, well-formed, and each on a page."""

from __future__ import annotations

import runpy
import xml.etree.ElementTree as ElementTree

import pytest
from place import ROOT

PLACE = ROOT / "docs" / "pictures"
DRAWN: dict[str, str] = runpy.run_path(str(ROOT / "docs" / "pictures.py"))["drawn"]()


def test_no_picture_is_left_over_and_none_is_missing() -> None:
    assert sorted(DRAWN) == sorted(path.name for path in PLACE.glob("*.svg"))
    assert {name.rsplit("-", 1)[1] for name in DRAWN} == {"ja.svg", "en.svg"}


@pytest.mark.parametrize("name", DRAWN)
def test_drawn_again_it_has_the_same_bytes(name: str) -> None:
    """After a change of what is drawn: python docs/pictures.py, and look at it."""
    assert DRAWN[name].encode() == (PLACE / name).read_bytes()


@pytest.mark.parametrize("name", DRAWN)
def test_it_is_a_picture_with_several_lines_on_a_page_of_its_language(name: str) -> None:
    lines = ElementTree.fromstring(DRAWN[name]).findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) >= 3
    assert all(len(line.attrib["points"].split()) >= 3 for line in lines), "a line of one point shows nothing"
    language = name.rsplit("-", 1)[1].removesuffix(".svg")
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs" / language).glob("*.md")]
    assert any(f"](../pictures/{name})" in page for page in pages)
