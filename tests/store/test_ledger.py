"""Budgets: no overspend, whatever comes at once; nothing lost, whatever dies. On both databases."""

from __future__ import annotations

import multiprocessing
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update

from tsuzuri.errors import ConfigError
from tsuzuri.store import database, keys, ledger, users
from tsuzuri.store.database import Database
from tsuzuri.store.keys import Key
from tsuzuri.store.ledger import ALL, Refusal, Reservation
from tsuzuri.store.tables import balances, entries, reservations

NOW = 1_700_000_000_000
MONTH = ledger.month_of(NOW)


def new_key(db: Database, **fields: object) -> Key:
    return keys.create(db, "鍵", **fields)[0]


def reserved(db: Database, key: Key, request: str, most: int, **more: int) -> Reservation:
    found = ledger.reserve(db, key, request, most, **{"now": NOW, **more})
    assert isinstance(found, Reservation)
    return found


def state(db: Database, owner: str) -> tuple[int, int]:
    found = ledger.balance(db, owner, MONTH)
    return found.held, found.spent


def test_what_is_reserved_is_held_and_what_is_settled_is_spent_and_the_rest_is_free(db: Database) -> None:
    key = new_key(db)
    ledger.set_limit(db, f"key:{key.id}", 1000)
    one = reserved(db, key, "r1", 600)
    assert state(db, f"key:{key.id}") == (600, 0)
    assert ledger.reserve(db, key, "r2", 401, now=NOW) == Refusal(f"key:{key.id}", 1000, 400)
    two = reserved(db, key, "r3", 400)
    ledger.settle(db, one, 50, now=NOW)
    assert state(db, f"key:{key.id}") == (400, 50)
    ledger.release(db, two, now=NOW)
    assert state(db, f"key:{key.id}") == (0, 50) == state(db, ALL)
    assert isinstance(reserved(db, key, "r4", 950), Reservation)
    assert ledger.verify(db) == []


def test_every_budget_counts_and_a_refusal_takes_from_none(db: Database) -> None:
    """Key, user, everybody. An administrator's calls count like all others."""
    chief = users.add(db, "長", "admin")
    first, second = new_key(db, user_id=chief.id, scopes=["admin", "chat"]), new_key(db, user_id=chief.id)
    for owner, amount in ((f"key:{first.id}", 500), (f"user:{chief.id}", 800), (ALL, 900)):
        ledger.set_limit(db, owner, amount)
    assert ledger.reserve(db, first, "a", 501, now=NOW) == Refusal(f"key:{first.id}", 500, 500)
    reserved(db, first, "b", 500)
    assert ledger.reserve(db, second, "c", 301, now=NOW) == Refusal(f"user:{chief.id}", 800, 300)
    assert state(db, f"key:{second.id}") == (0, 0) and state(db, ALL) == (500, 0)
    third = new_key(db)
    assert ledger.reserve(db, third, "d", 401, now=NOW) == Refusal(ALL, 900, 400)
    reserved(db, third, "e", 400)
    assert ledger.verify(db) == []


def test_of_a_thousand_calls_at_once_on_money_for_exactly_n_exactly_n_are_taken(db: Database) -> None:
    key, calls, affordable, price = new_key(db), 1000, 137, 10_007
    ledger.set_limit(db, f"key:{key.id}", affordable * price + price - 1)

    def call(number: int) -> str:
        found = ledger.reserve(db, key, f"r{number}", price, now=NOW)
        if isinstance(found, Refusal):
            return "refused"
        ledger.settle(db, found, price, now=NOW)
        return "taken"

    with ThreadPoolExecutor(calls) as pool:
        assert Counter(pool.map(call, range(calls))) == {"taken": affordable, "refused": calls - affordable}
    assert state(db, f"key:{key.id}") == (0, affordable * price)
    assert ledger.verify(db) == []


def call_in_a_process(address: str, secrets: Path, key: Key, start: int, count: int, price: int) -> int:
    with database.open(address if "://" in address else Path(address), secrets) as db:
        return sum(isinstance(ledger.reserve(db, key, f"r{number}", price, now=NOW), Reservation) for number in range(start, start + count))


def test_processes_share_a_budget_without_overspending(db: Database, address: str | Path, secret_place: Path) -> None:
    key = new_key(db, user_id=users.add(db, "人").id)
    ledger.set_limit(db, f"user:{key.user_id}", 100 * 37)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        taken = pool.starmap(call_in_a_process, [(str(address), secret_place, key, start, 40, 100) for start in (0, 40, 80)])
    assert sum(taken) == 37
    assert state(db, f"user:{key.user_id}") == (3700, 0)
    assert ledger.verify(db) == []


def test_after_kills_at_any_moment_the_ledger_is_what_was_delivered(db: Database, address: str | Path, secret_place: Path) -> None:
    """A real process, killed while it works. What was printed was delivered; a delivery is written down before it goes out, so the
    ledger may know of the one that was about to go out at the moment of the kill, and of nothing else that did not."""
    new_key(db)
    chance, delivered, doubtful = random.Random(7), dict[str, int](), 0

    def heard(line: str) -> None:
        request, _, amount = line.partition(" ")
        delivered[request] = int(amount)

    for seed in range(4):
        line = [sys.executable, str(Path(__file__).with_name("ledger_child.py")), str(address), str(secret_place), str(seed)]
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready 0\n"
            for out in islice(process.stdout, chance.randrange(5, 25)):
                heard(out)
            time.sleep(chance.uniform(0, 0.01))
            process.send_signal(signal.SIGKILL)
            for out in process.stdout:
                heard(out)
        assert process.returncode == -signal.SIGKILL
        ledger.recover(db, now=ledger.now_ms() + 10)
        with db.read() as connection:
            rows = {
                row.request_id: row
                for row in connection.execute(select(reservations).where(reservations.c.request_id.startswith(f"{seed}-")))
            }
        assert {row.state for row in rows.values()} <= {"settled"}
        last = max(rows, key=lambda request: int(request.partition("-")[2]), default=None)
        for request, row in rows.items():
            if row.delivered != delivered.get(request, 0):
                assert request == last, "only the call under way can differ"
                assert 0 < row.delivered - delivered.get(request, 0) < 250, "and by one delivery"
                delivered[request] = row.delivered
                doubtful += 1
    assert len(delivered) >= 8
    assert doubtful <= 4
    assert ledger.balance(db, ALL).held == 0
    assert ledger.balance(db, ALL).spent == sum(delivered.values())
    assert ledger.verify(db) == []


def test_a_lease_that_is_over_is_settled_for_what_was_delivered(db: Database) -> None:
    key = new_key(db)
    one, two, three = (reserved(db, key, f"r{n}", 100, lease_ms=1000) for n in range(3))
    ledger.delivering(db, two, 30, lease_ms=1000, now=NOW)
    ledger.delivering(db, three, 40, lease_ms=5000, now=NOW)
    assert ledger.recover(db, now=NOW + 999) == 0
    assert ledger.recover(db, now=NOW + 1000) == 2
    assert state(db, ALL) == (100, 30)
    with pytest.raises(ValueError, match="not held"):
        ledger.delivering(db, two, 31, now=NOW)
    with pytest.raises(ValueError, match="another amount"):
        ledger.settle(db, one, 5, now=NOW)
    assert ledger.recover(db, now=NOW + 5000) == 1
    assert state(db, ALL) == (0, 70)
    assert ledger.verify(db) == []


def test_settling_twice_charges_once(db: Database) -> None:
    held = reserved(db, new_key(db), "r", 100)
    for _ in range(2):
        ledger.settle(db, held, 60, now=NOW)
    ledger.release(db, held, now=NOW)
    assert state(db, ALL) == (0, 60)
    with pytest.raises(ValueError, match="another amount"):
        ledger.settle(db, held, 61, now=NOW)


def test_many_who_settle_the_same_charge_once(db: Database) -> None:
    held = reserved(db, new_key(db), "r", 100)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: ledger.settle(db, held, 60, now=NOW), range(16)))
    assert state(db, ALL) == (0, 60)
    assert ledger.verify(db) == []


def test_more_than_was_reserved_is_never_delivered_nor_settled(db: Database) -> None:
    held = reserved(db, new_key(db), "r", 100)
    for wrong in (101, -1):
        with pytest.raises(ValueError, match="reserved"):
            ledger.settle(db, held, wrong, now=NOW)
    ledger.delivering(db, held, 80, now=NOW)
    for wrong in (79, 101):
        with pytest.raises(ValueError, match="reserved"):
            ledger.delivering(db, held, wrong, now=NOW)
    with pytest.raises(ValueError, match="less than was delivered"):
        ledger.settle(db, held, 79, now=NOW)
    ledger.release(db, held, now=NOW)
    assert state(db, ALL) == (0, 80), "what went out is charged"


def test_a_request_is_reserved_once(db: Database) -> None:
    key = new_key(db)
    reserved(db, key, "r", 100)
    with pytest.raises(ValueError, match="before"):
        ledger.reserve(db, key, "r", 100, now=NOW)
    assert state(db, ALL) == (100, 0)


def test_without_a_limit_all_is_counted_and_nothing_refused(db: Database) -> None:
    key = new_key(db)
    assert not ledger.budgeted(db, key)
    ledger.settle(db, reserved(db, key, "r", 1 << 52), 1 << 51, now=NOW)
    assert state(db, f"key:{key.id}") == (0, 1 << 51)
    ledger.set_limit(db, ALL, 0)
    assert ledger.budgeted(db, key)
    assert ledger.reserve(db, key, "s", 1, now=NOW) == Refusal(ALL, 0, 0)
    ledger.set_limit(db, ALL, None)
    assert reserved(db, key, "t", 1)
    for amount in (-1, ledger.LARGEST):
        with pytest.raises(ConfigError, match="予算"):
            ledger.set_limit(db, ALL, amount)
        with pytest.raises(ValueError, match="may cost"):
            ledger.reserve(db, key, "u", amount, now=NOW)


def test_a_limit_below_what_is_spent_refuses_until_the_month_is_over(db: Database) -> None:
    key = new_key(db)
    ledger.settle(db, reserved(db, key, "r", 100), 100, now=NOW)
    ledger.set_limit(db, ALL, 40)
    assert ledger.reserve(db, key, "s", 1, now=NOW) == Refusal(ALL, 40, 0)
    assert ledger.reserve(db, key, "free", 0, now=NOW) == Refusal(ALL, 40, 0)
    next_month = NOW + 31 * 86_400_000
    assert isinstance(ledger.reserve(db, key, "t", 40, now=next_month), Reservation)
    assert [(found.month, found.held) for found in ledger.listed(db, ledger.month_of(next_month)) if found.owner == ALL] == [
        ("2023-12", 40)
    ]


def test_a_month_begins_at_midnight_in_japan() -> None:
    midnight = 1_701_356_400_000  # 2023-12-01T00:00+09:00
    assert (ledger.month_of(midnight - 1), ledger.month_of(midnight)) == ("2023-11", "2023-12")


def test_a_call_that_crosses_a_month_is_charged_to_the_one_it_began_in(db: Database) -> None:
    held = reserved(db, new_key(db), "r", 100)
    ledger.settle(db, held, 70, now=NOW + 31 * 86_400_000)
    assert state(db, ALL) == (0, 70)


@pytest.mark.parametrize("wrong", ["amount", "missing", "balance", "held"])
def test_verifying_finds_what_was_changed_behind_its_back(db: Database, wrong: str) -> None:
    key = new_key(db)
    ledger.settle(db, reserved(db, key, "r", 100), 70, now=NOW)
    held = reserved(db, key, "s", 50)
    assert ledger.verify(db) == []
    with db.write() as connection:
        match wrong:
            case "amount":
                connection.execute(update(entries).where(entries.c.account == "spent").values(amount=1))
            case "missing":
                connection.execute(delete(entries).where(entries.c.reservation_id == held.id, entries.c.account == "free"))
            case "balance":
                connection.execute(update(balances).where(balances.c.owner == ALL).values(spent=1))
            case "held":
                connection.execute(update(reservations).where(reservations.c.id == held.id).values(state="settled"))
    assert ledger.verify(db)
