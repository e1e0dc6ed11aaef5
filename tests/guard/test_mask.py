"""Tokens come back: whatever a text holds, unmasked it is what it was; and the stream is the whole at every cut."""

from __future__ import annotations

import itertools
import random
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tsuzuri.guard import corpus
from tsuzuri.guard.checks._context import BEFORE
from tsuzuri.guard.corpus.personal import labelled
from tsuzuri.guard.finding import LONGEST, personal
from tsuzuri.guard.mask import Unmasking, Vault
from tsuzuri.guard.stream import MOST, Masking, mask

PIECES = [
    "田中様", "山田 太郎さん", "氏名：", "佐藤", "電話", "090-1234-5678", "０３（１２３４）", "5678", "-", "\n", "。", "、", " ", "〒100-0001", "東京都千代田区",
    "丸の内1-1-1", "マイナンバー", "123456789018", "4111-1111-", "1111-1111", "taro@example.jp", "【氏名1】", "【氏名", "1】", "【文字列１】", "口座番号", "1234567",
    "本日は晴天です。", "\u200b", "ｶﾞ", "🍜",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


def cut(text: str, places: list[int]) -> list[str]:
    borders = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in itertools.pairwise(borders)]


@example("【氏名1】は田中様ではない")
@settings(deadline=None)
@given(texts)
def test_unmasked_it_is_what_it_was(text: str) -> None:
    vault = Vault()
    masked, findings = mask(text, vault, personal())
    assert vault.unmask(masked) == text
    for one in findings:
        assert text[one.start : one.stop] == one.text


CHUNKS = [
    "担当は佐藤です", "氏名|\n山田太郎 090-1234-5678", "東京都港区芝1-2-3\n中央ビルで田中様が3件", "記号 10120\n番号 12345671", "口座番号は下記のとおり。", "1234567です", "大阪府\n",
    "堺市堺区南瓦町3番1号", "林 健太と森", "〇九〇の一二三四の", "五六七八", "０９０", "か\u3099", "\u3099", "Mr. Smith", "hana-san", "user＠example.jp", "192.168.1.1", "【住所1】",
    "あ" * 700, "1 " * 300, "。", "。", "\n", "！", "①②③④⑤⑥⑦⑧⑨", "健保の記号", "：12", "番号 345", "2001:db8::1", "基礎年金番号は", "1234-567890", "①", "｢様｣", "﹘",
]  # fmt: skip


def both_ways(text: str) -> tuple[object, object]:
    """Masked with all chunks looked through first, and with each chunk read with every check."""
    ways = [Masking(Vault(), personal(), many) for many in (0, 10**9)]
    fast, plain = ((way(text) + way.flush(), way.findings) for way in ways)
    return fast, plain


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*PIECES, *CHUNKS]), max_size=24).map("".join))
def test_looking_through_all_first_finds_what_reading_each_finds(text: str) -> None:
    fast, plain = both_ways(text)
    assert fast == plain


def test_looking_through_all_first_knows_where_a_border_was_forced() -> None:
    border = MOST - LONGEST - 1
    fast, plain = both_ways("あ" * (border - 1) + "冷山田太郎、" + "い" * MOST)
    assert fast == plain
    assert isinstance(plain, tuple) and [one.text for one in plain[1]] == ["山田太郎"], "冷 is in the chunk before"


def test_looking_through_all_first_finds_the_same_in_the_whole_corpus() -> None:
    personal_data = [one.text for one in [*labelled(4), *labelled(4, fresh=True)]]
    business = [one.text for one in [*corpus.harmless(3), *corpus.attacks(2)]]
    draw = random.Random(1)
    for text in (
        "\n".join(personal_data),
        "\n".join(business),
        " ".join(business[:600]),
        "".join(draw.sample([*personal_data, *business], 800)),
    ):
        fast, plain = both_ways(text)
        assert fast == plain


@pytest.mark.parametrize(
    "piece",
    ["090-", "1 ", "田中様", "氏名：", "東京都港区町1", "ー", "あ", "〇", "\n", "。", "【氏名1】", "\u3099", "佐藤 ", "1:", "1.", "\n1"],
)
def test_masking_takes_time_in_proportion_to_the_text(piece: str) -> None:
    def seconds(count: int) -> float:
        text = piece * (count // len(piece))
        start = time.process_time()
        mask(text, Vault(), personal())
        return time.process_time() - start

    seconds(100)
    assert seconds(48_000) < 4 * seconds(24_000) + 0.05, "twice the text"


@settings(deadline=None)
@given(texts, st.lists(st.integers(0, 999), max_size=10))
def test_the_stream_is_the_whole_at_every_cut(text: str, places: list[int]) -> None:
    whole, findings = mask(text, Vault(), personal())
    masking = Masking(Vault(), personal())
    assert "".join(map(masking, cut(text, places))) + masking.flush() == whole
    assert masking.findings == findings


def test_the_stream_is_the_whole_character_by_character() -> None:
    text = "".join(PIECES) * 2
    masking = Masking(Vault(), personal())
    assert "".join(map(masking, text)) + masking.flush() == mask(text, Vault(), personal())[0]


@pytest.mark.parametrize("filler", ["あ", "x", "1", "- "])
def test_what_is_held_back_is_bounded_and_nothing_is_lost_across_a_forced_border(filler: str) -> None:
    text = filler * 900 + "、電話は090-1234-5678です、" + filler * 900
    vault = Vault()
    masking = Masking(vault, personal())
    shown = 0
    out = ""
    for at, character in enumerate(text):
        piece = masking(character)
        out += piece
        shown += len(vault.unmask(piece))
        assert at + 1 - shown <= MOST
    out += masking.flush()
    assert "090-1234-5678" not in out
    assert vault.unmask(out) == text


@pytest.mark.parametrize("before", range(700, 1030, 7))
def test_a_number_on_a_forced_border_is_found(before: int) -> None:
    masked, _ = mask("あ" * before + "、電話は090-1234-5678です、" + "い" * 400, Vault(), personal())
    assert "【電話番号1】" in masked


def test_the_same_words_get_the_same_token_and_others_another() -> None:
    vault = Vault()
    first, _ = mask("田中様と鈴木様。", vault, personal())
    later, _ = mask("鈴木様だけ。", vault, personal())
    assert (first, later) == ("【氏名1】様と【氏名2】様。", "【氏名2】様だけ。")
    assert dict(vault) == {"【氏名1】": "田中", "【氏名2】": "鈴木"}


def test_a_token_that_somebody_wrote_is_nobody() -> None:
    vault = Vault()
    masked, _ = mask("【氏名1】と書いたのは田中様。", vault, personal())
    assert masked == "【文字列1】と書いたのは【氏名1】様。"
    assert vault.unmask("【氏名1】さん、【氏名１】さん、【氏名9】さん") == "田中さん、田中さん、【氏名9】さん"


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["【", "氏名", "1", "】", "【氏名1】", "【氏名２】", "x" * 30, "あ"]), max_size=8).map("".join),
    st.lists(st.integers(0, 99), max_size=8),
)
def test_unmasking_a_stream_is_unmasking_the_whole(text: str, places: list[int]) -> None:
    vault = Vault.of({"【氏名1】": "田中", "【氏名2】": "鈴木【"})
    unmasking = Unmasking(vault)
    assert "".join(map(unmasking, cut(text, places))) + unmasking.flush() == vault.unmask(text)


def test_context_and_findings_fit_into_what_is_kept() -> None:
    assert BEFORE < LONGEST < MOST // 2


def test_a_label_before_a_line_break_still_counts() -> None:
    assert "【口座番号1】" in mask("みどり銀行 本店営業部\n普通 1234567\n以上です。", Vault(), personal())[0]
    assert "【電話番号1】" in mask("電話は090-1234-\n5678です。\n", Vault(), personal())[0]
