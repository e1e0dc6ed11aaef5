"""Every hostile request is answered as it deserves, none with a fault of ours, and a bystander does not notice."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from serve.hostile import TINY, Raw
from served import Running

from tsuzuri.serve.models import from_directory

LEAK = re.compile(r"0x[0-9a-f]{6,}|/home/|/tmp/|/usr/|Traceback|SELECT|site-packages|tsz_")
SANE = {"model": "tiny", "messages": [{"role": "user", "content": "あ"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def running(serving: Callable[..., Any], tiny: Path) -> Iterator[Running]:
    with serving(from_directory(tiny)) as found:
        yield found


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[httpx2.Client]:
    with running.client() as found:
        yield found


def test_the_corpus_has_a_hundred_and_more() -> None:
    assert len(TINY) >= 140


@pytest.mark.parametrize("number", range(len(TINY)), ids=lambda i: f"{i}-{TINY[i][0].replace(' ', '-')}")
def test_a_hostile_request_is_answered_as_it_deserves(number: int, client: httpx2.Client) -> None:
    _, sent, right = TINY[number]
    if isinstance(sent, Raw):
        headers = {"content-type": "application/json", **sent.headers}
        found = client.request(sent.method, sent.path, content=sent.body, headers=headers)
    else:
        data = sent if isinstance(sent, bytes) else json.dumps({**SANE, **sent}).encode()
        found = client.post("/v1/chat/completions", content=data, headers={"content-type": "application/json"})
    assert found.status_code in right, found.text[:300]
    assert not LEAK.search(found.text)
    assert found.headers["x-request-id"] or found.status_code == 400
    if found.status_code >= 400 and number % 8 == 0:
        assert client.post("/v1/chat/completions", json=SANE).status_code == 200, "a bystander"


def test_afterwards_all_is_as_it_was(client: httpx2.Client, running: Running) -> None:
    assert client.post("/v1/chat/completions", json=SANE).json()["usage"]["completion_tokens"] == 2
    assert running.service.access.under_way == 0
