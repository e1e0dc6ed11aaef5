"""Pages: none is lost, none has two writers, and what is found again is what was there, whatever happens in whatever order."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsuzuri.engine.pages import Pages, following, root

SIZE = 4


def keys(ids: list[int], tenant: str = "") -> list[bytes]:
    found, before = [], root(tenant)
    for start in range(0, len(ids) - SIZE + 1, SIZE):
        before = following(before, ids[start : start + SIZE])
        found.append(before)
    return found


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**32))
def test_whatever_happens_no_page_is_lost_or_shared_by_two_writers(count: int, seed: int) -> None:
    """Texts of few ids begin, grow and end at random; beside `Pages`, a list says what each page really holds."""
    numbers, pages = random.Random(seed), Pages(count, SIZE)
    content: dict[int, tuple[int, ...]] = {}  # page -> all ids up to its end
    live: list[tuple[list[int], list[int]]] = []  # ids, pages
    for _ in range(120):
        action = numbers.random()
        if action < 0.4:
            ids = [numbers.randrange(2) for _ in range(numbers.randrange(1, 5 * SIZE))]
            found = pages.known(keys(ids))
            for number, page in enumerate(found):
                assert content[page] == tuple(ids[: (number + 1) * SIZE])
            pages.hold(found)
            more = pages.take(-(-len(ids) // SIZE) - len(found))
            if more is None:
                pages.release(found)
                continue
            for held in live:
                assert not set(more) & set(held[1])
            assert not set(more) & set(found)
            whole = keys(ids)
            for number, page in enumerate(more, len(found)):
                content[page] = tuple(ids[: (number + 1) * SIZE])
                if number < len(whole):
                    pages.remember(page, whole[number])
            live.append((ids, found + more))
        elif live:
            pages.release(live.pop(numbers.randrange(len(live)))[1])
        holders = Counter(page for _, held in live for page in held)
        assert all(pages.holders(page) == holders[page] for page in range(count))
        assert pages.free == count - len(holders)
    for _, held in live:
        pages.release(held)
    assert pages.free == count
    everything = pages.take(count)
    assert everything is not None
    assert sorted(everything) == list(range(count))
    assert pages.take(1) is None


def test_what_nobody_holds_is_found_until_its_room_is_needed() -> None:
    pages, ids = Pages(3, SIZE), [1, 2, 3, 4, 5, 6, 7, 8]
    held = pages.take(2)
    assert held is not None
    for page, key in zip(held, keys(ids), strict=True):
        pages.remember(page, key)
    pages.release(held)
    assert pages.known(keys(ids)) == held
    assert pages.take(2) is not None
    assert pages.known(keys(ids)) == held[:1]  # the end of a text is forgotten before its beginning


def test_tenants_do_not_find_each_others_pages() -> None:
    pages, ids = Pages(2, SIZE), [1, 2, 3, 4]
    held = pages.take(1)
    assert held is not None
    pages.remember(held[0], keys(ids, "甲")[0])
    assert pages.known(keys(ids, "甲")) == held
    assert pages.known(keys(ids, "乙")) == []


def test_the_same_page_behind_another_is_another() -> None:
    assert keys([1, 1, 1, 1, 2, 2, 2, 2])[1] != keys([3, 3, 3, 3, 2, 2, 2, 2])[1]
    assert len(set(keys([1] * 40))) == 10


def test_a_page_is_not_given_back_twice() -> None:
    pages = Pages(2, SIZE)
    held = pages.take(1)
    assert held is not None
    pages.release(held)
    with pytest.raises(AssertionError, match="once"):
        pages.release(held)
