"""The numbers tokenizers are compared by, against counting by hand, and on text they have not seen."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from place import ROOT

from tsuzuri.errors import ConfigError, InputError
from tsuzuri.text import bpe, compare, fast, kinds
from tsuzuri.text.corpus.dedup import digest
from tsuzuri.text.corpus.read import Document, read
from tsuzuri.text.split import split


class Given:
    """A tokenizer that cuts one text at the places given, whatever script stands there."""

    def __init__(self, *tokens: bytes) -> None:
        self.tokens = tokens
        self.vocab_size = len(tokens)
        self.token_bytes = tokens.__getitem__

    def encode(self, text: str) -> list[int]:
        return list(range(len(self.tokens)))


def cut(*tokens: str | bytes) -> Given:
    return Given(*(token if isinstance(token, bytes) else token.encode() for token in tokens))


def test_counted_by_hand() -> None:
    found = compare.measure(cut("人工", "知能", "の", b"\xe7\x99", b"\xba", "展", "、", "AI", "3"), ["人工知能の発展、AI3"])
    assert found == {
        "documents": 1,
        "characters": 11,
        "bytes": 27,
        "tokens": 9,
        "characters_per_token": 11 / 9,
        "bytes_per_token": 3.0,
        "lossless": True,
        "fertility": {"kanji": 5 / 2, "hiragana": 1.0, "latin": 1.0, "digits": 1.0, "punctuation": 1.0},
    }


def test_a_token_that_crosses_scripts_is_shared_by_bytes() -> None:
    found = compare.measure(cut("今日はx"), ["今日はx"])
    assert found["fertility"] == {"kanji": 6 / 10, "hiragana": 3 / 10, "latin": 1 / 10}


def test_a_tokenizer_that_changes_the_text_is_found_out() -> None:
    found = compare.measure(cut(" ", "今日", b"\xff"), ["今日"])
    assert not found["lossless"]
    assert found["fertility"] == {"kanji": 1.0, "spaces": 1.0, "punctuation": 1.0}


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_nothing_to_measure(texts: list[str]) -> None:
    with pytest.raises(InputError, match="空"):
        compare.measure(bpe.Bpe([]), texts)


@given(st.lists(st.text(), min_size=1).filter(any))
def test_shares_add_up_to_tokens_and_ours_never_go_below_one(texts: list[str]) -> None:
    tokenizer = bpe.train(["今日は今日も", "word word"], 268)
    found = compare.measure(tokenizer, texts)
    assert found["lossless"]
    assert min(found["fertility"].values()) >= 1
    pieces = [piece for text in texts for piece in split(text)]
    tokens = [len(tokenizer.encode(piece)) for piece in pieces]
    assert found["tokens"] == sum(tokens)
    if len(found["fertility"]) == 1:
        assert next(iter(found["fertility"].values())) == pytest.approx(sum(tokens) / len(pieces))


@given(st.lists(st.binary(max_size=4), max_size=12))
def test_parts_cover_every_byte_once(tokens: list[bytes]) -> None:
    found = list(compare.parts(tokens))
    for number, token in enumerate(tokens):
        assert sum(part.bytes for part in found if part.token == number) == len(token)
    assert [part.piece for part in found] == sorted(part.piece for part in found)


# ── training and held out


def documents(count: int) -> list[Document]:
    return [Document(f"文章その{number}。", title=f"題{number // 2}", source="本棚") for number in range(count)]


def test_the_parts_of_a_work_and_copies_go_the_same_way_and_nothing_is_lost() -> None:
    given = documents(40)
    train, held = compare.divide([*given, *given], 0.3)
    assert sorted(train + held) == sorted(2 * [document.text for document in given])
    assert not set(train) & set(held)
    for first, second in zip(given[::2], given[1::2], strict=True):
        assert (first.text in held) == (second.text in held)
    assert 4 < len(set(held)) < 24


def test_more_input_moves_none_and_order_does_not_matter() -> None:
    _, held = compare.divide(documents(40), 0.3)
    _, more = compare.divide(documents(80), 0.3)
    assert set(held) <= set(more)
    assert compare.divide(reversed(documents(40)), 0.3)[1] != []
    assert set(compare.divide(reversed(documents(40)), 0.3)[1]) == set(held)


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_there_is_always_something_on_each_side(fraction: float) -> None:
    train, held = compare.divide(documents(10), fraction)
    assert train
    assert held


@pytest.mark.parametrize("given", [[], documents(2), [Document("同じ"), Document("同じ"), Document("")]])
def test_one_work_cannot_be_divided(given: list[Document]) -> None:
    with pytest.raises(InputError, match="件しか"):
        compare.divide(given)


# ── the table


@pytest.fixture(scope="module")
def parted() -> tuple[list[str], list[str]]:
    found = read([ROOT / "sample" / "pretrain" / "technical.jsonl.zst"])
    return compare.divide(document for _, document in zip(range(60), found, strict=False))


def test_every_kind_and_size_on_text_it_has_not_seen(parted: tuple[list[str], list[str]]) -> None:
    train, held = parted
    heard: list[tuple[str, int]] = []
    rows = list(compare.table(train, held, sizes=(500, 700, 64_000), progress=lambda kind, size: heard.append((kind, size))))
    assert heard == [(row["kind"], row["vocab_size"]) for row in rows]
    assert heard == [(kind, size) for kind in kinds.KINDS for size in (500, 700, 64_000)]
    assert json.loads(json.dumps(rows)) == rows
    for small, large, too_large in zip(*[iter(rows)] * 3, strict=True):
        assert small["characters"] == large["characters"] == sum(map(len, held))
        assert small["lossless"]
        assert large["lossless"]
        assert large["tokens"] < small["tokens"]
        assert large["fertility"]["kanji"] < small["fertility"]["kanji"]
        assert too_large.keys() == {"kind", "vocab_size", "unsupported"}
        assert "この文章から作れるのは" in too_large["unsupported"]
    again = fast.train("bpe", train, 500)
    assert rows[0]["tokens"] == sum(len(again.encode(text)) for text in held)


def test_baselines_come_first_under_their_own_names(parted: tuple[list[str], list[str]]) -> None:
    train, held = parted
    rows = list(compare.table(train, held, ["bpe"], [300], {"bytes": bpe.Bpe([])}))
    assert [(row["kind"], row["vocab_size"]) for row in rows] == [("bytes", 260), ("bpe", 300)]
    assert rows[0]["tokens"] == rows[0]["bytes"] == len("".join(held).encode())


@pytest.mark.parametrize(("names", "sizes"), [(["bpe", "bqe"], [300]), (["bpe"], [300, 100])])
def test_what_no_text_could_make_is_refused_before_any_work(names: list[str], sizes: list[int]) -> None:
    rows: Iterator[dict[str, object]] = compare.table(["あ"], ["い"], names, sizes, {"bytes": bpe.Bpe([])})
    with pytest.raises(ConfigError):
        next(rows)


def test_a_part_that_a_corpus_has_divided_off_is_divided_again() -> None:
    """Both go by a hash; were it the same one, nearly all of the held-out part would be held out again."""
    documents = [Document(text=f"文章その{n}。" * 3, title=str(n), source="出典") for n in range(2000)]
    held = [document for document in documents if int.from_bytes(digest(f"出典\0{document.title}")[:8], "big") < 0.02 * 2**64]
    assert 15 < len(held) < 80
    train, measured = compare.divide(held, 0.1)
    assert len(measured) < 0.4 * len(held) < len(train)
