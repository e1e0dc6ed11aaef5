"""What a model says cannot take over the terminal."""

from __future__ import annotations

import sys

import pytest

from tsuzuri.commands import _screen


@pytest.mark.parametrize("terminal", [True, False])
def test_control_characters_are_shown_on_a_terminal_and_kept_in_a_file(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    _screen.write("あ\x1b]0;題\x07\x9b2J\r\n\tい\x7f")
    assert capsys.readouterr().out == ("あ␛]0;題␇\ufffd2J␍\n\tい\ufffd" if terminal else "あ\x1b]0;題\x07\x9b2J\r\n\tい\x7f")
