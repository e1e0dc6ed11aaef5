"""What the verbs of the service's data share: where the database is, durations and money as people write them, lines or JSON.

In: options. Out: an open database. Nothing heavy is imported before it is opened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tsuzuri.config import milliseconds
from tsuzuri.errors import ConfigError, Words

if TYPE_CHECKING:
    from tsuzuri.store.database import Database

F = TypeVar("F", bound=Callable[..., Any])
JAPAN = timezone(timedelta(hours=9))
MICRO = 1_000_000


def data_option(function: F) -> F:
    """--data-dir DIR"""
    return click.option(
        "--data-dir",
        "data",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="データの置き場所。省くと TSUZURI_DATABASE_URL、TSUZURI_DATA_DIR、利用者のデータの場所の順 / where the data is; "
        "unless given TSUZURI_DATABASE_URL, TSUZURI_DATA_DIR, the place of a user's data",
    )(function)


def json_option(function: F) -> F:
    """--json"""
    return click.option("--json", "as_json", is_flag=True, help="JSON で / as JSON")(function)


def address(data: Path | None) -> str | Path:
    """Where the data is, and on stderr nothing of it: an address may hold a password."""
    from tsuzuri.store import database  # noqa: PLC0415  SQLAlchemy loads here

    return data if data is not None else database.default_address()


def opened(data: Path | None) -> AbstractContextManager[Database]:
    from tsuzuri.store import database  # noqa: PLC0415  SQLAlchemy loads here

    return database.open(address(data))


def moment(written: str, now: int) -> int:
    """In 30d, or the beginning of 2027-04-01 in Japan; ms since 1970. Raises ConfigError."""
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", written):
        try:
            return int(datetime.fromisoformat(written).replace(tzinfo=JAPAN).timestamp() * 1000)
        except ValueError as error:
            raise _unread(
                written, Words("そのような日はありません。", "There is no such day."), Words("例：2027-04-01", "For example 2027-04-01.")
            ) from error
    return now + milliseconds(written)


def micro_yen(written: str) -> int:
    """Yen with up to six places: 5000, 0.5. Raises ConfigError."""
    try:
        exact = Decimal(written) * MICRO
        if exact.is_finite() and exact >= 0 and exact == int(exact):
            return int(exact)
    except InvalidOperation:
        pass
    raise _unread(written, Words("円の金額ではありません。", "It is no amount of yen."), Words("例：5000、0.5", "For example 5000 or 0.5."))


def yen(amount: int) -> str:
    """Exactly, without needless zeros."""
    text = f"{Decimal(amount) / MICRO:,.6f}"
    return text.rstrip("0").rstrip(".")


def day(at: int | None) -> str:
    """A moment as people read it, in Japan; - for none."""
    return "-" if at is None else datetime.fromtimestamp(at / 1000, JAPAN).strftime("%Y-%m-%d %H:%M")


def printed(rows: Iterable[Iterable[object]], heads: Iterable[Words]) -> None:
    """Columns; a width for each, wide characters counted twice."""
    table = [[str(head) for head in heads], *([str(cell) for cell in row] for row in rows)]
    widths = [max(_width(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        click.echo("  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)).rstrip())


def as_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False))


def told(text: Words) -> None:
    """To the person, not to what reads the output."""
    click.echo(str(text), err=True)


def _width(text: str) -> int:
    import unicodedata  # noqa: PLC0415

    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _unread(written: str, found: Words, todo: Words) -> ConfigError:
    return ConfigError(Words(f"「{written}」を読もうとしました。", f"Reading '{written}'."), found=found, todo=todo)
