"""One flag for each field of `Sampling`, derived from the dataclass: a new field is a new flag."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from typing import Any

import click

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
            if (not only or each.name in only) and each.name not in without:
                command = _option(each, (defaults or {}).get(each.name, each.default))(command)
        return command

    return decorate


def stop_option(command: Callable[..., Any]) -> Callable[..., Any]:
    words = Words("この文字列が現れたら終わる（複数指定可）", "end before this string; may be given several times")
    return click.option("--stop", multiple=True, metavar="TEXT", help=str(words))(command)


def _option(each: Field[Any], default: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    rule = each.metadata["rule"]
    flag, words = "--" + each.name.replace("_", "-"), str(rule.words)
    if rule.kind is bool:
        return click.option(flag, each.name, is_flag=True, default=default, help=words)
    if rule.by_id:
        return click.option(flag, each.name, type=Pair(), multiple=True, help=words)
    shown = default is not None and not rule.several
    return click.option(flag, each.name, type=rule.kind, default=default, multiple=rule.several, show_default=shown, help=words)
