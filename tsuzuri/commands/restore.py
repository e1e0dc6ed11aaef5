"""バックアップを、空のデータベースに戻します。 / Restore a backup into an empty database."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from tsuzuri.commands._store import address, data_option, json_option
from tsuzuri.commands._store import as_json as print_json
from tsuzuri.errors import Words


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@data_option
@json_option
def command(file: Path, data: Path | None, as_json: bool) -> None:
    """FILE の全体を確かめてから、空のデータベースに戻します。SQLite の控えを PostgreSQL に戻すことも、その逆もできます。
    / Checks all of FILE, then restores it into an empty database; from SQLite to PostgreSQL and the other way round, too.

    例：tsuzuri restore 今日.backup --data-dir 新しい場所 / For example: tsuzuri restore today.backup --data-dir new"""
    where = address(data)
    from tsuzuri.store.backup import restore  # noqa: PLC0415

    done = restore(file, where)
    if as_json:
        print_json({"file": str(file), **asdict(done)})
        return
    click.echo(str(Words(f"{sum(done.rows.values())} 行を戻しました。", f"{sum(done.rows.values())} rows restored.")))
