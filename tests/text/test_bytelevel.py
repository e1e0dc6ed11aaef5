"""Bytes as visible characters, and what each id of a tokenizer.json stands for, in the notations we read."""

from __future__ import annotations

from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from tsuzuri.errors import ConfigError, InputError
from tsuzuri.text.bytelevel import alphabet, table, utf8, visible


def test_every_byte_has_a_character_of_its_own() -> None:
    assert sorted(alphabet()) == list(range(256))
    assert set(alphabet().values()) == set(tokenizers.pre_tokenizers.ByteLevel.alphabet())


@given(st.text())
def test_visible_is_what_the_library_writes(text: str) -> None:
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    assert visible(text) == "".join(piece for piece, _ in level.pre_tokenize_str(text))


def test_bytes_that_are_never_utf8() -> None:
    """The library's decoder turns them into U+FFFD; we must not lose which they were."""
    state = {"added_tokens": [], "decoder": {"type": "ByteLevel"}, "model": {"vocab": {alphabet()[byte]: byte for byte in range(256)}}}
    assert table(state, 256) == [bytes([byte]) for byte in range(256)]


def state_of(decoder: Any, vocabulary: dict[str, int]) -> dict[str, Any]:
    added = [{"id": 0, "content": "<特>", "special": True}]
    return {"added_tokens": added, "decoder": decoder, "model": {"vocab": vocabulary}}


VOCABULARY = {"<特>": 0, "▁今日": 1, "<0xE3>": 2, "<0xe3>": 3, "▁": 5}
SPACE = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
SEQUENCE = {"type": "Sequence", "decoders": [SPACE, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip"}]}
METASPACE = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Metaspace", "replacement": "▁"}]}


@pytest.mark.parametrize("decoder", [SEQUENCE, METASPACE])
def test_sentencepiece_notation(decoder: dict[str, Any]) -> None:
    found = table(state_of(decoder, VOCABULARY), 6)
    assert found == ["<特>".encode(), " 今日".encode(), b"\xe3", b"<0xe3>", b"", b" "]  # no piece has the id 4


def test_an_unknown_decoder_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="WordPiece"):
        table(state_of({"type": "WordPiece"}, VOCABULARY), 6)


@pytest.mark.parametrize(("text", "place"), [("\ud800", 1), ("今日\udfff", 3), ("\ud83c\udf63", 1)])
def test_half_a_surrogate_pair_is_refused_and_its_place_told(text: str, place: int) -> None:
    with pytest.raises(InputError, match=f"{place} 文字目"):
        utf8(text)


def test_the_neighbours_of_the_surrogates_are_text() -> None:
    assert utf8("\ud7ff\ue000") == b"\xed\x9f\xbf\xee\x80\x80"
