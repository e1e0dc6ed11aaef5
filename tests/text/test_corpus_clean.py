"""Cleaning: Aozora's markup goes and nothing else does; each filter drops what it is for and keeps prose."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsuzuri.text.corpus import aozora
from tsuzuri.text.corpus.clean import REASONS, clean, fault

STORY = (Path(__file__).parents[1] / "data" / "ryoriten.txt").read_text(encoding="utf-8")

PUBLISHED = """注文の多い料理店
宮沢賢治

-------------------------------------------------------
【テキスト中に現れる記号について】

《》：ルビ
（例）二｜疋《ひき》

［＃］：入力者注
-------------------------------------------------------

［＃５字下げ］一［＃「一」は中見出し］
　二人の若い紳士《しんし》が、白熊のような犬を二｜疋《ひき》つれて、
底本の通りに※［＃「足へん＋宛」、第3水準1-92-36］き、※［＃「口＋世」、U+546D、10-2］と言い、※［＃「謎の字」］を見た。
〔cafe'〕と〔注〕［＃改ページ］

底本：「注文の多い料理店」新潮文庫、新潮社
入力：土屋隆
青空文庫作成ファイル：
"""


def test_aozora_as_published() -> None:
    assert aozora.clean(PUBLISHED).splitlines() == [
        "一",
        "　二人の若い紳士が、白熊のような犬を二疋つれて、",
        "底本の通りに踠き、呭と言い、〓を見た。",
        "café と〔注〕".replace(" ", ""),
    ]


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("※［＃「てへん＋（「穴」の／中）」、第4水準2-13-28］［＃改行］", "揷"),
        ("※［＃ローマ数字1、1-13-21］［＃ここから２字下げ］", "Ⅰ"),
        ("※［＃「あ」、U+110000］", "〓"),
        ("※［＃「あ」、2-99-1］", "〓"),
        ("いよ／＼／″＼［＃改行］", "いよ〳〵〴〵"),
        ("〔L'homme, c'est l'e'te', nai:f; c,a, ae& s& o/ ?@Nin~o? E^tre〕［＃改行］", "L'homme, c'est l'été, naïf; ça, æ ß ø ¿Niño? Être"),
        ("あ［＃「い［＃「う」に傍点］」に傍点］え", "あえ"),
    ],
)
def test_aozora_notes(marked: str, plain: str) -> None:
    assert aozora.clean(marked) == plain


@pytest.mark.parametrize(
    "text",
    [STORY, "彼は《すべて》を見た。", "a|b 《x》 -- 底本：これは何か", "項目｜値\n《重要》｜《注意》", "-" * 30 + "\n表\n" + "-" * 30],
)
def test_other_text_is_left_alone(text: str) -> None:
    assert aozora.clean(text) == text


def test_a_text_that_speaks_of_its_source_is_not_cut_there() -> None:
    text = "［＃改ページ］\n底本：について語る。\n" + "長い文章が続く。\n" * 500 + "底本：「本」出版社\n入力：某\n"
    assert aozora.clean(text).endswith("長い文章が続く。")


@pytest.mark.parametrize(("form", "text"), [("none", "か\u3099①Ａ"), ("nfc", "が①Ａ"), ("nfkc", "が1A")])
def test_forms(form: str, text: str) -> None:
    assert clean("か\u3099①Ａ", form) == text  # type: ignore[arg-type]


def test_lines_and_invisible_characters() -> None:
    assert clean("\ufeff\u3000一行\u200b目 \u3000\r\n\r\n\r\n\r\n二行\x07目\u202e\n", "nfc") == "\u3000一行目\n\n二行目"


@given(st.text(alphabet="あア亜aA１1 \n\r\t\u3000《》｜［＃］〔〕'-底本：入力\u200bか\u3099", max_size=80))
def test_cleaning_twice_changes_nothing_unmarked(text: str) -> None:
    once = clean(text, "nfc")
    if not aozora.is_marked(once) and not aozora.is_marked(text):
        assert clean(once, "nfc") == once


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("短い。", "short"),
        ("正しい文章の中に\ufffdが\ufffd多い。" * 5, "broken"),
        ("+---+---+\n| a | b |\n+---+---+\n" * 4, "symbols"),
        ("ホーム 会社案内 お問い合わせ\n" * 10, "repetition"),
        (STORY, None),
        ("def f(x):\n    return x * (x + 1)\n# 二次式を計算して返す関数です。\n", None),
    ],
)
def test_reasons(text: str, reason: str | None) -> None:
    assert fault(text, 20) == reason
    assert reason is None or str(REASONS[reason])
