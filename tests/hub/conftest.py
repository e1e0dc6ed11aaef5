"""A hub of our own on this machine, and the way to it; no proxy and no token of the person who runs the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hub_server import Hub, serving

from tsuzuri.hub.wire import Patience, Wire

SOON = Patience(tries=4, first=0.01, most=0.02, obeyed=5)


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as found:
        yield found


@pytest.fixture
def wire(hub: Hub) -> Iterator[Wire]:
    with Wire(hub.address, None, SOON) as found:
        yield found
