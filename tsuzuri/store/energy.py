"""What models of our own drew in a month, by whoever asked: sums beside the ledger, measured and estimated apart.

In: millijoules of requests that have ended. Out: sums by owner (key:ID, user:ID, all). It is no money: what a call costs is settled by
its tokens (`prices.py`), for that can be said beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from tsuzuri.store.database import Database
from tsuzuri.store.ledger import month_of, owners
from tsuzuri.store.tables import energy, now_ms
from tsuzuri.store.users import Who


@dataclass(frozen=True, slots=True)
class Energy:
    """Millijoules. `measured` by the machine's counter, `estimated` from configured watts."""

    measured: int = 0
    estimated: int = 0


@dataclass(frozen=True, slots=True)
class Used:
    """Of one request. `at`: when it ended, in ms since 1970."""

    who: Who
    energy: Energy
    at: int


def add(db: Database, used: Sequence[Used]) -> None:
    """In one transaction."""
    sums: dict[tuple[str, str], Energy] = {}
    for one in used:
        for owner in owners(one.who):
            so_far = sums.get((owner, month_of(one.at)), Energy())
            added = Energy(so_far.measured + one.energy.measured, so_far.estimated + one.energy.estimated)
            sums[owner, month_of(one.at)] = added
    insert = postgresql_insert if db.dialect == "postgresql" else sqlite_insert
    with db.write() as connection:
        for (owner, month), both in sorted(sums.items()):  # always in one order: nobody waits in a circle
            row = {"owner": owner, "month": month, "measured": both.measured, "estimated": both.estimated}
            more = {"measured": energy.c.measured + both.measured, "estimated": energy.c.estimated + both.estimated}
            made = insert(energy).values(**row)
            connection.execute(made.on_conflict_do_update(index_elements=["owner", "month"], set_=more))


def listed(db: Database, month: str | None = None) -> dict[str, Energy]:
    """By owner; of this month unless another is named."""
    with db.read() as connection:
        rows = connection.execute(select(energy).where(energy.c.month == (month or month_of(now_ms()))))
        return {row.owner: Energy(row.measured, row.estimated) for row in rows}
