"""Restarts and kills of real processes under load, a few of each; the benchmark of the same name does more of them."""

from __future__ import annotations

import signal

import pytest
import restarts
from postgresql import fresh


def faults(found: dict[str, object]) -> dict[str, int]:
    counts: dict[str, int] = found["faults"]  # type: ignore[assignment]
    return {what: count for what, count in counts.items() if count}


def test_when_servers_are_replaced_under_load_every_stream_ends_and_is_charged_as_it_was_heard() -> None:
    found = restarts.trial(None, signal.SIGTERM, times=2, clients=6)
    assert faults(found) == {}
    assert found["pieces_heard"] > 20 and any(end.startswith("stream: ") for end in found["ends"])


@pytest.mark.parametrize("servers", [1, 2])
def test_after_kills_the_ledger_is_what_was_delivered(servers: int, request: pytest.FixtureRequest) -> None:
    """Two servers share a PostgreSQL."""
    address = fresh(request.getfixturevalue("cluster")) if servers == 2 else None
    found = restarts.trial(address, signal.SIGKILL, times=2, servers=servers, clients=6)
    assert faults(found) == {}
    assert found["ends"].get("stream: cut", 0) > 0, "something was under way"
