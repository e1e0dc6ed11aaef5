"""モデルを HTTP で提供します（OpenAI と Anthropic の形式）。 / Serve models over HTTP, in OpenAI's and Anthropic's form."""

from __future__ import annotations

import os
import typing
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tsuzuri import config
from tsuzuri.commands import _greeting as greeting
from tsuzuri.commands._store import opened
from tsuzuri.errors import Words
from tsuzuri.serve import settings as given
from tsuzuri.serve.settings import Settings

if TYPE_CHECKING:
    from tsuzuri.store.database import Database

UNSAID = ParameterSource.DEFAULT


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """One flag for each field of `Settings` that has one."""
    hints = typing.get_type_hints(Settings)
    for each in reversed(fields(Settings)):
        if each.metadata["key"].flag is not None:
            command = _option(each, hints[each.name])(command)
    return command


def _option(each: Field[Any], hint: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    key = each.metadata["key"]
    told, default = str(key.words), each.default
    if hint is bool:
        return click.option(f"{key.flag}/{key.flag.replace('--', '--no-', 1)}", each.name, default=default, help=told)
    if each.name == "routes":
        return click.option(key.flag, "routes_file", type=click.Path(path_type=Path), metavar=key.shown, help=told)
    if typing.get_origin(hint) in (tuple, Mapping):
        return click.option(key.flag, each.name, multiple=True, metavar=key.shown, help=told)
    plain = next(kind for kind in (*typing.get_args(hint), hint) if kind is not type(None)) if default is None else hint
    choices = typing.get_args(plain)
    kind = click.Choice(choices) if choices else click.Path(path_type=Path) if plain is Path else plain
    shown = default is not None
    return click.option(key.flag, each.name, type=kind, metavar=key.shown, default=default, show_default=shown, help=told)


@click.command()
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=str(
        Words(
            "設定のファイル（YAML）。ほかの指定はこれに優先する。項目の一覧は docs/ja/service-settings.md",
            "settings (YAML); flags go before it. All keys: docs/en/service-settings.md",
        )
    ),
)
@click.option(
    "--print-config",
    "show",
    is_flag=True,
    help=str(Words("有効な設定を、--config で読める形で表示して終わる", "show what is in force, as --config reads it, and end")),
)
@setting_options
def command(file: Path | None, show: bool, routes_file: Path | None, **flags: Any) -> None:
    """モデルを HTTP で提供します。最初に起動したときにキーを一つ作り、一度だけ表示します。Ctrl-C で終わります（答えの途中のものは
    待ちます。もう一度押すとすぐに終わります）。 / Serve models over HTTP. The first start makes a key and shows it, once. Ctrl-C ends
    it: answers under way may finish; once more, and it ends at once.

    例：tsuzuri serve --model runs/tiny/model / For example: tsuzuri serve --model runs/tiny/model"""
    from tsuzuri.serve import server, starting  # noqa: PLC0415
    from tsuzuri.serve.app import Service  # noqa: PLC0415
    from tsuzuri.serve.models import Pool  # noqa: PLC0415

    ready = starting.ready(given.read(file, _said(flags), routes_file))
    if show:
        for line in starting.told(ready, os.environ):
            click.echo(f"# {line}")
        click.echo(config.to_yaml(ready.settings), nl=False)
        return
    address = ready.address
    with server.listen(address) as at, opened(ready.settings.data_dir) as db:
        models = starting.models(ready, db, os.environ)
        service = Service(Pool(models), db, ready.terms)
        greeting.tell_unpriced(models, ready.costs)
        greeting.tell(address, at.getsockname()[1], models, _first_key(db), _invitation(db))
        server.run(service, address, at, ready.settings.grace)
    click.echo(str(Words("終わりました。", "Stopped.")))


def _said(flags: Mapping[str, Any]) -> dict[str, Any]:
    """What flags say that were given, as the file would say it."""
    source = click.get_current_context().get_parameter_source
    said = {name: list(value) if isinstance(value, tuple) else value for name, value in flags.items() if source(name) is not UNSAID}
    for name, flag in (("remotes", "--remote"), ("aliases", "--alias")):
        if name in said:
            pairs = [_pair(flag, text) for text in said[name]]
            twice = next((key for key, _ in pairs if [key for key, _ in pairs].count(key) > 1), None)
            if twice is not None:
                what = Words("同じ名前のモデルが二つ", "two models") if name == "remotes" else Words("同じ別名が二つ", "two aliases")
                raise click.UsageError(str(Words(f"{flag} {twice}：{what.ja}あります。", f"{flag} {twice}: {what.en} of that name.")))
            said[name] = dict(pairs)
    return said


def _pair(option: str, text: str) -> tuple[str, str]:
    left, sign, right = text.partition("=")
    if not (left and sign and right):
        what = {"--remote": "名前=アドレス", "--alias": "別名=モデル"}[option]
        raise click.UsageError(str(Words(f"{option} は {what} の形です。", f"{option} takes NAME=VALUE.")))
    return left, right


def _first_key(db: Database) -> str | None:
    """The secret of a key made because there was none."""
    from tsuzuri.store import keys  # noqa: PLC0415

    return None if keys.listed(db) else keys.create(db, "first", scopes=("chat", "embeddings"))[1]


def _invitation(db: Database) -> str | None:
    """A one-time token for the first administrator, as long as there is none."""
    from tsuzuri.store import users  # noqa: PLC0415

    return users.invite(db)
