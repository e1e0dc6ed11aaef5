"""Stop strings: the same answer at every cut, and nothing of a stop string ever shown."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tsuzuri.chat.stopping import MAX_STOPS, Stopping
from tsuzuri.errors import ConfigError

few = st.text("abか", max_size=12)


def cut(text: str, places: list[int]) -> list[str]:
    borders = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in itertools.pairwise(borders)]


def plain(text: str, stops: list[str]) -> tuple[str, str | None]:
    """By definition: read character by character until some stop string is complete."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, None


@example("xab", ["b", "ab"], [])  # complete at once: the one that began first
@example("aab", ["aab"], [1, 2])  # 'aa' may begin it, and so may 'a'
@given(few, st.lists(st.text("abか", min_size=1, max_size=4), max_size=3), st.lists(st.integers(0, 99), max_size=6))
def test_the_same_at_every_cut(text: str, stops: list[str], places: list[int]) -> None:
    stopping = Stopping(stops)
    shown = "".join(map(stopping, cut(text, places)))
    found = shown if stopping.found else shown + stopping.flush()
    assert (found, stopping.found) == plain(text, stops)


@given(few, st.lists(st.text("abか", min_size=1, max_size=4), min_size=1, max_size=3))
def test_only_what_could_become_a_stop_string_is_held_back(text: str, stops: list[str]) -> None:
    stopping, shown = Stopping(stops), ""
    for end, character in enumerate(text, 1):
        shown += stopping(character)
        if stopping.found:
            break
        held = text[len(shown) : end]
        assert shown + held == text[:end]
        assert not held or any(stop.startswith(held) for stop in stops)


def test_nothing_comes_after_the_stop() -> None:
    stopping = Stopping(["。"])
    assert [stopping("はい。い"), stopping("いえ"), stopping.flush()] == ["はい", "", ""]


@pytest.mark.parametrize("stops", [[""], ["a"] * (MAX_STOPS + 1), ["x" * 5000], "abc", [3]], ids=lambda s: repr(s)[:12])
def test_what_cannot_be_a_stop_string_is_refused(stops: list[str]) -> None:
    with pytest.raises(ConfigError, match="stop"):
        Stopping(stops)
