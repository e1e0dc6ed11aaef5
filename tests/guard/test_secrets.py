"""No registered secret comes out, in any of the ways of writing in the table, wherever the stream is cut."""

from __future__ import annotations

import itertools
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsuzuri.errors import ConfigError
from tsuzuri.guard.encodings import ENCODINGS
from tsuzuri.guard.secrets import LONGEST_GAP, SHOWN, Secrets

SECRET = "Kx7-mountain_RIVER-49qz"
REGISTERED = Secrets({"鍵": SECRET})
CASES = [pytest.param(form, id=f"{name} {at}") for name, encoding in ENCODINGS.items() for at, form in enumerate(encoding.forms(SECRET))]
keys = st.text(string.ascii_letters + string.digits + "-_!", min_size=10, max_size=24).filter(lambda key: sum(map(str.isalnum, key)) >= 9)


def test_there_are_at_least_thirty_ways_and_each_has_a_name_in_both_languages() -> None:
    assert len(ENCODINGS) >= 30
    assert (
        len({encoding.called.ja for encoding in ENCODINGS.values()})
        == len({encoding.called.en for encoding in ENCODINGS.values()})
        == len(ENCODINGS)
    )


@pytest.mark.parametrize("form", CASES)
def test_a_secret_is_hidden_at_every_cut(form: str) -> None:
    text = f"答えは「{form}」です。"
    whole, leaks = REGISTERED.hide(text)
    assert SHOWN in whole and leaks
    assert all(leak.secret == "鍵" for leak in leaks)
    rest = whole.removeprefix("答えは「").removesuffix("」です。").replace(SHOWN, "")
    assert len(rest) <= 6, "no more than the dress of the encoding stays"
    for place in range(1, len(text), max(1, len(text) // 40)):
        watch = REGISTERED.watch()
        assert watch(text[:place]) + watch(text[place:]) + watch.flush() == whole
    watch = REGISTERED.watch()
    assert "".join(map(watch, text)) + watch.flush() == whole


@settings(max_examples=40, deadline=None)
@given(keys, st.sampled_from(sorted(ENCODINGS)), st.text("aあ %&=\\。-9", max_size=12), st.lists(st.integers(0, 999), max_size=6))
def test_any_secret_in_any_way_among_anything(key: str, name: str, around: str, places: list[int]) -> None:
    registered = Secrets({"k": key})
    for form in ENCODINGS[name].forms(key):
        text = f"{around} {form} {around}"
        whole, leaks = registered.hide(text)
        assert leaks
        borders = sorted({0, len(text), *(place % len(text) for place in places)})
        watch = registered.watch()
        assert "".join(watch(text[a:b]) for a, b in itertools.pairwise(borders)) + watch.flush() == whole


@settings(deadline=None)
@given(st.text(st.sampled_from("aあ &%=\\u0041x;#b64=\n-_🍜Kx7"), max_size=60), st.lists(st.integers(0, 99), max_size=6))
def test_what_is_no_secret_comes_out_whole(text: str, places: list[int]) -> None:
    watch = REGISTERED.watch()
    borders = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    assert "".join(watch(text[a:b]) for a, b in itertools.pairwise(borders)) + watch.flush() == text
    assert watch.leaks == []


def test_ordinary_text_is_not_held_back() -> None:
    watch = REGISTERED.watch()
    text = "本日の会議は十時からです。" * 20
    shown = ""
    for at, character in enumerate(text):
        shown += watch(character)
        assert at + 1 - len(shown) <= 2


def test_what_separates_the_letters_may_not_be_endless() -> None:
    near, far = ("\n" * gap for gap in (LONGEST_GAP, LONGEST_GAP + 1))
    letters = Secrets({"k": "mountainriver"})
    assert letters.hide(near.join("mountainriver"))[1]
    assert not letters.hide(far.join("mountainriver"))[1]


def test_two_secrets_at_once_and_the_text_between_stays() -> None:
    both = Secrets({"a": "alpha-secret-one", "b": "bravo-secret-two"})
    assert both.hide("x alpha-secret-one y bravo-secret-two z")[0] == f"x {SHOWN} y {SHOWN} z"


@pytest.mark.parametrize("secret", ["short", "-" * 20, "a" * 513])
def test_what_cannot_be_watched_for_is_refused(secret: str) -> None:
    with pytest.raises(ConfigError, match="鍵2"):
        Secrets({"鍵2": secret})
