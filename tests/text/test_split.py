"""Cutting by script loses nothing, mixes no scripts, and means the same in Python and in the library."""

from __future__ import annotations

import re

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from place import ROOT

from tsuzuri.text.corpus.read import read
from tsuzuri.text.split import BRANCHES, PATTERN, SCRIPTS, scripts, split

EXAMPLES = {
    "人工知能の発展について": ["人工知能", "の", "発展", "について"],
    "サーバーを再起動してください。": ["サーバー", "を", "再起動", "してください", "。"],
    "東京都千代田区１２３４番地": ["東京都千代田区", "１２３", "４", "番地"],
    "GPT-4 and ＡＩ": ["GPT", "-", "4", " and", " ＡＩ"],
    "々〆ヶ月ｶﾅー": ["々〆ヶ月", "ｶﾅー"],
    "a  b\u3000\nc": ["a", "  ", "b", "\u3000\n", "c"],
    "。」🍣\r\n": ["。」🍣", "\r\n"],
    "𠮷野家": ["𠮷野家"],
    "x \t\n\r\v\f\x85\xa0\u2028\u2029\u3000。": ["x", " \t\n\r\v\f\x85\xa0\u2028\u2029\u3000", "。"],
    "": [],
}


@pytest.mark.parametrize(("text", "pieces"), EXAMPLES.items())
def test_examples(text: str, pieces: list[str]) -> None:
    assert split(text) == pieces


@given(st.text(st.characters()))
def test_nothing_is_lost(text: str) -> None:
    assert "".join(split(text)) == text
    assert [piece for _, piece in scripts(text)] == split(text)


@given(st.text("今日のハレ word12１。!🍣 \n\u3000", max_size=40))
def test_a_piece_is_of_one_script(text: str) -> None:
    for script, piece in scripts(text):
        assert re.fullmatch(BRANCHES[SCRIPTS.index(script)], piece)
        assert len({name for character in piece.lstrip(" ") or " " for name, _ in scripts(character)}) == 1


def pieces_of_the_library(text: str) -> list[str]:
    cut = tokenizers.pre_tokenizers.Split(tokenizers.Regex(PATTERN), "isolated")
    return [piece for piece, _ in cut.pre_tokenize_str(text)]


@given(st.text())
def test_python_and_the_library_cut_alike(text: str) -> None:
    assert split(text) == pieces_of_the_library(text)


def test_they_cut_alike_at_every_code_point() -> None:
    points = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    text = "".join(f"{point}漢{point}か" for point in points[:0x3000]) + "".join(points)
    assert split(text) == pieces_of_the_library(text)


@pytest.mark.parametrize("kind", ["government", "law", "literature", "technical"])
def test_they_cut_alike_in_real_text(kind: str) -> None:
    for _, document in zip(range(20), read([ROOT / "sample" / "pretrain" / f"{kind}.jsonl.zst"]), strict=False):
        assert split(document.text) == pieces_of_the_library(document.text)
