"""What arrives token by token is, put together, what comes from all of it at once, and never half a character."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from place import ROOT

from tsuzuri.text import fast
from tsuzuri.text.stream import Stream

STORY = (ROOT / "tests" / "data" / "ryoriten.txt").read_text(encoding="utf-8")


def streamed(tokens: Sequence[bytes]) -> list[str]:
    """What each token gave, and at the end the flush."""
    stream = Stream(tokens.__getitem__)
    return [*(stream(id) for id in range(len(tokens))), stream.flush()]


@st.composite
def cuts(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> list[bytes]:
    """Bytes cut anywhere, also into nothing."""
    data = draw(source)
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@given(cuts(st.binary() | st.text().map(str.encode)))
def test_streamed_is_whole_for_any_cut(tokens: list[bytes]) -> None:
    assert "".join(streamed(tokens)) == b"".join(tokens).decode("utf-8", errors="replace")


@given(cuts(st.text(st.characters(exclude_characters="\ufffd", exclude_categories=["Cs"])).map(str.encode)))
def test_good_text_is_never_shown_as_broken(tokens: list[bytes]) -> None:
    given = streamed(tokens)
    assert all("\ufffd" not in part for part in given)
    assert given[-1] == ""


@given(cuts(st.text("あ🍣é", min_size=1).map(str.encode)))
def test_what_is_certain_is_not_held_back(tokens: list[bytes]) -> None:
    """After each token the text so far is every whole character of the bytes so far."""
    shown, data = "", b""
    for part, token in zip(streamed(tokens), tokens, strict=False):
        shown, data = shown + part, data + token
        assert shown == data.decode("utf-8", errors="ignore")


@pytest.mark.parametrize(
    ("tokens", "given"),
    [
        ([b"\xf0", b"\x9f\x8d", b"\xa3"], ["", "", "🍣", ""]),
        ([b"\xe3", b"a"], ["", "\ufffda", ""]),  # it can become nothing any more
        ([b"a", b"\xe3\x81"], ["a", "", "\ufffd"]),  # the end came first
        ([b"\xff", b"\xe3\x81\x82"], ["\ufffd", "あ", ""]),
        ([b"", b"\xe3\x81\x82\xe3", b"", b"\x81\x84"], ["", "あ", "", "い", ""]),
        ([], [""]),
    ],
)
def test_examples(tokens: list[bytes], given: list[str]) -> None:
    assert streamed(tokens) == given


def test_two_streams_of_one_tokenizer_do_not_mix() -> None:
    tokenizer = fast.train("bpe", [STORY[:500]], 270)
    one, other = tokenizer.stream(), tokenizer.stream()
    shown = [(one(first), other(second)) for first, second in zip(tokenizer.encode("注文"), tokenizer.encode("料理"), strict=True)]
    assert "".join(first for first, _ in shown) == "注文"
    assert "".join(second for _, second in shown) == "料理"
