"""サービスのデータを一つのファイルに控えます。 / Back up the data of the service into one file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from tsuzuri.commands._store import as_json as print_json
from tsuzuri.commands._store import data_option, json_option, opened, told
from tsuzuri.errors import Words


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@data_option
@json_option
def command(file: Path, data: Path | None, as_json: bool) -> None:
    """サービスを動かしたまま、ある一瞬のデータをすべて FILE に書きます。秘密鍵は含まないので、別に控えてください。
    / Writes all data, as of one moment, to FILE while the service runs on. The secrets are not in it: keep a copy of them, too.

    例：tsuzuri backup 今日.backup / For example: tsuzuri backup today.backup"""
    with opened(data) as db:
        from tsuzuri.store.backup import backup  # noqa: PLC0415

        done = backup(db, file)
        place = db.secrets.directory
    if as_json:
        print_json({"file": str(file), "secrets": str(place), **asdict(done)})
        return
    click.echo(str(Words(f"{file} に {sum(done.rows.values())} 行を書きました。", f"{sum(done.rows.values())} rows written to {file}.")))
    told(
        Words(
            f"秘密鍵は含みません。{place} も、別の場所に控えてください。",
            f"The secrets are not in it. Keep a copy of {place} elsewhere, too.",
        )
    )
