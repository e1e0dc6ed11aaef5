"""All rows into one file, while everything goes on, and back into an empty database: the same one, or one of the other kind.

In: a database. Out: a compressed file of JSON lines, whole or not at all, mode 0600: a heading, the rows of one moment, table by table, and
a SHA-256 at the end. Restoring checks all of it before it writes, and writes in one transaction; a file of an older schema is restored as
that and then brought up to date. The secrets are not in it: whoever finds it finds no key that opens, and nothing sealed to read.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import secrets as random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard
from sqlalchemy import Connection, LargeBinary, MetaData, Table, func, insert, select, text

from tsuzuri.directory import told
from tsuzuri.errors import ConfigError, FormatError, MissingError, Words
from tsuzuri.folder import names
from tsuzuri.store import database
from tsuzuri.store.database import Database
from tsuzuri.store.secrets import PEPPER
from tsuzuri.store.tables import metadata, now_ms

FORMAT = "tsuzuri backup 1"
BATCH = 1000


@dataclass(frozen=True, slots=True)
class Summary:
    schema: str
    at: int  # ms since 1970
    pepper: str  # fingerprint of the one the rows were made with
    rows: dict[str, int]  # by table


def backup(db: Database, path: Path) -> Summary:
    """Writes the file at `path`, which must not be there. Raises ConfigError, SpaceError."""
    if path.exists():
        raise ConfigError(
            Words(f"{path} にバックアップしようとしました。", f"Backing up to {path}."),
            found=Words("同じ名前のものがあります。", "Something of that name is there."),
            todo=Words("別の名前にしてください。上書きはしません。", "Take another name. Nothing is overwritten."),
        )
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{random.token_hex(4)}.tmp")
    try:
        with told(path), os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            with zstandard.ZstdCompressor(level=6).stream_writer(file, closefd=False) as out:
                summary = _write(db, out)
            file.flush()
            os.fsync(file.fileno())
        with told(path):
            os.link(temporary, path)  # never over another
            _sync(path.absolute().parent)
    finally:
        with suppress(OSError):
            temporary.unlink()
    return summary


def restore(path: Path, address: str | Path, secrets: Path | None = None) -> Summary:
    """Into the database at `address`, which must be empty. Raises MissingError, FormatError (damaged, newer, of other secrets), ConfigError."""
    summary = check(path)
    if summary.schema not in names(database.VERSIONS):
        raise _broken(path, Words("より新しい版の tsuzuri で作られています。", "It was made by a newer tsuzuri."))
    with database.connect(address, secrets) as db:
        with db.read() as connection:
            _check_empty(connection, path)
        _check_secrets(db, summary.pepper, path)
        database.upgrade(db, summary.schema)
        with db.write() as connection:
            _check_empty(connection, path)
            _insert(connection, path)
        database.upgrade(db)
        database.check_secrets(db)
    return summary


def check(path: Path) -> Summary:
    """What is in the file, once every byte of it has been read and agrees with its end."""
    lines = _lines(path)
    heading = next(lines, None)
    if not isinstance(heading, dict) or heading.get("format") != FORMAT:
        raise _broken(path, Words("tsuzuri のバックアップではありません。", "It is no backup of tsuzuri."))
    rows: dict[str, int] = {}
    table = ""
    try:
        for value in lines:
            if isinstance(value, dict):
                table = str(value["table"])
                rows[table] = 0
            else:
                rows[table] += 1
        return Summary(str(heading["schema"]), int(heading["at"]), str(heading["pepper"]), rows)
    except KeyError as error:
        raise _broken(path, Words("表の並びになっていません。", "It is not a list of tables.")) from error


def _write(db: Database, out: Any) -> Summary:
    digest, counts, at = hashlib.sha256(), {}, now_ms()

    def line(value: Any) -> None:
        data = (json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
        digest.update(data)
        out.write(data)

    with db.read() as connection:  # one snapshot
        schema = database.version(connection)
        pepper = db.secrets.fingerprint(PEPPER)
        line({"format": FORMAT, "schema": schema, "at": at, "pepper": pepper})
        for table in metadata.sorted_tables:
            line({"table": table.name, "columns": [column.name for column in table.columns]})
            query = select(table).order_by(*table.primary_key.columns).execution_options(yield_per=BATCH)
            counts[table.name] = 0
            with connection.execute(query) as result:
                for row in result:
                    line([base64.b64encode(value).decode() if isinstance(value, bytes) else value for value in row])
                    counts[table.name] += 1
    out.write(json.dumps({"sha256": digest.hexdigest()}).encode() + b"\n")
    return Summary(str(schema), at, pepper, counts)


def _lines(path: Path) -> Iterator[Any]:
    """The heading, the tables and the rows; the last line is compared, and that nothing follows it."""
    digest, last = hashlib.sha256(), None
    try:
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as reader:
            for data in io.BufferedReader(reader):
                if last is not None:
                    raise _broken(path, Words("終わりの後に続きがあります。", "Something follows its end."))
                value = json.loads(data)
                if isinstance(value, dict) and "sha256" in value:
                    last = value["sha256"]
                    continue
                digest.update(data)
                yield value
    except FileNotFoundError as error:
        raise MissingError(
            Words(f"バックアップ {path} を読もうとしました。", f"Reading the backup {path}."),
            found=Words("そのファイルはありません。", "It is not there."),
            todo=Words("パスを確かめてください。", "Check the path."),
        ) from error
    except (zstandard.ZstdError, ValueError, KeyError, OSError) as error:
        raise _broken(path, Words("読めないところがあります。", "A part of it cannot be read.")) from error
    if last != digest.hexdigest():
        raise _broken(path, Words("途中で切れているか、書き換えられています。", "It is cut off or was changed."))


def _check_empty(connection: Connection, path: Path) -> None:
    if database.version(connection) is None:
        return
    there = MetaData()
    there.reflect(connection)
    for table in there.tables.values():
        if table.name != "alembic_version" and connection.execute(select(func.count()).select_from(table)).scalar():
            raise ConfigError(
                Words(f"{path.name} を戻そうとしました。", f"Restoring {path.name}."),
                found=Words("戻す先のデータベースは空ではありません。", "The database to restore to is not empty."),
                todo=Words(
                    "--data-dir で新しい場所を指定してください。今あるものは上書きしません。",
                    "Name a new place with --data-dir. What is there is not overwritten.",
                ),
            )


def _check_secrets(db: Database, pepper: str, path: Path) -> None:
    """The rows are of use only with the secrets they were made with: said before anything is written."""
    if db.secrets.fingerprint(PEPPER) != pepper:
        place = db.secrets.directory
        raise _broken(
            path,
            Words(f"{place} の pepper は、このバックアップのものではありません。", f"The pepper in {place} is not the one of this backup."),
        )


def _insert(connection: Connection, path: Path) -> None:
    there = MetaData()
    there.reflect(connection)
    table: Table | None = None
    columns: list[str] = []
    waiting: list[dict[str, Any]] = []
    for value in _headless(path):
        if isinstance(value, dict) or len(waiting) == BATCH:
            if waiting and table is not None:
                connection.execute(insert(table), waiting)
            waiting = []
        if isinstance(value, dict):
            table, columns = there.tables[value["table"]], value["columns"]
            continue
        assert table is not None
        waiting.append({name: _cell(table, name, cell) for name, cell in zip(columns, value, strict=True)})
    if waiting and table is not None:
        connection.execute(insert(table), waiting)
    if connection.dialect.name == "postgresql":  # numbers go on after the highest
        connection.execute(
            text("SELECT setval(pg_get_serial_sequence('entries', 'id'), COALESCE((SELECT MAX(id) FROM entries), 0) + 1, false)")
        )


def _headless(path: Path) -> Iterator[Any]:
    lines = _lines(path)
    next(lines)
    yield from lines


def _cell(table: Table, name: str, value: Any) -> Any:
    return base64.b64decode(value) if value is not None and isinstance(table.c[name].type, LargeBinary) else value


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _broken(path: Path, found: Words) -> FormatError:
    return FormatError(
        Words(f"バックアップ {path.name} を確かめました。", f"Checking the backup {path.name}."),
        found=found,
        todo=Words(
            "何も変えていません。別のバックアップか、正しい秘密鍵を使ってください。",
            "Nothing was changed. Use another backup, or the right secrets.",
        ),
    )
