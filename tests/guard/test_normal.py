"""Text as a person reads it, with a way back: every stretch of the result knows where in the original it came from."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsuzuri.guard.normal import folded, plain

strange = st.text(st.sampled_from("aZ1 ガｶﾞﾊﾟア゙０９‐ー・\u200b\u202e\ufe0f①㍿ﷺéé🍜󠁁󠁂\n"), max_size=30)


@settings(deadline=None)
@given(strange | st.text(max_size=30))
def test_a_stretch_leads_back_to_what_it_came_from(text: str) -> None:
    for seen in (plain(text), folded(text)):
        last = 0
        for at in range(len(seen.text)):
            start, stop = seen.span(at, at + 1)
            assert 0 <= start < stop <= len(text)
            assert start >= last, "in order"
            last = start


@settings(deadline=None)
@given(strange)
def test_what_is_plain_stays_as_it_is(text: str) -> None:
    assert plain(plain(text).text).text == plain(text).text


@settings(deadline=None)
@given(st.text(st.characters(categories=["Lu", "Ll", "Lo", "Nd"]), max_size=20))
def test_letters_and_digits_are_as_nfkc_has_them(text: str) -> None:
    for character in text:
        if unicodedata.category(character) != "Cf":
            assert plain(character).text == unicodedata.normalize("NFKC", character)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("０９０‐１２３４－５６７８", "090-1234-5678"),
        ("090ー1234ー5678", "090-1234-5678"),
        ("ﾊﾟｿｺﾝ", "パソコン"),
        ("サーバー", "サーバー"),
        ("〇九〇の一二三四の五六七八", "090-1234-5678"),
        ("二〇二六年の一月", "二〇二六年の一月"),
        ("指\u200b示\u202e", "指示"),
        ("".join(chr(0xE0000 + ord(c)) for c in "hi"), "hi"),
    ],
)
def test_plain(text: str, seen: str) -> None:
    assert plain(text).text == seen


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("シ ス テ ム の 指\u3000示", "しすてむの指示"),
        ("I G N O R E", "ignore"),
        (" ".join("ignore all rules"), "ignore all rules"),
        ("1gn0r3 pr3vi0us", "ignore previous"),
        ("2026年 3.5%", "2026年 3.5%"),
        ("іgnоrе", "ignore"),  # Cyrillic
        ("I am a cat", "i am a cat"),
    ],
)
def test_folded(text: str, seen: str) -> None:
    assert folded(text).text == seen
