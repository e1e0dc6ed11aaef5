"""利用者を加え、調べ、役割を変え、停止します。 / Add and list users, change their roles, deactivate them."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from tsuzuri.commands._store import as_json as print_json
from tsuzuri.commands._store import data_option, day, json_option, opened, printed
from tsuzuri.errors import Words


@click.group()
def command() -> None:
    """サービスの利用者を管理します。 / Manages the users of the service."""


@command.command()
@click.argument("name")
@click.option("--role", default="member", metavar="ROLE", help="member、auditor、admin のどれか / member, auditor or admin")
@click.option(
    "--password", "asks", is_flag=True, help="パスワードを尋ねる（パイプなら 1 行読む） / ask for a password (or read a line from a pipe)"
)
@data_option
@json_option
def add(name: str, role: str, asks: bool, data: Path | None, as_json: bool) -> None:
    """利用者を加えます。パスワードがなければ、サインインはできず、キーの持ち主になるだけです。
    / Adds a user. Without a password nobody signs in under the name; it can own keys."""
    password = _password() if asks else None
    with opened(data) as db:
        from tsuzuri.store import users  # noqa: PLC0415

        made = users.add(db, name, role, password)
    _shown(asdict(made), Words(f"加えました：{made.name}（{made.role}）", f"Added: {made.name} ({made.role})"), as_json)


@command.command("list")
@data_option
@json_option
def listed(data: Path | None, as_json: bool) -> None:
    """利用者の一覧。 / All users."""
    with opened(data) as db:
        from tsuzuri.store import users  # noqa: PLC0415

        found = users.listed(db)
    if as_json:
        print_json([asdict(user) for user in found])
        return
    heads = [Words("名前", "name"), Words("役割", "role"), Words("状態", "state"), Words("登録", "added"), Words("ID", "id")]
    state = {True: Words("有効", "active"), False: Words("停止", "deactivated")}
    printed([(user.name, user.role, state[user.active], day(user.created_at), user.id) for user in found], heads)


@command.command()
@click.argument("name")
@click.argument("role")
@data_option
@json_option
def role(name: str, role: str, data: Path | None, as_json: bool) -> None:
    """利用者の役割を変えます。 / Changes the role of a user."""
    with opened(data) as db:
        from tsuzuri.store import users  # noqa: PLC0415

        found = users.set_role(db, name, role)
    _shown(asdict(found), Words(f"{found.name} の役割は {found.role} です。", f"{found.name} is {found.role} now."), as_json)


@command.command()
@click.argument("name")
@data_option
@json_option
def password(name: str, data: Path | None, as_json: bool) -> None:
    """パスワードを決め直します。開いていたセッションは終わります。 / Sets a new password and ends the sessions that are open."""
    asked = _password()
    with opened(data) as db:
        from tsuzuri.store import users  # noqa: PLC0415

        found = users.set_password(db, name, asked)
    _shown(asdict(found), Words(f"{found.name} のパスワードを変えました。", f"{found.name} has a new password."), as_json)


@command.command()
@click.argument("name")
@data_option
@json_option
def deactivate(name: str, data: Path | None, as_json: bool) -> None:
    """利用者を停止します。サインインもキーも、次の要求から使えません。
    / Deactivates a user: neither sign-in nor keys work from the next request on."""
    with opened(data) as db:
        from tsuzuri.store import users  # noqa: PLC0415

        found = users.deactivate(db, name)
    _shown(asdict(found), Words(f"停止しました：{found.name}", f"Deactivated: {found.name}"), as_json)


@command.command()
@click.argument("name")
@data_option
@json_option
def erase(name: str, data: Path | None, as_json: bool) -> None:
    """利用者を消去します。名前、パスワード、キー、保存した答え、記録に残した会話の内容がなくなり、戻りません。記録と帳簿には番号だけが残ります。
    / Erases a user: name, password, keys, stored answers, and what they said where the audit kept it. It does not come back. Audit and ledger
    go on with a number alone."""
    with opened(data) as db:
        from tsuzuri.store import erasure  # noqa: PLC0415

        found = erasure.erase(db, name)
    said = Words(
        f"消去しました：キー {found.keys}、保存した答え {found.responses}、記録の内容 {found.contents}（番号 {found.user}）",
        f"Erased: {found.keys} keys, {found.responses} stored answers, {found.contents} contents of the audit (number {found.user})",
    )
    _shown(asdict(found), said, as_json)


def _password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    asked = str(Words("パスワード", "Password"))
    return str(click.prompt(asked, hide_input=True, confirmation_prompt=str(Words("もう一度", "Again")), err=True))


def _shown(row: dict[str, object], said: Words, as_json: bool) -> None:
    if as_json:
        print_json(row)
    else:
        click.echo(str(said))
