"""Text as words: what is a word in each unit, and that folding, rare characters and punctuation are no surprise."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from place import ROOT

from tsuzuri.errors import ConfigError, MissingError
from tsuzuri.text import fast
from tsuzuri.text.words import UNITS, Cut, cutter, folded


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    fast.train("bpe", [(ROOT / "tests/data/ryoriten.txt").read_text(encoding="utf-8")], 700).save(path)
    return path


def test_words_are_runs_of_one_script() -> None:
    assert cutter("word")("第３章：人工知能の発展、GPT-4は\u3000Ｗｉｎ ﾃﾚﾋﾞ。") == [
        "第", "3", "章", "人工知能", "の", "発展", "gpt", "4", "は", "win", "テレビ",
    ]  # fmt: skip


def test_characters_are_characters_without_punctuation() -> None:
    assert cutter("character")("山、Ａ １🍣々") == ["山", "a", "1", "々"]


def test_tokens_are_the_pieces_of_the_tokenizer(tokenizer: Path) -> None:
    text = "二人の紳士は、山の中の人は、"
    known = fast.load(tokenizer)
    pieces = [known.decode([id]) for id in known.encode(text)]
    assert "�" not in pieces and len(pieces) < len(text)
    assert [piece for piece in pieces if piece.isalnum()] == cutter("token", tokenizer)(text)


def test_a_character_spelt_in_several_tokens_is_one_word(tokenizer: Path) -> None:
    assert len(fast.load(tokenizer).encode("龘")) == 3
    assert cutter("token", tokenizer)("龘と龘") == ["龘", "と", "龘"]


@pytest.fixture(scope="module")
def cutters(tokenizer: Path) -> dict[str, Cut]:
    return {units: cutter(units, tokenizer if units == "token" else None) for units in UNITS}


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=40))
def test_no_letter_or_digit_is_lost_and_nothing_else_is_a_word(cutters: dict[str, Cut], text: str) -> None:
    wanted = [c for c in unicodedata.normalize("NFKC", text).lower() if c.isalnum()]
    for units, cut in cutters.items():
        words = cut(text)
        assert [c for word in words for c in word if c.isalnum()] == wanted, units
        assert all(word == word.strip() and any(c.isalnum() for c in word) for word in words)


def test_what_a_person_takes_for_the_same_is_the_same() -> None:
    assert folded("ＴＶ㈱ｶﾞ") == folded("tv(株)ガ")


@pytest.mark.parametrize(
    ("units", "given_tokenizer", "said"), [("words", False, "word"), ("token", False, "トークナイザ"), ("word", True, "token")]
)
def test_units_that_cannot_be_are_refused(units: str, given_tokenizer: bool, said: str, tokenizer: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        cutter(units, tokenizer if given_tokenizer else None)


def test_a_tokenizer_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        cutter("token", tmp_path)
