"""One flag for each field of `Sampling`, derived from the dataclass: a new field is a new flag. The constraint of the output has one for
each form it can have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from typing import IO, Any

import click

from tsuzuri.engine.constraint import Constraint
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import Words


class Pair(click.ParamType[tuple[int, float]]):
    """ID=VALUE on the command line."""

    name = "id=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, float]:
        id, _, number = str(value).partition("=")
        try:
            return int(id), float(number)
        except ValueError:
            self.fail(str(Words(f"「{value}」は 265=-100 の形ではありません。", f"'{value}' is not of the form 265=-100.")), param, ctx)


def sampling_options(
    defaults: Mapping[str, Any] | None = None, only: tuple[str, ...] = (), without: tuple[str, ...] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--temperature, --top-k …, with other defaults where given; `only` these fields, or all `without` those."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for each in reversed(fields(Sampling)):
            if each.metadata["rule"].kind is not Constraint and (not only or each.name in only) and each.name not in without:
                command = _option(each, (defaults or {}).get(each.name, each.default))(command)
        return command

    return decorate


def stop_option(command: Callable[..., Any]) -> Callable[..., Any]:
    words = Words("この文字列が現れたら終わる（複数指定可）", "end before this string; may be given several times")
    return click.option("--stop", multiple=True, metavar="TEXT", help=str(words))(command)


def form_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--json-schema, --regex, --choice, --grammar"""
    for option in (
        click.option(
            "--grammar",
            type=click.File(encoding="utf-8"),
            callback=_read,
            metavar="FILE",
            help=str(Words("出力をこのファイルの文法（Lark）に従わせる", "hold the output to the grammar (Lark) of this file")),
        ),
        click.option(
            "--choice",
            multiple=True,
            metavar="TEXT",
            callback=lambda context, parameter, texts: texts or None,
            help=str(Words("出力をこの中の一つにする（複数指定）", "let the output be one of these; given several times")),
        ),
        click.option(
            "--regex",
            metavar="TEXT",
            help=str(Words("出力全体をこの正規表現に従わせる", "hold the whole output to this regular expression")),
        ),
        click.option(
            "--json-schema",
            type=click.File(encoding="utf-8"),
            callback=_read,
            metavar="FILE",
            help=str(Words("出力をこのファイルの JSON スキーマに従う JSON にする", "let the output be JSON of the schema in this file")),
        ),
    ):
        command = option(command)
    return command


def _read(context: click.Context, parameter: click.Parameter, file: IO[str] | None) -> str | None:
    if file is None:
        return None
    try:
        with file:
            return file.read()
    except UnicodeDecodeError as error:
        words = Words("UTF-8 として読めません。", "It is not UTF-8.")
        raise click.BadParameter(str(words), context, parameter) from error


def _option(each: Field[Any], default: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    rule = each.metadata["rule"]
    flag, words = "--" + each.name.replace("_", "-"), str(rule.words)
    if rule.kind is bool:
        return click.option(flag, each.name, is_flag=True, default=default, help=words)
    if rule.by_id:
        return click.option(flag, each.name, type=Pair(), multiple=True, help=words)
    shown = default is not None and not rule.several
    return click.option(flag, each.name, type=rule.kind, default=default, multiple=rule.several, show_default=shown, help=words)
