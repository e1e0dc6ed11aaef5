"""Turns: how many requests of an owner are under way and came in the last minute, counted where every server sees it.

In: an owner and its limits. Out: a turn, or which limit is in the way. What is counted is rows, so a minute is any sixty seconds and not the
one on the clock. Whoever takes a turn has the owner to himself meanwhile, so of many at once, in however many processes, exactly as many
pass as may. A turn is held by a lease: places of a server that died are free again when it is over. The clock is PostgreSQL's
own; on SQLite there is one machine. It needs no disk: a power cut may forget a minute, never a place for longer than its lease.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    and_,
    cast,
    delete,
    extract,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    true,
    update,
)

from tsuzuri.store.database import Database
from tsuzuri.store.tables import now_ms, turns

MINUTE = 60_000
LEASE_MS = 30_000
Way: TypeAlias = Literal["at once", "requests", "tokens"]
# The lock comes first and the clock after it: whoever waited for the lock must not count with the time at which the waiting began.
LOCKED = text(
    "SELECT CASE WHEN pg_advisory_xact_lock(hashtextextended(:owner, 7566181)) IS NOT NULL THEN "
    "CASE WHEN set_config('synchronous_commit', 'off', true) IS NOT NULL THEN "
    "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint) END END"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """`None`: no limit."""

    owner: str
    at_once: int
    requests: int | None = None  # a minute
    tokens: int | None = None  # a minute

    @property
    def a_minute(self) -> bool:
        return self.requests is not None or self.tokens is not None


@dataclass(frozen=True, slots=True)
class Turn:
    """`refused`: which limit is in the way; then nothing is taken. `..._left` after this one; `..._wait`: ms until the oldest that counts is a
    minute old."""

    id: str
    limits: Limits
    refused: Way | None
    requests_left: int
    requests_wait: int
    tokens_left: int
    tokens_wait: int


@dataclass(frozen=True, slots=True)
class Seen:
    """Of one owner at one moment."""

    under_way: int
    requests: int
    tokens: int
    first_request: int | None  # when the oldest that counts began
    first_tokens: int | None  # when the oldest whose tokens count ended

    def turn(self, limits: Limits, now: int) -> Turn:
        """The one place where it is decided, wherever it was counted."""
        requests = 0 if limits.requests is None else limits.requests - self.requests
        tokens = 0 if limits.tokens is None else limits.tokens - self.tokens
        refused: Way | None = None
        if self.under_way >= limits.at_once:
            refused = "at once"
        elif limits.requests is not None and requests <= 0:
            refused = "requests"
        elif limits.tokens is not None and tokens <= 0:
            refused = "tokens"
        left = max(0, requests - (refused is None))
        return Turn(
            id=f"turn_{secrets.token_hex(12)}",
            limits=limits,
            refused=refused,
            requests_left=left,
            requests_wait=0 if limits.requests is None else _wait(self.first_request, now) or MINUTE,  # this one is the oldest
            tokens_left=max(0, tokens),
            tokens_wait=0 if limits.tokens is None else _wait(self.first_tokens, now),
        )


def _wait(first: int | None, now: int) -> int:
    return 0 if first is None else max(0, first + MINUTE - now)


def take(db: Database, limits: Limits, *, lease_ms: int = LEASE_MS, now: int | None = None) -> Turn:
    """A turn, if `refused` does not say otherwise; `end` gives its place back."""
    with db.write() as connection:
        now = _alone(connection, limits.owner) if now is None else now
        made = _seen(connection, limits.owner, now).turn(limits, now)
        if made.refused is None:
            row = {"id": made.id, "owner": limits.owner, "began_at": now, "lease_until": now + lease_ms, "tokens": 0}
            connection.execute(insert(turns).values(**row))
    return made


def end(db: Database, turn: Turn, tokens: int, *, now: int | None = None) -> None:
    """Its place is free; what it came to counts for the minute that follows. Ending twice changes nothing."""
    with db.write() as connection:
        quick = func.set_config("synchronous_commit", "off", True).is_not(None) if connection.dialect.name == "postgresql" else true()
        this = (quick, turns.c.id == turn.id, turns.c.ended_at.is_(None))
        if turn.limits.a_minute:
            connection.execute(update(turns).where(*this).values(ended_at=_clock(connection) if now is None else now, tokens=tokens))
        else:
            connection.execute(delete(turns).where(*this))


def renew(db: Database, ids: Collection[str], *, lease_ms: int = LEASE_MS, now: int | None = None) -> None:
    """Those that are still under way; to be called well before the lease is over. Forgets what counts no more, whoever left
    it."""
    with db.write() as connection:
        now = int(connection.execute(select(_clock(connection))).scalar_one()) if now is None else now
        if ids:
            connection.execute(update(turns).where(turns.c.id.in_(ids), turns.c.ended_at.is_(None)).values(lease_until=now + lease_ms))
        connection.execute(delete(turns).where(_past(now)))


def under_way(db: Database, owner: str, *, now: int | None = None) -> int:
    """In all servers."""
    with db.read() as connection:
        return _seen(connection, owner, now_ms() if now is None else now).under_way


def _seen(connection: Connection, owner: str, now: int) -> Seen:
    open_ = and_(turns.c.ended_at.is_(None), turns.c.lease_until > now)
    began, ended = turns.c.began_at > now - MINUTE, and_(turns.c.ended_at > now - MINUTE, turns.c.tokens > 0)
    row = connection.execute(
        select(
            func.count().filter(open_),
            func.count().filter(began),
            func.coalesce(func.sum(turns.c.tokens).filter(ended), 0),
            func.min(turns.c.began_at).filter(began),
            func.min(turns.c.ended_at).filter(ended),
        ).where(turns.c.owner == owner)
    ).one()
    return Seen(row[0], row[1], int(row[2]), row[3], row[4])


def _past(now: int) -> ColumnElement[bool]:
    """Neither under way nor of the last minute."""
    over = or_(turns.c.ended_at <= now - MINUTE, and_(turns.c.ended_at.is_(None), turns.c.lease_until <= now))
    return and_(over, turns.c.began_at <= now - MINUTE)


def _alone(connection: Connection, owner: str) -> int:
    """Nobody else takes a turn of this owner until the transaction ends. Returns the time, ms since 1970."""
    if connection.dialect.name != "postgresql":
        return now_ms()  # on SQLite there is one who writes
    return int(connection.execute(LOCKED, {"owner": owner}).scalar_one())


def _clock(connection: Connection) -> ColumnElement[int]:
    """The time, ms since 1970, as whoever sees all servers knows it."""
    if connection.dialect.name != "postgresql":
        return literal(now_ms(), BigInteger)
    return cast(extract("epoch", func.clock_timestamp()) * 1000, BigInteger)
