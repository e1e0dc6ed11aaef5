"""A command line that is wrong, and a help page, are told in the reader's language."""

from __future__ import annotations

import re

import click
import pytest
from click.testing import CliRunner

from tsuzuri import commands
from tsuzuri.commands import _click

WRONG = {
    "serve --nono": "--nono という指定はありません。",
    "serve --por 4": "--por という指定はありません。--port か --prices のことではありませんか。",
    "serve --port": "--port には値が要ります。",
    "serve --port abc": "--port に「abc」が指定されました。整数ではありません。",
    "serve --quantize q9": "--quantize に「q9」が指定されました。あるのは q8_0, q4_0 です。",
    "serve --no-mask=3": "--no-mask は値をとりません。",
    "keys create": "--name を指定してください。",
    "keys nono": "nono というコマンドはありません。",
    "users add": "NAME を書いてください。",
    "budget set 5 6": "余分なものがあります：6",
    "bench x --rounds 0": "--rounds に 0 が指定されました。2<=x<=1000 の範囲にしてください。",
    "generate あ --temperature x": "--temperature に「x」が指定されました。数ではありません。",
}


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_with_a_command_line_is_said_in_japanese(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TSUZURI_LANG", "ja")
    with pytest.raises(click.ClickException) as caught:
        commands.cli.main(line.split(), prog_name="tsuzuri", standalone_mode=False)
    _click.show(caught.value)
    told = capsys.readouterr().err
    assert told.endswith(f"エラー: {WRONG[line]}\n")
    assert told.startswith(f"使い方：tsuzuri {line.split()[0]}") or getattr(caught.value, "ctx", None) is None


def test_in_english_it_is_as_click_has_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TSUZURI_LANG", "en")
    with pytest.raises(click.ClickException) as caught:
        commands.cli.main(["serve", "--nono"], prog_name="tsuzuri", standalone_mode=False)
    _click.show(caught.value)
    assert capsys.readouterr().err.endswith("Error: No such option '--nono'.\n")


def test_what_is_not_in_the_table_stays() -> None:
    for text in ("--key、--user、--all のどれか一つを指定してください。", "Something new."):
        assert _click.in_japanese(text) == text


@pytest.mark.parametrize("verb", ["serve", "keys create", "budget set"])
def test_a_help_page_has_no_english_heading_for_a_japanese_reader(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSUZURI_LANG", "ja")
    shown = CliRunner().invoke(commands.cli, [*verb.split(), "--help"]).output
    assert shown.startswith("使い方：")
    assert not re.search(r"Usage|Options|Commands|\[default|\[required", shown)
