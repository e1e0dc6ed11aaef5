"""What is said is kept only where that was asked for, sealed on the disk, readable to whoever holds the secrets, and gone when it is old."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from served import Repeated, until

from tsuzuri.serve import sending
from tsuzuri.serve.models import Served
from tsuzuri.store import audit
from tsuzuri.store.database import Database
from tsuzuri.types import Done, Text, Usage

PLANTED = "社外秘の合併計画"
BODY = {"model": "script", "messages": [{"role": "user", "content": PLANTED}]}


def model() -> Served:
    return Served("script", Repeated(Text("秘密の"), Text("答え"), Usage(1, 2), Done("stop")))


def last(db: Database) -> int:
    return max((record.seq for record in audit.records(db)), default=0)


def on_the_disk(db: Database) -> bytes:
    place = db._lock.parent  # type: ignore[union-attr]
    return b"".join(file.read_bytes() for file in place.iterdir())


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_said_is_kept_sealed_where_that_was_asked_for(serving: Callable[..., Any], db: Database, stream: bool) -> None:
    before = last(db)
    with serving(model(), keep_content=True) as running:
        with running.client() as client:
            said = client.post("/v1/chat/completions", json={**BODY, "stream": stream}).text
            client.get("/v1/models")
            client.post("/v1/chat/completions", json={**BODY, "model": "none"})
            client.post("/api/session", json={"name": "だれか", "password": "打ち込んだ合言葉です"})
        assert until(lambda: last(db) >= before + 4)
    records = list(audit.records(db, before + 1))
    contents = {record.seq: audit.content(db, record.seq) for record in records}
    (kept,) = [content for content in contents.values() if content is not None]
    assert json.loads(kept) == {"request": {**BODY, "stream": stream}, "response": said, "cut": False}
    assert "秘密の" in said and ("[DONE]" in said) is stream
    data = on_the_disk(db)
    assert PLANTED.encode() not in data and "秘密の".encode() not in data and "合言葉".encode() not in data
    assert "model" in json.dumps([record.body for record in records]) and audit.verify(db).sound


def test_unless_it_was_asked_for_nothing_is_kept(serving: Callable[..., Any], db: Database) -> None:
    before = last(db)
    with serving(model()) as running, running.client() as client:
        client.post("/v1/chat/completions", json=BODY)
        assert until(lambda: last(db) > before)
    assert [audit.content(db, record.seq) for record in audit.records(db, before + 1)] == [None]


def test_what_is_more_than_is_kept_says_so(serving: Callable[..., Any], db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "KEEP", 40)
    before = last(db)
    with serving(model(), keep_content=True) as running, running.client() as client:
        said = client.post("/v1/chat/completions", json=BODY).text
        assert until(lambda: last(db) > before)
    kept = json.loads(audit.content(db, before + 1) or "")
    assert kept["cut"] is True and said.encode().startswith(kept["response"].encode("utf-8", "ignore")[:36])


def test_what_is_older_than_it_may_be_is_taken_away(serving: Callable[..., Any], db: Database) -> None:
    old = audit.append(db, "chat", {}, content=PLANTED)
    with serving(model(), keep_ms=10**12):
        time.sleep(0.3)
    assert audit.content(db, old) == PLANTED
    with serving(model(), keep_ms=1):
        assert until(lambda: audit.content(db, old) is None and next(audit.records(db)).seq > old, 10)
    report = audit.verify(db)
    assert report.sound and report.pruned >= old
