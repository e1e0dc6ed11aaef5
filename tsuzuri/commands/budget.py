"""予算を決め、使われた額を調べます。 / Set budgets and see what is spent."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tsuzuri.commands._store import as_json as print_json
from tsuzuri.commands._store import data_option, json_option, micro_yen, opened, printed, yen
from tsuzuri.errors import Words

if TYPE_CHECKING:
    from tsuzuri.store.database import Database

UNLIMITED = Words("なし", "none")


@click.group()
def command() -> None:
    """1 か月に使える額を、キー、利用者、全体のそれぞれに決めます。管理者も例外ではありません。
    / What may be spent in a month: by a key, by a user, by all together. Administrators are no exception."""


@command.command()
@click.option("--month", metavar="YYYY-MM", help="月。省くと今月 / the month; this one unless given")
@data_option
@json_option
def show(month: str | None, data: Path | None, as_json: bool) -> None:
    """予算と、確保中の額と、使った額。JSON の額は百万分の 1 円の整数です。
    / Budgets, what is held, what is spent. In JSON amounts are whole millionths of a yen."""
    with opened(data) as db:
        from tsuzuri.store import ledger  # noqa: PLC0415

        found = ledger.listed(db, month)
        names = _names(db)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    heads = [
        Words("誰の", "whose"),
        Words("月", "month"),
        Words("予算（円）", "budget (yen)"),
        Words("確保中", "held"),
        Words("使用", "spent"),
    ]
    printed(
        [
            (names.get(one.owner, one.owner), one.month, UNLIMITED if one.limit is None else yen(one.limit), yen(one.held), yen(one.spent))
            for one in found
        ],
        heads,
    )


@command.command("set")
@click.argument("amount")
@click.option("--key", metavar="KEY", help="このキーの予算 / of this key")
@click.option("--user", metavar="NAME", help="この利用者の予算 / of this user")
@click.option("--all", "everybody", is_flag=True, help="全体の予算 / of all together")
@data_option
@json_option
def set_(amount: str, key: str | None, user: str | None, everybody: bool, data: Path | None, as_json: bool) -> None:
    """1 か月の予算を円で決めます。none で予算をなくします。 / Sets the budget of a month, in yen; none takes it away.

    例：tsuzuri budget set 5000 --user 山田 / For example: tsuzuri budget set 5000 --user yamada"""
    if [key is not None, user is not None, everybody].count(True) != 1:
        raise click.UsageError(str(Words("--key、--user、--all のどれか一つを指定してください。", "Give one of --key, --user and --all.")))
    limit = None if amount == "none" else micro_yen(amount)
    with opened(data) as db:
        from tsuzuri.store import keys, ledger, users  # noqa: PLC0415

        owner = ledger.ALL
        if key is not None:
            owner = f"key:{keys.one(db, key).id}"
        elif user is not None:
            owner = f"user:{users.one(db, user).id}"
        ledger.set_limit(db, owner, limit)
        name = _names(db).get(owner, owner)
        found = ledger.balance(db, owner)
    if as_json:
        print_json(asdict(found))
        return
    amount = yen(limit) if limit is not None else ""
    said = (
        Words(f"{name}：1 か月 {amount} 円", f"{name}: {amount} yen a month")
        if amount
        else Words(f"{name}：予算なし", f"{name}: no budget")
    )
    click.echo(str(said))


def _names(db: Database) -> dict[str, str]:
    """By owner, as a person calls them."""
    from tsuzuri.store import keys, ledger, users  # noqa: PLC0415

    return {
        ledger.ALL: str(Words("全体", "all")),
        **{f"key:{key.id}": f"{Words('キー', 'key')} {key.name}" for key in keys.listed(db)},
        **{f"user:{user.id}": f"{Words('利用者', 'user')} {user.name}" for user in users.listed(db)},
    }
