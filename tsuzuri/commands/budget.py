"""予算を決め、使われた額を調べます。 / Set budgets and see what is spent."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tsuzuri.commands._store import as_json as print_json
from tsuzuri.commands._store import data_option, json_option, micro_yen, opened, printed, told, yen
from tsuzuri.errors import ConfigError, Words
from tsuzuri.folder import suggestion

if TYPE_CHECKING:
    from decimal import Decimal

    from tsuzuri.store.database import Database
    from tsuzuri.store.energy import Energy
    from tsuzuri.store.prices import Price

UNLIMITED = Words("なし", "none")


prices_option = click.option(
    "--prices",
    "path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="付属の表より優先する料金表（YAML） / a table of prices (YAML) that goes before the one that comes with it",
)


@click.group()
def command() -> None:
    """1 か月に使える額を、キー、利用者、全体のそれぞれに決めます。管理者も例外ではありません。
    / What may be spent in a month: by a key, by a user, by all together. Administrators are no exception."""


@command.command()
@click.option("--month", metavar="YYYY-MM", help="月。省くと今月 / the month; this one unless given")
@data_option
@json_option
def show(month: str | None, data: Path | None, as_json: bool) -> None:
    """予算と、確保中の額と、使った額と、手元のモデルの電力量。JSON の額は百万分の 1 円、電力量はミリジュールの整数です。
    / Budgets, what is held, what is spent, and what models of our own drew. In JSON amounts are whole millionths of a yen, energy is in
    whole millijoules."""
    with opened(data) as db:
        from tsuzuri.store import energy, ledger  # noqa: PLC0415

        found, drawn = ledger.listed(db, month), energy.listed(db, month)
        there = {one.owner for one in found}
        found += [ledger.balance(db, owner, month) for owner in sorted(drawn) if owner not in there]
        names = _names(db)
        nothing = energy.Energy()
    if as_json:
        print_json([{**asdict(one), "millijoules": asdict(drawn.get(one.owner, nothing))} for one in found])
        return
    heads = [
        Words("誰の", "whose"),
        Words("月", "month"),
        Words("予算（円）", "budget (yen)"),
        Words("確保中", "held"),
        Words("使用", "spent"),
        Words("電力量（Wh）", "energy (Wh)"),
    ]
    printed(
        [
            (
                names.get(one.owner, one.owner),
                one.month,
                UNLIMITED if one.limit is None else yen(one.limit),
                yen(one.held),
                yen(one.spent),
                _energy(drawn.get(one.owner, nothing)),
            )
            for one in found
        ],
        heads,
    )


def _energy(drawn: Energy) -> str:
    """In watt-hours, and how it is known."""
    told = [
        f"{millijoules / 3.6e6:.3f} ({how})"
        for millijoules, how in ((drawn.measured, Words("計測", "measured")), (drawn.estimated, Words("推定", "estimated")))
        if millijoules
    ]
    return " + ".join(told) or "-"


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
    if amount:
        told(
            Words(
                "手元のモデルは、料金表に行を書くまで 0 円と数えます（tsuzuri serve --prices）。",
                "A model of your own costs nothing until it has a row in a table of prices (tsuzuri serve --prices).",
            )
        )


@command.command()
@prices_option
@json_option
def prices(path: Path | None, as_json: bool) -> None:
    """今日の料金表と、その出どころ。百万トークンあたりの額です。付属の表はドルなので、円で数えるには、一ドルが何円かを自分の表に書きます。
    / Today's prices of a million tokens, and where they were found. Those that come with the program are in dollars: to count in yen,
    say in a table of your own what a dollar is."""
    from tsuzuri.store import prices as table  # noqa: PLC0415
    from tsuzuri.store.tables import now_ms  # noqa: PLC0415

    found = table.load(path).over(table.listed()) if path else table.listed()
    at = now_ms()
    rows = [(name, *holds) for name in sorted(found.models) if (holds := found.on(name, at)) is not None]
    if as_json:
        print_json([_price(name, price, rate) for name, price, rate in rows])
        return
    heads = [
        Words("モデル", "model"),
        Words("単位", "unit"),
        Words("入力", "input"),
        Words("再利用", "cached"),
        Words("出力", "output"),
        Words("円/単位", "yen a unit"),
        Words("から", "from"),
        Words("出どころ", "source"),
    ]
    unknown = Words("未設定", "not set")
    printed(
        [
            (name, p.currency, p.input, p.cached, p.output, unknown if rate is None else rate, p.from_, p.source or "-")
            for name, p, rate in rows
        ],
        heads,
    )


@command.command()
@click.argument("model")
@click.option("--input", "reading", type=click.IntRange(0, 1 << 40), required=True, help="入力のトークン数 / tokens that it reads")
@click.option(
    "--cached", type=click.IntRange(0, 1 << 40), default=0, help="そのうち、前に読んであるもの / of these, those known from before"
)
@click.option("--output", "giving", type=click.IntRange(0, 1 << 40), required=True, help="出力のトークン数 / tokens that it gives")
@click.option("--calls", type=click.IntRange(1, 1 << 40), default=1, help="回数 / how many calls")
@prices_option
@json_option
def estimate(model: str, reading: int, cached: int, giving: int, calls: int, path: Path | None, as_json: bool) -> None:
    """頼む前に、いくらかかるかを見積もります。今日の料金で、キーも予算も使いません。
    / What calls would cost, before they are made: at today's prices, without a key or a budget.

    例：tsuzuri budget estimate openai/gpt-5-nano --input 1200 --output 300 / For example: the same"""
    if cached > reading:
        raise click.UsageError(str(Words("--cached は --input の一部です。", "--cached is a part of --input.")))
    from tsuzuri.store import prices as table  # noqa: PLC0415
    from tsuzuri.store.tables import now_ms  # noqa: PLC0415

    prices, at = table.load(path).over(table.listed()) if path else table.listed(), now_ms()
    holds = prices.on(model, at)
    if holds is None:
        raise _unknown(model, list(prices.models))
    price, rate = holds
    used = {"input": reading, "output": giving, "cached": cached, "at": at}
    in_yen = prices.cost(model, **used)
    in_units = table.Prices({model: (replace(price, currency="JPY"),)}, {}).cost(model, **used)
    assert in_units is not None
    if as_json:
        total = None if in_yen is None else in_yen * calls
        print_json({"calls": calls, "micro_yen": in_yen, "micro_units": in_units, "total_micro_yen": total, **_price(model, price, rate)})
        return
    one, unit = (in_units, Words(price.currency, price.currency)) if in_yen is None else (in_yen, Words("円", "yen"))
    together = (
        Words(f"、{calls:,} 回で {yen(one * calls)} {unit.ja}", f", {yen(one * calls)} for {calls:,}") if calls > 1 else Words("", "")
    )
    click.echo(str(Words(f"1 回 {yen(one)} {unit.ja}{together.ja}", f"{yen(one)} {unit.en} a call{together.en}")))
    told(
        Words(
            f"{price.from_} からの料金。出どころ：{price.source or '自分の表'}",
            f"Price of {price.from_}, from {price.source or 'your table'}",
        )
    )
    if in_yen is None:
        told(_without_rate(price.currency))


def _unknown(model: str, known: list[str]) -> ConfigError:
    return ConfigError(
        Words(f"{model} の料金を見積もろうとしました。", f"Estimating what {model} costs."),
        found=Words("料金表に、今日の料金がありません。", "There is no price of today in the table."),
        todo=suggestion(
            model,
            known,
            Words(
                "tsuzuri budget prices で一覧を見るか、--prices で料金表を渡してください。",
                "See tsuzuri budget prices, or give a table with --prices.",
            ),
        ),
    )


def _without_rate(unit: str) -> Words:
    return Words(
        f"1 {unit} が何円かが分かりません。--prices の表に rates: {{{unit}: [{{from: 2026-11-01, yen: …}}]}} と書けば円で示します。",
        f"What a {unit} is in yen is not known: write rates: {{{unit}: [{{from: 2026-11-01, yen: …}}]}} into a table for --prices.",
    )


def _price(name: str, price: Price, rate: Decimal | None) -> dict[str, object]:
    """As JSON: amounts as they are written, exactly."""
    amounts = {field: str(getattr(price, field)) for field in ("input", "cached", "output")}
    return {
        "model": name,
        "unit": price.currency,
        **amounts,
        "yen": None if rate is None else str(rate),
        "from": str(price.from_),
        "source": price.source,
    }


def _names(db: Database) -> dict[str, str]:
    """By owner, as a person calls them."""
    from tsuzuri.store import keys, ledger, users  # noqa: PLC0415

    return {
        ledger.ALL: str(Words("全体", "all")),
        **{f"key:{key.id}": f"{Words('キー', 'key')} {key.name}" for key in keys.listed(db)},
        **{f"user:{user.id}": f"{Words('利用者', 'user')} {user.name}" for user in users.listed(db)},
    }
