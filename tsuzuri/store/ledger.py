"""Budgets: what a call may cost is reserved before it runs, and what it did cost is settled after.

In: amounts in whole micro-units of one currency (1,000,000 = 1 yen). Out: a `Reservation`, or a `Refusal` that names the budget in the way.
A call counts against the key, its user and everybody together (`all`); administrators like all others. One transaction decides: of a
thousand calls at once on money for exactly N, N are taken. `delivering` is written before the bytes go out, so when a process dies, what
its calls had delivered is charged once their lease is over, and nothing more. Every movement is a double entry; `verify` adds them up.
It knows no prices (`prices.py`) and no tokens.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from sqlalchemy import Connection, Row, and_, exc, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from tsuzuri.errors import ConfigError, Words
from tsuzuri.store import audit
from tsuzuri.store.audit import OPERATOR
from tsuzuri.store.database import Database
from tsuzuri.store.tables import balances, entries, limits, now_ms, reservations
from tsuzuri.store.users import Person, Who

MICRO = 1_000_000
LEASE_MS = 120_000
LARGEST = 1 << 53  # exact in JSON and in JavaScript, too: nine thousand million yen
JAPAN = timezone(timedelta(hours=9))  # a month begins at midnight in Japan
ALL = "all"


@dataclass(frozen=True, slots=True)
class Reservation:
    id: str
    request_id: str
    owners: tuple[str, ...]
    month: str
    most: int
    lease_until: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """`owner`: whose budget is in the way. `left`: what it still has, in micro-units; of that nothing has been taken."""

    owner: str
    limit: int
    left: int


@dataclass(frozen=True, slots=True)
class Balance:
    """Of one owner in one month; `limit` is None where there is none."""

    owner: str
    month: str
    limit: int | None
    held: int
    spent: int


def owners(who: Who) -> tuple[str, ...]:
    """Whom a call with this key, or of this person, is charged to, in the order in which their rows are locked."""
    key = [] if isinstance(who, Person) else [f"key:{who.id}"]
    return tuple(sorted([ALL, *key, *([f"user:{who.user_id}"] if who.user_id else [])]))


def month_of(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, JAPAN).strftime("%Y-%m")


# ── budgets


def set_limit(db: Database, owner: str, amount: int | None, *, by: str = OPERATOR, now: int | None = None) -> None:
    """What `owner` (key:ID, user:ID or all) may spend in a month; None takes the limit away. Holds from the next call on."""
    if amount is not None and not 0 <= amount < LARGEST:
        raise ConfigError(
            Words(f"{owner} の予算を決めようとしました。", f"Setting the budget of {owner}."),
            found=Words("金額が負か、大きすぎます。", "The amount is negative or too large."),
            todo=Words("0 以上で 90 億未満の金額にしてください。", "Give an amount from 0 to below nine thousand million."),
        )
    now = now_ms() if now is None else now
    with db.write() as connection:
        audit.append(db, "budget.set", {"by": by, "owner": owner, "amount": amount}, connection=connection, now=now)
        connection.execute(limits.delete().where(limits.c.owner == owner))
        if amount is not None:
            row = {"owner": owner, "amount": amount, "changed_at": now}
            connection.execute(insert(limits).values(**row))


def budgeted(db: Database, key: Who) -> bool:
    """Whether any limit applies: then a call without a known price is to be refused."""
    with db.read() as connection:
        return connection.execute(select(limits.c.owner).where(limits.c.owner.in_(owners(key)))).first() is not None


def balance(db: Database, owner: str, month: str | None = None) -> Balance:
    """Of this month unless another is named."""
    month = month or month_of(now_ms())
    with db.read() as connection:
        limit = connection.execute(select(limits.c.amount).where(limits.c.owner == owner)).scalar()
        row = connection.execute(select(balances).where(balances.c.owner == owner, balances.c.month == month)).first()
    return Balance(owner, month, limit, row.held if row else 0, row.spent if row else 0)


def listed(db: Database, month: str | None = None) -> list[Balance]:
    """Of everyone with a limit, or with something held or spent in the month."""
    month = month or month_of(now_ms())
    with db.read() as connection:
        amounts = {row.owner: row.amount for row in connection.execute(select(limits))}
        rows = {row.owner: row for row in connection.execute(select(balances).where(balances.c.month == month))}
    return [
        Balance(owner, month, amounts.get(owner), rows[owner].held if owner in rows else 0, rows[owner].spent if owner in rows else 0)
        for owner in sorted({*amounts, *rows})
    ]


# ── a call


def reserve(
    db: Database, key: Who, request_id: str, most: int, *, lease_ms: int = LEASE_MS, now: int | None = None
) -> Reservation | Refusal:
    """Sets `most` aside in every budget the call counts against, or in none of them.

    `request_id` is the call's own: one that has been reserved before is a ValueError, since two calls would be charged as one.
    """
    if not 0 <= most < LARGEST:
        raise ValueError("a call may cost from 0 to LARGEST")
    now = now_ms() if now is None else now
    who, month = owners(key), month_of(now)
    made = Reservation(f"res_{secrets.token_hex(12)}", request_id, who, month, most, now + lease_ms)
    try:
        with db.write() as connection:
            _reserve(connection, made, now)
    except _Refused as refused:
        return refused.refusal
    except exc.IntegrityError as error:
        raise ValueError("a request id that has been reserved before") from error
    return made


def delivering(db: Database, reservation: Reservation, so_far: int, *, lease_ms: int = LEASE_MS, now: int | None = None) -> None:
    """To be called before the bytes that bring the cost to `so_far` go out. Prolongs the lease.

    A ValueError where the reservation is over or `so_far` is more than was reserved: what is not covered must not be delivered.
    """
    if delivering_all(db, [(reservation, so_far)], lease_ms=lease_ms, now=now):
        raise ValueError("not held any more, or not more than was reserved and no less than before")


def delivering_all(
    db: Database, sent: Sequence[tuple[Reservation, int]], *, lease_ms: int = LEASE_MS, now: int | None = None
) -> frozenset[str]:
    """The same of several calls in one transaction. Returns the ids of the reservations that do not cover it."""
    now = now_ms() if now is None else now
    with db.write() as connection:
        return frozenset(
            reservation.id
            for reservation, so_far in sorted(sent, key=lambda one: one[0].id)  # always in one order: nobody waits in a circle
            if connection.execute(
                update(reservations)
                .where(
                    reservations.c.id == reservation.id,
                    reservations.c.state == "held",
                    reservations.c.delivered <= so_far,
                    reservations.c.most >= so_far,
                )
                .values(delivered=so_far, lease_until=now + lease_ms)
            ).rowcount
            != 1
        )


def settle(db: Database, reservation: Reservation, actual: int, now: int | None = None) -> None:
    """What it came to; the rest is free again. Settling twice changes nothing where the amount is the same, else a ValueError;
    so is more than was reserved, or less than has been delivered."""
    if not 0 <= actual <= reservation.most:
        raise ValueError("settled for more than was reserved")
    with db.write() as connection:
        row = _held(connection, reservation.id)
        if row is not None:
            if actual < row.delivered:
                raise ValueError("settled for less than was delivered")
            _settle(connection, row, actual, now_ms() if now is None else now)
            return
        before = connection.execute(select(reservations.c.delivered).where(reservations.c.id == reservation.id)).scalar()
        if before != actual:
            raise ValueError("settled before, for another amount")


def release(db: Database, reservation: Reservation, now: int | None = None) -> None:
    """Nothing was delivered, nothing is charged; where something was, that is."""
    with db.write() as connection:
        row = _held(connection, reservation.id)
        if row is not None:
            _settle(connection, row, row.delivered, now_ms() if now is None else now)


def recover(db: Database, now: int | None = None) -> int:
    """Settles what was left behind by processes that died, for what it had delivered: every reservation whose lease is over.
    Returns how many. Call it when a server starts, and now and then."""
    now = now_ms() if now is None else now
    over = select(reservations.c.id).where(reservations.c.state == "held", reservations.c.lease_until <= now)
    with db.read() as connection:
        left = connection.execute(over).scalars().all()
    settled = 0
    for identity in left:  # each in a transaction of its own: calls go on in between
        with db.write() as connection:
            row = _held(connection, identity)
            if row is not None and row.lease_until <= now:
                _settle(connection, row, row.delivered, now)
                settled += 1
    return settled


def verify(db: Database) -> list[str]:
    """Adds everything up again: what does not agree, one line each; an empty list when all does. Needs no standstill."""
    held = select(reservations.c.id, reservations.c.most).where(reservations.c.state == "held")
    with db.read() as connection:
        unbalanced = connection.execute(
            select(entries.c.reservation_id).group_by(entries.c.reservation_id, entries.c.owner).having(func.sum(entries.c.amount) != 0)
        ).scalars()
        wrong = [f"entries of {identity} do not add up to zero" for identity in unbalanced]
        sums: dict[tuple[str, str, str], int] = {
            (row.owner, row.month, row.account): int(row.total)
            for row in connection.execute(
                select(entries.c.owner, entries.c.month, entries.c.account, func.sum(entries.c.amount).label("total")).group_by(
                    entries.c.owner, entries.c.month, entries.c.account
                )
            )
        }
        kept = {(row.owner, row.month): row for row in connection.execute(select(balances))}
        for owner, month in sorted({*kept, *((owner, month) for owner, month, _ in sums)}):
            row = kept.get((owner, month))
            for account in ("held", "spent"):
                there, found = getattr(row, account, 0), sums.get((owner, month, account), 0)
                if there != found:
                    wrong.append(f"{account} of {owner} in {month} is kept as {there}, its entries come to {found}")
        in_entries: dict[str, int] = {
            row.reservation_id: int(row.total)
            for row in connection.execute(
                select(entries.c.reservation_id, func.sum(entries.c.amount).label("total"))
                .where(entries.c.account == "held", entries.c.owner == ALL)
                .group_by(entries.c.reservation_id)
                .having(func.sum(entries.c.amount) != 0)
            )
        }
        open_ones = {row.id: row.most for row in connection.execute(held) if row.most}
        wrong += [f"what {identity} holds does not agree with its entries" for identity in sorted(open_ones.keys() | in_entries)
                  if open_ones.get(identity) != in_entries.get(identity)]  # fmt: skip
    return wrong


# ── below


class _Refused(Exception):
    """Undoes the transaction: what had been set aside in other budgets is free again."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal


def _reserve(connection: Connection, made: Reservation, now: int) -> None:
    for owner in made.owners:
        _ensure(connection, owner, made.month)
        limit = select(limits.c.amount).where(limits.c.owner == owner).scalar_subquery()
        fits = or_(limit.is_(None), balances.c.held + balances.c.spent + made.most <= limit)
        here = and_(balances.c.owner == owner, balances.c.month == made.month)
        done = connection.execute(update(balances).where(here, fits).values(held=balances.c.held + made.most))
        if done.rowcount != 1:
            row = connection.execute(select(balances).where(here)).one()
            amount = int(connection.execute(select(limits.c.amount).where(limits.c.owner == owner)).scalar() or 0)
            raise _Refused(Refusal(owner, amount, max(0, amount - row.held - row.spent)))
    new = {
        "id": made.id, "request_id": made.request_id, "owners": json.dumps(made.owners), "month": made.month, "most": made.most,
        "delivered": 0, "state": "held", "created_at": now, "lease_until": made.lease_until,
    }  # fmt: skip
    connection.execute(insert(reservations).values(**new))
    _enter(connection, made.id, made.owners, made.month, {"free": -made.most, "held": made.most}, now)


def _ensure(connection: Connection, owner: str, month: str) -> None:
    """Its row for the month; of many who make it at once one does."""
    either = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    connection.execute(either(balances).values(owner=owner, month=month, held=0, spent=0).on_conflict_do_nothing())


def _held(connection: Connection, identity: str) -> Row[Any] | None:
    """The row, locked, if it is still held."""
    return connection.execute(
        select(reservations).where(reservations.c.id == identity, reservations.c.state == "held").with_for_update()
    ).first()


def _settle(connection: Connection, row: Row[Any], actual: int, now: int) -> None:
    who = json.loads(row.owners)
    for owner in who:
        here = and_(balances.c.owner == owner, balances.c.month == row.month)
        changed = {"held": balances.c.held - row.most, "spent": balances.c.spent + actual}
        connection.execute(update(balances).where(here).values(**changed))
    connection.execute(update(reservations).where(reservations.c.id == row.id).values(state="settled", delivered=actual))
    _enter(connection, row.id, who, row.month, {"held": -row.most, "spent": actual, "free": row.most - actual}, now)


def _enter(connection: Connection, identity: str, who: tuple[str, ...], month: str, amounts: dict[str, int], now: int) -> None:
    rows = [
        {"reservation_id": identity, "owner": owner, "month": month, "account": account, "amount": amount, "at": now}
        for owner in who
        for account, amount in amounts.items()
        if amount
    ]
    if rows:
        connection.execute(insert(entries), rows)
