"""Stretches and labels: both ways and back, and what cannot be said in tokens is refused."""

from __future__ import annotations

import itertools

import pytest

from tsuzuri.errors import ConfigError, InputError
from tsuzuri.text import fast
from tsuzuri.text.framing import Frame, frame, windows
from tsuzuri.text.spans import Scheme, Span, decode, encode, labels

OFFSETS = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6)]  # 東 京 都 の 大 阪
SPANS = [Span(0, 3, "地名"), Span(4, 6, "地名")]


def test_labels_as_the_page_shows_them() -> None:
    assert [tag[0] for tag in encode(SPANS, OFFSETS)] == list("BIIOBI")
    assert [tag[0] for tag in encode(SPANS, OFFSETS, "BILOU")] == list("BILOBL")
    assert encode([Span(3, 4, "x")], OFFSETS, "BILOU")[3] == "U-x"
    assert labels(["地名"], "BILOU") == ("O", "B-地名", "I-地名", "L-地名", "U-地名")


@pytest.mark.parametrize("scheme", ["BIO", "BILOU"])
@pytest.mark.parametrize(
    "spans", [[], SPANS, [Span(0, 1, "a"), Span(1, 2, "a")], [Span(0, 2, "a"), Span(2, 4, "b")], [Span(5, 6, "a")]], ids=str
)
def test_there_and_back(scheme: Scheme, spans: list[Span]) -> None:
    assert decode(encode(spans, OFFSETS, scheme), OFFSETS) == spans


def test_what_a_model_says_out_of_turn_begins_a_stretch() -> None:
    assert decode(["O", "I-a", "I-a", "I-b", "O", "L-b"], OFFSETS) == [Span(1, 3, "a"), Span(3, 4, "b"), Span(5, 6, "b")]


@pytest.mark.parametrize("spans", [[Span(0, 2, "a"), Span(1, 3, "a")], [Span(0, 1, "a")], [Span(7, 9, "a")]], ids=str)
def test_what_tokens_cannot_say_is_refused(spans: list[Span]) -> None:
    with pytest.raises(InputError):
        encode(spans, [(0, 2), (2, 3), (3, 6)])


def test_windows_hold_the_whole_context() -> None:
    some = Frame(0, 2, 1, 3)
    found = windows(some, [9, 9], list(range(100, 150)), 20, 5)
    assert all(len(window.ids) <= 20 and window.ids[: window.begin] == [0, 9, 9, 2] for window in found)
    assert [window.stop - after.start for window, after in itertools.pairwise(found)] == [5] * (len(found) - 1)
    assert {id for window in found for id in window.ids[window.begin : -1]} == {*range(100, 150)}
    with pytest.raises(InputError, match="余地がありません"):
        windows(some, [9] * 14, list(range(100, 150)), 20, 5)


def test_a_tokenizer_for_encoders_frames_a_text_as_we_do() -> None:
    tokenizer = fast.train("bpe", ["吾輩は猫である。名前はまだ無い。" * 5], 270, fast.ENCODER)
    some = frame(tokenizer)
    assert (some.first, some.mask, some.last, some.padding) == (0, 1, 2, 3)
    theirs = tokenizer._core.encode("吾輩は猫")
    assert theirs.ids == some.around(tokenizer.encode("吾輩は猫"))
    ids, offsets = tokenizer.spans("吾輩は🍣[SEP]猫")
    assert ids == tokenizer.encode("吾輩は🍣[SEP]猫") and offsets[0][0] == 0 and offsets[-1][1] == len("吾輩は🍣[SEP]猫")
    with pytest.raises(ConfigError, match=r"\[CLS\]"):
        frame(fast.train("bpe", ["あ"], 260))
