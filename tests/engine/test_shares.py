"""One bound for what is kept of all, and nobody loses what they use to somebody who asks for much."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsuzuri.engine.shares import Shares


def test_who_asks_for_much_pushes_out_their_own() -> None:
    kept: Shares[int, str] = Shares(10)
    for key in range(3):
        kept.put("quiet", key, "mine", 1)
    for key in range(100):
        kept.put("greedy", key, "theirs", 2)
    assert kept.keys("quiet") == [0, 1, 2]
    assert kept.keys("greedy") == [97, 98, 99]


def test_nobody_finds_what_is_anothers() -> None:
    kept: Shares[str, str] = Shares(10)
    kept.put("one", "form", "compiled", 1)
    assert kept.get("one", "form") == "compiled"
    assert kept.get("other", "form") is None


def test_where_all_hold_alike_it_is_the_tenant_that_was_away_longest() -> None:
    kept: Shares[str, int] = Shares(2)
    kept.put("a", "x", 1, 1)
    kept.put("b", "x", 2, 1)
    kept.get("a", "x")
    kept.put("c", "x", 3, 1)
    assert (kept.get("a", "x"), kept.get("b", "x"), kept.get("c", "x")) == (1, None, 3)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(1, 9)), max_size=40))
def test_there_is_never_more_than_has_room_and_who_holds_the_least_loses_nothing(asked: list[tuple[str, int, int]]) -> None:
    kept: Shares[int, int] = Shares(20)
    for tenant, key, size in asked:
        before = {name: {each: kept.get(name, each) for each in kept.keys(name)} for name in "abc"}
        kept.put(tenant, key, size, size)
        held = {name: sum(kept.get(name, each) or 0 for each in kept.keys(name)) for name in "abc"}
        assert sum(held.values()) <= 20
        assert kept.get(tenant, key) == size or held[tenant] == 0, "the newest of the tenant goes last"
        for name in "abc":
            lost = set(before[name]) - set(kept.keys(name))
            share = sum(value or 0 for value in before[name].values())
            assert not lost or name == tenant or share >= 20 / 3, "less than an equal share is nobody's to take"


def test_a_turn_is_one_at_a_time_of_each_and_nothing_is_left_of_it() -> None:
    kept: Shares[int, int] = Shares(1)
    with kept.turn("a") as first, kept.turn("b") as other, kept.turn("a", 0.01) as second:
        assert (first, other, second) == (True, True, False)
    assert not kept._turns
    order: list[int] = []

    def wait(number: int) -> None:
        with kept.turn("a"):
            order.append(number)

    with kept.turn("a"):
        threads = [threading.Thread(target=wait, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        assert order == []
    for thread in threads:
        thread.join()
    assert sorted(order) == [0, 1, 2, 3] and not kept._turns


def test_a_turn_that_ends_in_an_error_is_given_back() -> None:
    kept: Shares[int, int] = Shares(1)
    with pytest.raises(ValueError, match="x"), kept.turn("a"):
        raise ValueError("x")
    with kept.turn("a", 0.01) as mine:
        assert mine
