"""What click says of its own accord, in the reader's language: headings of a help page, and what is wrong with a command line.

In: a click exception, or a help page as it is being written. Out: the same in Japanese where the reader reads Japanese; what is not in
the table stays as click has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import click

from tsuzuri.errors import language

HEADINGS = {"Options": "指定", "Commands": "できること", "Arguments": "引数"}
NUMBERS = {"integer": "整数", "float": "数", "integer range": "整数", "float range": "数"}
SAID: tuple[tuple[str, str], ...] = (  # what click says -> what we say
    (r"No such option '(\S+)'\.", "{0} という指定はありません。"),
    (r"No such command '(\S+)'\.", "{0} というコマンドはありません。"),
    (r"Missing option '([^']+)'\.(?: .*)?", "{0} を指定してください。"),
    (r"Missing argument '([^']+)'\.(?: .*)?", "{0} を書いてください。"),
    (r"Missing command\.", "コマンドを書いてください。"),
    (r"Option '(\S+)' requires an argument\.", "{0} には値が要ります。"),
    (r"Option '(\S+)' does not take a value\.", "{0} は値をとりません。"),
    (r"Got unexpected extra arguments? \((.*)\)", "余分なものがあります：{0}"),
    (r"Invalid value for '?([^:]+?)'?: '(.*)' is not a valid (.+)\.", "{0} に「{1}」が指定されました。{2}ではありません。"),
    (r"Invalid value for '?([^:]+?)'?: (\S+) is not in the range (.+)\.", "{0} に {1} が指定されました。{2} の範囲にしてください。"),
    (r"Invalid value for '?([^:]+?)'?: '(.*)' is not one of (.+)\.", "{0} に「{1}」が指定されました。あるのは {2} です。"),
    (r"Invalid value for '?([^:]+?)'?: \S+ '(.*)' does not exist\.", "{0} に指定された {1} はありません。"),
)


class Page(click.HelpFormatter):
    """A help page."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, args, "使い方：" if language() == "ja" and prefix is None else prefix)

    def write_heading(self, heading: str) -> None:
        super().write_heading(HEADINGS.get(heading, heading) if language() == "ja" else heading)

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl([(first, _bracket(second)) for first, second in rows], col_max, col_spacing)


class Context(click.Context):
    formatter_class = Page


def _bracket(text: str) -> str:
    """What stands in brackets after the help of an option."""
    if language() != "ja":
        return text
    found = re.search(r"  \[([^\[\]]*)\]$", text)
    if found is None:
        return text
    inner = re.sub(r"\bdefault: ", "初期値 ", re.sub(r"\brequired\b", "必須", found[1]))
    return f"{text[: found.start()]}［{inner.replace('; ', '、')}］"


def show(error: click.ClickException) -> None:
    """On standard error, how it is used and what is wrong."""
    if language() != "ja":
        error.show()
        return
    context: Any = getattr(error, "ctx", None)
    if context is not None:
        click.echo(context.get_usage(), err=True)
        click.echo(f"{context.command_path} --help で詳しい使い方を見られます。\n", err=True)
    click.echo(f"エラー: {in_japanese(error.format_message())}", err=True)


def in_japanese(said: str) -> str:
    what, _, tail = said.partition(" (Did you mean ")
    near = tail.removeprefix("one of: ").removesuffix("?)").replace("'", "").replace(", ", " か ")
    for pattern, ours in SAID:
        found = re.fullmatch(pattern, what, re.DOTALL)
        if found:
            parts = [NUMBERS.get(part, part).replace("'", "") for part in found.groups()]
            return ours.format(*parts) + (f"{near} のことではありませんか。" if near else "")
    return said
