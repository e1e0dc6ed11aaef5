"""Two servers, real processes, on one PostgreSQL: a key, a budget and a limit are one, whichever of them is asked."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from postgresql import fresh
from served import Repeated, until

from tsuzuri.serve.models import Served
from tsuzuri.store import database, keys, ledger
from tsuzuri.store.database import Database
from tsuzuri.types import Done, Text, Usage

PRICES = "models: {quick: [{from: 2026-01-01, input: 0, output: 1000000}], slow: [{from: 2026-01-01, input: 0, output: 0}]}"


@contextmanager
def server(place: Path, *arguments: str, **environment: str) -> Iterator[str]:
    line = [sys.executable, "-m", "tsuzuri", "serve", "--port", "0", *arguments]
    given = {**os.environ, "TSUZURI_LANG": "en", **environment}
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=given, cwd=place) as found:
        assert found.stdout and found.stderr
        try:
            shown = "".join(iter(lambda: found.stdout.readline(), "Ctrl-C ends it.\n"))  # type: ignore[union-attr]
            url = re.search(r"Serving at (\S+)\.", shown)
            assert url, found.stderr.read()
            assert until(lambda: up(url[1]), 20)
            yield url[1]
        finally:
            found.terminate()
            assert found.wait(20) == 0
            assert found.stderr.read() == ""


def up(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health").status_code == 200
    except httpx2.HTTPError:
        return False


class Both:
    """One key at both servers in turn."""

    def __init__(self, urls: list[str]) -> None:
        self.clients = [httpx2.Client(base_url=url, timeout=30) for url in urls]
        self._next = itertools.cycle(self.clients)

    def ask(self, secret: str, model: str = "quick", client: httpx2.Client | None = None) -> httpx2.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "あ"}], "max_tokens": 2}
        headers = {"authorization": f"Bearer {secret}"}
        return (client or next(self._next)).post("/v1/chat/completions", json=body, headers=headers)

    def many(self, secret: str, count: int, model: str = "quick") -> Counter[int]:
        with ThreadPoolExecutor(count) as pool:
            return Counter(found.status_code for found in pool.map(lambda _: self.ask(secret, model), range(count)))


@pytest.fixture(scope="module")
def shared(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    place = tmp_path_factory.mktemp("two")
    yield fresh(cluster), place


@pytest.fixture(scope="module")
def pg(shared: tuple[str, Path]) -> Iterator[Database]:
    with database.open(shared[0], shared[1] / "secrets") as found:
        yield found


@pytest.fixture(scope="module")
def both(shared: tuple[str, Path], pg: Database, serving: Callable[..., Any]) -> Iterator[Both]:
    keys.create(pg, "there is one already")
    url, place = shared
    (place / "prices.yaml").write_text(PRICES, encoding="utf-8")
    upstream = [
        Served("quick", Repeated(Text("は"), Text("い"), Usage(1, 2), Done("stop"))),
        Served("slow", Repeated(1.5, Text("あ"), Done("stop"))),
    ]
    with serving(*upstream, at_once=1000) as far, ExitStack() as stack:
        remote = [part for name in ("quick", "slow") for part in ("--remote", f"{name}={far.url}/v1")]
        given = {"TSUZURI_DATABASE_URL": url, "TSUZURI_SECRETS_DIR": str(place / "secrets"), "TSUZURI_REMOTE_KEY": far.key}
        found = Both([stack.enter_context(server(place, *remote, "--prices", "prices.yaml", **given)) for _ in range(2)])
        yield found
        for client in found.clients:
            client.close()


def test_of_many_at_both_exactly_as_many_as_a_minute_allows(both: Both, pg: Database) -> None:
    _, secret = keys.create(pg, "a minute", requests_per_minute=7, concurrent=64)
    assert both.many(secret, 30) == {200: 7, 429: 23}
    assert both.many(secret, 4) == {429: 4}


def test_of_many_at_both_exactly_as_many_as_may_be_under_way(both: Both, pg: Database) -> None:
    _, secret = keys.create(pg, "at once", concurrent=3)
    assert both.many(secret, 20, "slow") == {200: 3, 429: 17}
    assert both.many(secret, 3, "slow") == {200: 3}, "the places are given back"


def test_tokens_used_at_one_count_at_the_other(both: Both, pg: Database) -> None:
    _, secret = keys.create(pg, "tokens", tokens_per_minute=3)
    one, other = both.clients
    found = both.ask(secret, client=one)
    assert (found.status_code, found.headers["x-ratelimit-remaining-tokens"]) == (200, "3")
    time.sleep(0.2)
    found = both.ask(secret, client=other)
    assert (found.status_code, found.json()["error"]["code"]) == (429, "rate_limit_exceeded")


def test_a_budget_for_exactly_so_many_is_one_budget(both: Both, pg: Database) -> None:
    key, secret = keys.create(pg, "budget", concurrent=64)
    ledger.set_limit(pg, f"key:{key.id}", 5 * 2 * ledger.MICRO)
    assert both.many(secret, 20) == {200: 5, 429: 15}
    found = ledger.balance(pg, f"key:{key.id}")
    assert (found.spent, found.held) == (5 * 2 * ledger.MICRO, 0)


def test_one_after_the_other_is_never_two_at_once(both: Both, pg: Database) -> None:
    """A client that had its answer may come again at once: that its place is given back only now is not its fault."""
    _, secret = keys.create(pg, "one", concurrent=1)
    assert {both.ask(secret, client=both.clients[0]).status_code for _ in range(25)} == {200}


def test_a_key_revoked_anywhere_opens_nothing_anywhere(both: Both, pg: Database) -> None:
    key, secret = keys.create(pg, "gone")
    assert [both.ask(secret).status_code for _ in range(2)] == [200, 200]
    keys.revoke(pg, key.id)
    assert [both.ask(secret).status_code for _ in range(2)] == [401, 401]
