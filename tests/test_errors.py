"""Every error of ours says three things in the reader's language, and the tree that is drawn is the tree that is."""

from __future__ import annotations

import re

import pytest

from tsuzuri import errors
from tsuzuri.errors import StopRequested, TsuzuriError, Words, language

VARIABLES = ("TSUZURI_LANG", "LC_ALL", "LC_MESSAGES", "LANG")


@pytest.mark.parametrize(
    ("set_to", "expected"),
    [
        ({}, "ja"),
        ({"LANG": "ja_JP.UTF-8"}, "ja"),
        ({"LANG": "ja"}, "ja"),
        ({"LANG": "en_US.UTF-8"}, "en"),
        ({"LANG": "fr_FR.UTF-8"}, "en"),
        ({"LANG": "C"}, "ja"),
        ({"LANG": "C.UTF-8"}, "ja"),
        ({"LANG": "POSIX"}, "ja"),
        ({"LANG": "ja_JP.UTF-8", "LC_MESSAGES": "en_GB.UTF-8"}, "en"),
        ({"LC_MESSAGES": "en_GB.UTF-8", "LC_ALL": "ja_JP.UTF-8"}, "ja"),
        ({"LC_ALL": "ja_JP.UTF-8", "TSUZURI_LANG": "en"}, "en"),
        ({"LC_ALL": "en_US.UTF-8", "TSUZURI_LANG": "ja"}, "ja"),
        ({"LC_ALL": "", "LANG": "en_US.UTF-8"}, "en"),
    ],
    ids=str,
)
def test_the_locale_says_the_language(monkeypatch: pytest.MonkeyPatch, set_to: dict[str, str], expected: str) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in set_to.items():
        monkeypatch.setenv(name, value)
    assert language() == expected
    assert str(Words("日本語", "English")) == {"ja": "日本語", "en": "English"}[expected]


def test_an_error_says_what_was_asked_found_and_to_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    error = TsuzuriError(Words("頼み", "asked"), found=Words("様子", "state"), todo=Words("手当て", "remedy"))
    assert str(error) == "頼み\n  状況: 様子\n  対処: 手当て"
    monkeypatch.setenv("TSUZURI_LANG", "en")
    assert str(error) == "asked\n  found: state\n  to do: remedy"
    assert (error.asked.en, error.found.en, error.todo.en) == ("asked", "state", "remedy")


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    drawn = re.findall(r"[├└]── (\w+) ", errors.__doc__ or "")
    assert drawn == [kind.__name__ for kind in TsuzuriError.__subclasses__()]
    assert len(drawn) == len(set(drawn)) > 5
    assert not [kind for name in drawn for kind in getattr(errors, name).__subclasses__()], "a deeper branch must be drawn"
    assert issubclass(StopRequested, Exception)


@pytest.mark.parametrize("kind", [TsuzuriError, *TsuzuriError.__subclasses__()])
def test_no_error_can_be_raised_without_its_three_parts(kind: type[TsuzuriError]) -> None:
    with pytest.raises(TypeError):
        kind("something went wrong")  # type: ignore[call-arg,arg-type]
