"""What one tenant had read shortens no other's wait: neither what it is told nor how long the first token takes gives it away."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from math import exp, sqrt
from pathlib import Path
from typing import Any

import httpx2
import pytest
from served import Running

from tsuzuri.serve.models import from_directory
from tsuzuri.store import keys
from tsuzuri.store.database import Database

COUNT = 24
FALSE_ALARM = 1e-4  # how often two like samples may be told apart: that nothing is known, above, is exact


def apart(a: Sequence[float], b: Sequence[float]) -> float:
    """The probability of two samples of one distribution being as far apart as these (Kolmogorov and Smirnov, asymptotic)."""
    steps = sorted({*a, *b})
    far = max(abs(sum(x <= step for x in a) / len(a) - sum(x <= step for x in b) / len(b)) for step in steps)
    size = sqrt(len(a) * len(b) / (len(a) + len(b)))
    scaled = (size + 0.12 + 0.11 / size) * far
    if scaled < 0.2:  # the series needs many terms there, and comes to one
        return 1.0
    return min(1.0, max(0.0, 2 * sum((-1) ** (k - 1) * exp(-2 * k * k * scaled * scaled) for k in range(1, 101))))


def test_the_measure_tells_like_from_unlike() -> None:
    like = [float(i % 7) for i in range(COUNT)]
    assert apart(like, like) > 0.9
    assert apart(like, [each + 3 for each in like]) < 0.01


@pytest.fixture(scope="module")
def running(serving: Callable[..., Any], tiny: Path) -> Any:
    with serving(from_directory(tiny)) as found:
        yield found


def first(client: httpx2.Client, secret: str, text: str) -> tuple[float, int]:
    """Seconds to the first token, and how much of the prompt is said to have been known."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": text}], "max_tokens": 1, "stream": True}
    body["stream_options"] = {"include_usage": True}
    took, cached, begun = 0.0, 0, time.perf_counter()
    with client.stream("POST", "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {secret}"}) as response:
        for line in response.iter_lines():
            took = took or time.perf_counter() - begun
            if '"cached_tokens":' in line:
                cached = int(line.partition('"cached_tokens":')[2].split("}")[0])
    return took, cached


def test_a_prefix_that_another_tenant_had_read_is_as_new(running: Running, db: Database) -> None:
    secrets = [keys.create(db, f"tenant {name}", scopes=("chat",))[1] for name in "ab"]
    words = itertools.count()
    fresh = lambda: f"{next(words):04d}" + "料理の本を読みます。" * 10  # noqa: E731
    shared, own, new = [], [], []
    with running.client() as client:
        first(client, secrets[0], fresh())
        for _ in range(COUNT):
            text = fresh()
            first(client, secrets[0], text)
            own.append(first(client, secrets[0], text))
            shared.append(first(client, secrets[1], text))
            new.append(first(client, secrets[1], fresh()))
    assert all(known > 0 for _, known in own), "there is something to be found"
    assert [known for _, known in shared] == [known for _, known in new] == [0] * COUNT
    assert apart([took for took, _ in shared], [took for took, _ in new]) > FALSE_ALARM
