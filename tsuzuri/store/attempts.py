"""Guesses at passwords, counted before each is looked at: so many at one name, so many from one address, in a quarter of an hour.

In: a name and an address. Out: how long to wait, or None. Counted is the same whether there is such a user or not, and by one statement, so that
a thousand at once come to no more than one after the other. Kept of names and addresses is an HMAC: people type passwords where the
name belongs. It knows no password.
"""

from __future__ import annotations

import hmac
import ipaddress

from sqlalchemy import Connection, case, delete, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from tsuzuri.store.database import Database
from tsuzuri.store.tables import attempts, now_ms

WINDOW_MS = 15 * 60_000
AT_A_NAME, FROM_AN_ADDRESS = 10, 50


def attempt(db: Database, name: str, address: str | None, now: int | None = None) -> int | None:
    """Counts a guess that is about to be made. Milliseconds until the next may be, where this one may not."""
    now = now_ms() if now is None else now
    with db.write() as connection:
        connection.execute(delete(attempts).where(attempts.c.since <= now - WINDOW_MS))
        waits = [
            _count(connection, subject, most, now)
            for subject, most in ((_name(db, name), AT_A_NAME), (_address(db, address), FROM_AN_ADDRESS))
        ]
    return max((wait for wait in waits if wait is not None), default=None)


def right(db: Database, name: str, address: str | None) -> None:
    """It was no guess: the name is free again, and the address has one less against it."""
    with db.write() as connection:
        connection.execute(delete(attempts).where(attempts.c.subject == _name(db, name)))
        fewer = update(attempts).where(attempts.c.subject == _address(db, address), attempts.c.count > 0)
        connection.execute(fewer.values(count=attempts.c.count - 1))


def forget(db: Database, connection: Connection, name: str) -> None:
    """Of somebody who is erased."""
    connection.execute(delete(attempts).where(attempts.c.subject == _name(db, name)))


def _count(connection: Connection, subject: str, most: int, now: int) -> int | None:
    either = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    fresh = attempts.c.since <= now - WINDOW_MS
    more = {"count": case((fresh, 1), else_=attempts.c.count + 1), "since": case((fresh, now), else_=attempts.c.since)}
    made = either(attempts).values(subject=subject, count=1, since=now)
    row = connection.execute(
        made.on_conflict_do_update(index_elements=["subject"], set_=more).returning(attempts.c.count, attempts.c.since)
    ).one()
    return None if row.count <= most else int(row.since) + WINDOW_MS - now  # type: ignore[operator]


def _name(db: Database, name: str) -> str:
    return f"name:{_hash(db, name)}"


def _address(db: Database, address: str | None) -> str:
    """Of IPv6 the network: one who has a single address there has 2^64."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return "address:none"
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False).network_address
    return f"address:{_hash(db, str(found))}"


def _hash(db: Database, value: str) -> str:
    return hmac.digest(db.secrets.derived("attempt"), value.encode("utf-8", "surrogatepass"), "sha256").hex()
