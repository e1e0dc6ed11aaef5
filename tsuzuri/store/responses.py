"""Answers that somebody asked to have kept, with what was asked: sealed, for a time, and for whoever asked only.

In: plain values of JSON. Out: the same, to their owner; for anybody else, and after their time, they are not there. Each stands alone and
names the one before it, so that what is erased is nowhere else: a conversation with an erased answer in it cannot be gone on with.
Erased, by hand or by time, means that neither the row nor the key that opens it is left in the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from tsuzuri.errors import ConfigError, InputError, Words
from tsuzuri.store import sealed
from tsuzuri.store.database import Database
from tsuzuri.store.tables import now_ms, responses

TABLE, COLUMN = "responses", "sealed"
DAY = 24 * 60 * 60 * 1000  # ms
MOST, MOST_BYTES = 10_000, 256 << 20  # of one owner
LONGEST, LONGEST_BYTES = 1024, 10 << 20  # answers of one conversation, and what they come to
BATCH = 500


def check_room(db: Database, owner: str, now: int | None = None) -> None:
    """Raises ConfigError where the owner has as many as there may be."""
    alive = responses.c.owner == owner, responses.c.expires_at > (now_ms() if now is None else now)
    with db.read() as connection:
        count, size = connection.execute(select(func.count(), func.coalesce(func.sum(responses.c.size), 0)).where(*alive)).one()
    size = int(size)  # a sum is no whole number to PostgreSQL
    if count >= MOST or size >= MOST_BYTES:
        raise ConfigError(
            Words("答えを保存しようとしました。", "Storing an answer."),
            found=Words(f"もう {count} 件（{size >> 20} MiB）あります。", f"There are {count} already ({size >> 20} MiB)."),
            todo=Words(
                f"{MOST} 件、{MOST_BYTES >> 20} MiB までです。要らないものを削除してください。",
                f"There may be {MOST} and {MOST_BYTES >> 20} MiB. Delete some.",
            ),
        )


def keep(db: Database, owner: str, id: str, value: Mapping[str, Any], *, days: int, now: int | None = None) -> None:
    """For so many days. `value["previous"]`: the id of the one before it, or None."""
    now = now_ms() if now is None else now
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    with db.write() as connection:
        kept = sealed.seal(db, connection, TABLE, COLUMN, id, data)
        row = {"id": id, "owner": owner, "created_at": now, "expires_at": now + days * DAY, "size": len(kept), "sealed": kept}
        connection.execute(insert(responses).values(**row))


def find(db: Database, owner: str, id: str, now: int | None = None) -> dict[str, Any] | None:
    """None where it is not there, is another's, or its time is over: nobody can tell these apart."""
    with db.read() as connection:
        found = _one(db, connection, owner, id, now_ms() if now is None else now)
    return None if found is None else found[0]


def conversation(db: Database, owner: str, id: str, now: int | None = None) -> list[dict[str, Any]] | None:
    """All that leads to it, the first one first; None where one of them is not there. Raises InputError where they are too many."""
    now = now_ms() if now is None else now
    found: list[dict[str, Any]] = []
    size, at = 0, id
    with db.read() as connection:  # one moment
        while True:
            each = _one(db, connection, owner, at, now)
            if each is None:
                return None
            found.append(each[0])
            size += each[1]
            if len(found) > LONGEST or size > LONGEST_BYTES:
                raise _too_long()
            if each[0]["previous"] is None:
                return found[::-1]
            at = each[0]["previous"]


def erase(db: Database, owner: str, id: str) -> bool:
    """Whether it was there. It is unreadable from now on; `sealed.wipe` afterwards leaves no byte of it."""
    with db.write() as connection:
        gone = connection.execute(delete(responses).where(responses.c.id == id, responses.c.owner == owner)).rowcount
        if gone:
            sealed.forget(connection, TABLE, id)
    return bool(gone)


def prune(db: Database, now: int | None = None) -> int:
    """Erases those whose time is over. Returns how many; `sealed.wipe` afterwards leaves no byte of them."""
    now, done = now_ms() if now is None else now, 0
    while True:
        with db.read() as connection:
            ids = connection.execute(select(responses.c.id).where(responses.c.expires_at <= now).limit(BATCH)).scalars().all()
        if not ids:
            return done
        with db.write() as connection:
            for id in ids:
                connection.execute(delete(responses).where(responses.c.id == id))
                sealed.forget(connection, TABLE, id)
        done += len(ids)


def _one(db: Database, connection: Connection, owner: str, id: str, now: int) -> tuple[dict[str, Any], int] | None:
    """The value, and how many bytes it takes."""
    query = select(responses.c.sealed).where(responses.c.id == id, responses.c.owner == owner, responses.c.expires_at > now)
    kept = connection.execute(query).scalar()
    if kept is None:
        return None
    data = sealed.unseal(db, connection, TABLE, COLUMN, id, bytes(kept))
    value: dict[str, Any] = json.loads(data)
    return value, len(data)


def _too_long() -> InputError:
    return InputError(
        Words("保存した会話の続きを読もうとしました。", "Going on with a stored conversation."),
        found=Words(
            f"答えが {LONGEST} 件か {LONGEST_BYTES >> 20} MiB を超えています。",
            f"It has more than {LONGEST} answers, or {LONGEST_BYTES >> 20} MiB.",
        ),
        todo=Words("新しい会話を始めてください。", "Begin a new one."),
    )
