"""Turns: of many at once exactly as many as may, in any sixty seconds; and both ways of counting them agree. On both databases."""

from __future__ import annotations

import asyncio
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tsuzuri.serve.turns import InProcess
from tsuzuri.store import turns
from tsuzuri.store.database import Database
from tsuzuri.store.turns import MINUTE, Limits, Turn

NOW = 1_700_000_000_000


def test_of_many_at_once_exactly_as_many_as_may(db: Database) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: turns.take(db, Limits("a", 5)), range(40)))
        taken = [turn for turn in found if turn.refused is None]
        assert len(taken) == 5 and {turn.refused for turn in found} == {None, "at once"}
        assert turns.take(db, Limits("b", 1)).refused is None, "another is not held up"
        list(pool.map(lambda turn: turns.end(db, turn, 0), taken))
        assert turns.under_way(db, "a") == 0
        found = list(pool.map(lambda _: turns.take(db, Limits("c", 100, requests=7)), range(40)))
    assert sorted(turn.requests_left for turn in found if turn.refused is None) == list(range(7))
    assert [turn.refused for turn in found].count("requests") == 33


def test_a_minute_is_any_sixty_seconds(db: Database) -> None:
    limits = Limits("a", 9, requests=2)
    ask = lambda at: turns.take(db, limits, now=NOW + at)  # noqa: E731
    assert [ask(at).refused for at in (0, 59_000, 59_999)] == [None, None, "requests"]
    assert ask(59_999).requests_wait == 1
    assert [ask(at).refused for at in (60_000, 60_001, 118_999, 119_000)] == [None, "requests", "requests", None]


def test_tokens_count_once_they_are_known_and_for_a_minute(db: Database) -> None:
    limits = Limits("a", 9, tokens=10)
    first = turns.take(db, limits, now=NOW)
    second = turns.take(db, limits, now=NOW + 1)
    assert (first.tokens_left, second.tokens_left) == (10, 10)
    turns.end(db, first, 9, now=NOW + 10)
    assert turns.take(db, limits, now=NOW + 11).tokens_left == 1
    turns.end(db, second, 3, now=NOW + 20)
    turns.end(db, second, 300, now=NOW + 21)
    refused = turns.take(db, limits, now=NOW + 22)
    assert (refused.refused, refused.tokens_left, refused.tokens_wait) == ("tokens", 0, MINUTE + 10 - 22)
    assert turns.take(db, limits, now=NOW + 10 + MINUTE).tokens_left == 7


def test_a_place_of_one_who_died_is_free_when_its_lease_is_over(db: Database) -> None:
    died, lives = (turns.take(db, Limits("a", 2), lease_ms=1000, now=NOW) for _ in range(2))
    turns.renew(db, [lives.id], lease_ms=1000, now=NOW + 900)
    assert turns.take(db, Limits("a", 2), now=NOW + 999).refused == "at once"
    assert turns.take(db, Limits("a", 2), now=NOW + 1000).refused is None
    assert turns.take(db, Limits("a", 2), now=NOW + 1001).refused == "at once"
    turns.end(db, died, 0, now=NOW + 2000)
    assert turns.under_way(db, "a", now=NOW + 1001) == 2


def test_what_counts_no_more_is_forgotten(db: Database) -> None:
    for number in range(20):
        turns.end(db, turns.take(db, Limits("a", 9, requests=100), now=NOW + number), 1, now=NOW + number)
        turns.take(db, Limits("b", 99), lease_ms=10, now=NOW)
    turns.renew(db, [], now=NOW + MINUTE + 19)
    with db.read() as connection:
        assert connection.execute(turns.select(turns.turns.c.id)).all() == []


class Clock:
    now = NOW

    def __call__(self) -> int:
        return self.now


@pytest.mark.parametrize("seed", range(4))
def test_counted_in_the_process_is_counted_in_the_database(db: Database, seed: int) -> None:
    """The twins take the same turns of the same requests, and say the same of what is left."""
    clock, draw = Clock(), random.Random(seed)
    here = InProcess(clock)
    kinds = [Limits("a", 3, requests=5), Limits("b", 2, tokens=20), Limits("c", 4), Limits("d", 2, requests=4, tokens=12)]
    open_: list[tuple[Turn, Turn]] = []
    said = lambda turn: (turn.refused, turn.requests_left, turn.requests_wait, turn.tokens_left, turn.tokens_wait)  # noqa: E731

    async def law() -> set[object]:
        seen: set[object] = set()
        for _ in range(120):
            clock.now += draw.choice((0, 1, 500, 5000, 20_000))
            if open_ and draw.random() < 0.45:
                one, other = open_.pop(draw.randrange(len(open_)))
                tokens = draw.choice((0, 1, 7))
                await here.end(one, tokens)
                turns.end(db, other, tokens, now=clock.now)
                continue
            limits = draw.choice(kinds)
            one, other = await here.take(limits), turns.take(db, limits, lease_ms=10**9, now=clock.now)
            assert said(one) == said(other)
            seen.add(one.refused)
            if one.refused is None:
                open_.append((one, other))
        return seen

    assert asyncio.run(law()) >= {None, "at once"}


def test_the_clock_is_read_after_the_wait_for_the_lock(db: Database) -> None:
    """Else one who waited would count with the time at which the waiting began, and two who began in this order could end in the other."""
    if db.dialect != "postgresql":
        pytest.skip("SQLite has one writer")
    with ThreadPoolExecutor(1) as pool, db.write() as connection:
        began = turns._alone(connection, "a")
        waiting = pool.submit(turns.take, db, Limits("a", 9, requests=1))
        time.sleep(0.3)
        connection.rollback()
        assert waiting.result().refused is None
        with db.read() as reading:
            assert reading.execute(turns.select(turns.turns.c.began_at)).scalar_one() - began >= 250
