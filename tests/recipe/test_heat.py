"""The picture of attention: every token of a sentence is named, and a long text's map stays small."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tsuzuri.recipe.heat import Heat, heat_maps


def drawn(tokens: int) -> tuple[list[str], float]:
    """(what is written, width) of one map."""
    names = [chr(0x4E00 + number) for number in range(tokens)]
    shares = [[1 / tokens] * tokens for _ in names]
    root = ElementTree.fromstring(heat_maps("題", [[Heat("層 0", names, names, shares)]]))
    return [text.text or "" for text in root.iter("{http://www.w3.org/2000/svg}text")], float(root.attrib["width"])


@pytest.mark.parametrize("tokens", [3, 28, 64])
def test_the_tokens_of_a_sentence_are_named_on_both_sides(tokens: int) -> None:
    texts, _ = drawn(tokens)
    assert all(texts.count(chr(0x4E00 + number)) == 2 for number in range(tokens))


def test_a_long_text_has_no_room_for_names() -> None:
    texts, width = drawn(200)
    assert texts == ["題", "層 0"] and width < 500
