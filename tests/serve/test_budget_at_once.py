"""Calls at once on money for a part of them, through real processes over HTTP; the benchmark of the same name has a thousand."""

from __future__ import annotations

import budget
import pytest
from postgresql import fresh


@pytest.mark.parametrize("servers", [1, 2])
def test_exactly_those_that_are_paid_for_are_taken(servers: int, request: pytest.FixtureRequest) -> None:
    """Two servers share a PostgreSQL."""
    address = fresh(request.getfixturevalue("cluster")) if servers == 2 else None
    found = budget.trial(address, calls=40, paid=13, servers=servers)
    assert {what: count for what, count in found["faults"].items() if count} == {}
    assert (found["ends"]["taken"], found["ends"]["refused"]) == (13, 27)
