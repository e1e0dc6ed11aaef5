"""Encrypted columns: AES-256-GCM, a key for each record, all of them wrapped by a master key that is not in the data.

In: bytes and where they are to stand (table, column, row). Out: bytes for that column. They open only there: moved to another row they do
not, nor with one bit changed, nor without the master key. Erasing a record deletes its data key; what was sealed with it is noise
from then on, in every copy that does not hold the key. It stores only data keys; the sealed bytes are the caller's to keep.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from tsuzuri.errors import BusyError, FormatError, MissingError, Words
from tsuzuri.store.database import Database
from tsuzuri.store.tables import data_keys, facts

KEY, NONCE = 32, 12  # bytes; 96 random bits of nonce under a key that seals a handful of values
VERSION = b"\x01"
FACT = "master"
BATCH = 500  # data keys wrapped anew in one transaction


def seal(db: Database, connection: Connection, table: str, column: str, row: str, value: bytes) -> bytes:
    """`value` for that one place. `connection`: of `db.write()`, in which the caller stores what is returned."""
    data_key = _data_key(db, connection, f"{table}/{row}")
    if data_key is None:
        data_key = _new_data_key(db, connection, f"{table}/{row}")
    return VERSION + _encrypt(data_key, value, f"{table}/{column}/{row}")


def unseal(db: Database, connection: Connection, table: str, column: str, row: str, sealed: bytes) -> bytes:
    """Raises MissingError where it has been erased, FormatError where it is not what was sealed there."""
    data_key = _data_key(db, connection, f"{table}/{row}")
    if data_key is None:
        raise MissingError(
            Words(f"{table} の暗号化された値を読もうとしました。", f"Reading a sealed value of {table}."),
            found=Words("消去されています。", "It has been erased."),
            todo=Words("消去されたものは戻りません。", "What has been erased does not come back."),
        )
    if sealed[:1] != VERSION:
        raise _not_it(table)
    try:
        return _decrypt(data_key, sealed[1:], f"{table}/{column}/{row}")
    except InvalidTag as error:
        raise _not_it(table) from error


def forget(connection: Connection, table: str, row: str) -> None:
    """Deletes the data key, as part of the caller's transaction; `wipe` afterwards leaves no byte of it."""
    connection.execute(delete(data_keys).where(data_keys.c.record == f"{table}/{row}"))


def wipe(db: Database) -> None:
    """SQLite: what was deleted is gone from the files, too: pages are overwritten as they are freed, and here the WAL is emptied.
    Raises BusyError where a reader still needs it. On PostgreSQL that is for VACUUM and the archive of its WAL: see the page."""
    if not db.checkpoint():
        raise BusyError(
            Words("消去した値の痕跡をファイルから消そうとしました。", "Wiping what was erased from the files."),
            found=Words("ほかの処理が、まだ古い状態を読んでいます。", "Something is still reading the state before."),
            todo=Words(
                "少し待って、もう一度実行してください。値はもう読めません。", "Wait and run it again. The value is unreadable already."
            ),
        )


def erase(db: Database, table: str, row: str) -> None:
    """What was sealed in that row can never be read again."""
    with db.write() as connection:
        forget(connection, table, row)
    wipe(db)


def rotate(db: Database) -> int:
    """A new master key; every data key is wrapped with it, calls going on meanwhile; the older master keys are taken away.
    Returns how many data keys. Interrupted, it is simply run again."""
    with db.write() as connection:
        _master(db, connection)
        name = db.secrets.new_master()
        connection.execute(update(facts).where(facts.c.name == FACT).values(value=name))  # waits for whoever seals with the old one
    done = 0
    while True:
        with db.write() as connection:
            rows = connection.execute(select(data_keys).where(data_keys.c.master != name).limit(BATCH).with_for_update()).all()
            for row in rows:
                wrapped = _encrypt(db.secrets.read(name), _unwrap(db, row.master, row.wrapped, row.record), _wrapping(row.record))
                connection.execute(update(data_keys).where(data_keys.c.record == row.record).values(wrapped=wrapped, master=name))
            done += len(rows)
            if not rows:
                break
    for old in db.secrets.masters():
        with db.read() as connection:
            used = connection.execute(select(func.count()).select_from(data_keys).where(data_keys.c.master == old)).scalar()
        if old != name and not used:
            db.secrets.forget(old)
    return done


def _data_key(db: Database, connection: Connection, record: str) -> bytes | None:
    row = connection.execute(select(data_keys).where(data_keys.c.record == record)).first()
    return None if row is None else _unwrap(db, row.master, row.wrapped, record)


def _new_data_key(db: Database, connection: Connection, record: str) -> bytes:
    data_key, name = os.urandom(KEY), _master(db, connection)
    wrapped = _encrypt(db.secrets.read(name), data_key, _wrapping(record))
    connection.execute(insert(data_keys).values(record=record, wrapped=wrapped, master=name))
    return data_key


def _master(db: Database, connection: Connection) -> str:
    """Name of the one in use, which nobody takes away before this transaction ends."""
    query = select(facts.c.value).where(facts.c.name == FACT).with_for_update(read=True)
    name = connection.execute(query).scalar()
    if name is None:
        either = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
        made = {"name": FACT, "value": db.secrets.new_master()}
        connection.execute(either(facts).values(**made).on_conflict_do_nothing())  # of many who seal first at once one decides
        name = connection.execute(query).scalar_one()
    return str(name)


def _unwrap(db: Database, master: str, wrapped: bytes, record: str) -> bytes:
    try:
        return _decrypt(db.secrets.read(master), bytes(wrapped), _wrapping(record))
    except InvalidTag as error:
        raise _not_it(record.partition("/")[0]) from error


def _wrapping(record: str) -> str:
    return f"data key/{record}"


def _encrypt(key: bytes, value: bytes, place: str) -> bytes:
    nonce = os.urandom(NONCE)
    return nonce + AESGCM(key).encrypt(nonce, value, place.encode())


def _decrypt(key: bytes, sealed: bytes, place: str) -> bytes:
    if len(sealed) < NONCE + 16:
        raise InvalidTag
    return AESGCM(key).decrypt(sealed[:NONCE], sealed[NONCE:], place.encode())


def _not_it(table: str) -> FormatError:
    return FormatError(
        Words(f"{table} の暗号化された値を読もうとしました。", f"Reading a sealed value of {table}."),
        found=Words(
            "値が書き換えられたか、別の行のものか、マスター鍵が違います。",
            "It was changed, or is another row's, or the master key is not the one.",
        ),
        todo=Words(
            "秘密鍵の場所を確かめ、違わなければバックアップから戻してください。",
            "Check the place of the secrets; if it is right, restore a backup.",
        ),
    )
