"""Money and memory: no budget is overspent however many ask at once, a cut answer is charged to the token, and all is written down."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from served import Repeated, Running, request, until
from sqlalchemy import select

from tsuzuri.serve.books import Books
from tsuzuri.serve.models import Served, from_directory
from tsuzuri.store import audit, keys, ledger, users
from tsuzuri.store.database import Database
from tsuzuri.store.tables import reservations
from tsuzuri.types import Done, Text, Usage

ASKED = {"messages": [{"role": "user", "content": "ひみつの話"}], "max_tokens": 2}


def cost(model: str, *, input: int, output: int, cached: int = 0, at: int) -> int | None:
    """A micro-yen a token that comes out."""
    return None if model == "unpriced" else output


@pytest.fixture
def running(serving: Callable[..., Any]) -> Iterator[Running]:
    models = [
        Served("priced", Repeated(0.05, Text("は"), Text("い"), Usage(3, 2), Done("stop"))),
        Served("long", Repeated(*[part for _ in range(500) for part in (0.02, Text("あ"))], Usage(3, 500), Done("stop"))),
        Served("unpriced", Repeated(text="は")),
    ]
    with serving(*models, cost=cost) as found:
        yield found


def delivered(db: Database, request_id: str) -> int:
    with db.read() as connection:
        return int(connection.execute(select(reservations.c.delivered).where(reservations.c.request_id == request_id)).scalar_one())


def reserved_for(db: Database, key_id: str) -> bool:
    with db.read() as connection:
        return connection.execute(select(reservations.c.id).where(reservations.c.owners.contains(f"key:{key_id}"))).first() is not None


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def test_of_many_at_once_the_budget_decides(running: Running, make_key: Callable[..., Any], db: Database) -> None:
    key, secret = make_key("chat", concurrent=64)
    ledger.set_limit(db, f"key:{key.id}", 10)
    with running.client() as client, ThreadPoolExecutor(20) as pool:
        ask = lambda _: client.post("/v1/chat/completions", json={**ASKED, "model": "priced"}, headers=bearer(secret))  # noqa: E731
        found = list(pool.map(ask, range(20)))
    assert sorted(one.status_code for one in found) == [200] * 5 + [429] * 15
    refused = next(one for one in found if one.status_code == 429)
    assert refused.json()["error"]["code"] == "insufficient_quota" and refused.headers["x-should-retry"] == "false"
    assert re.search(r"このキーの.*最大 0\.00000\d 円.*残りは 0(\.00000\d)? 円", refused.json()["error"]["message"])
    now = ledger.balance(db, f"key:{key.id}")
    assert (now.spent, now.held) == (10, 0)
    assert ledger.verify(db) == []


def test_what_everybody_together_has_left_is_told_to_nobody(running: Running, make_key: Callable[..., Any], db: Database) -> None:
    _, secret = make_key("chat")
    ledger.set_limit(db, ledger.ALL, 0)
    try:
        with running.client() as client:
            found = client.post("/v1/chat/completions", json={**ASKED, "model": "priced"}, headers=bearer(secret))
    finally:
        ledger.set_limit(db, ledger.ALL, None)
    said = found.json()["error"]["message"]
    assert found.status_code == 429 and "全体" in said and "円" not in said


def test_an_answer_that_nobody_waits_for_is_charged_as_far_as_it_came(running: Running, make_key: Callable[..., Any], db: Database) -> None:
    key, secret = make_key("chat")
    chat = running.service.pool.get("long").chat
    running.key = secret
    with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2])), timeout=10) as connection:
        connection.sendall(request(running, {**ASKED, "model": "long", "max_tokens": 500, "stream": True}))
        assert until(lambda: chat.passed >= 4)
    assert until(lambda: running.service.access.under_way == 0)
    now = ledger.balance(db, f"key:{key.id}")
    assert now.held == 0 and now.spent in (chat.passed, chat.passed - 1), "one may have been on its way"


def test_what_a_process_that_died_had_set_aside_is_settled_at_the_next_start(
    serving: Callable[..., Any], make_key: Callable[..., Any], db: Database
) -> None:
    key, _ = make_key("chat")
    ledger.set_limit(db, f"key:{key.id}", 1000)
    held = ledger.reserve(db, key, "req_dead", 600, lease_ms=1)
    assert isinstance(held, ledger.Reservation)
    ledger.delivering(db, held, 200, lease_ms=1)
    with serving(Served("script", Repeated(Text("あ"), Usage(1, 1), Done("stop"))), cost=cost):
        assert until(lambda: ledger.balance(db, f"key:{key.id}").spent == 200)
    assert ledger.balance(db, f"key:{key.id}").held == 0


def test_an_administrator_has_a_budget_like_anybody_else(running: Running, db: Database) -> None:
    user = users.add(db, f"管理者{secrets.token_hex(4)}", "admin")
    _, secret = keys.create(db, "鍵", scopes=keys.SCOPES, user_id=user.id)
    ledger.set_limit(db, f"user:{user.id}", 0)
    body = {**ASKED, "model": "priced", "max_tokens": 2}
    with running.client() as client:
        found = client.post("/v1/chat/completions", json=body, headers=bearer(secret))
        assert (found.status_code, found.json()["error"]["code"]) == (429, "insufficient_quota")
        ledger.set_limit(db, f"user:{user.id}", 10**9)
        assert client.post("/v1/chat/completions", json=body, headers=bearer(secret)).status_code == 200
    assert until(lambda: ledger.balance(db, f"user:{user.id}").spent > 0)


def test_every_piece_is_written_down_before_it_goes_out(running: Running, make_key: Callable[..., Any], db: Database) -> None:
    """So a process may be killed at any moment."""
    _, secret = make_key("chat")
    body = {**ASKED, "model": "long", "max_tokens": 40, "stream": True}
    with running.client() as client, client.stream("POST", "/v1/chat/completions", json=body, headers=bearer(secret)) as response:
        heard = 0
        for line in response.iter_lines():
            if "あ" in line:
                heard += 1
                assert delivered(db, response.headers["x-request-id"]) >= heard
            if heard == 20:
                break


def test_what_fails_on_our_side_is_charged_as_far_as_it_went_out(
    serving: Callable[..., Any], make_key: Callable[..., Any], db: Database
) -> None:
    key, secret = make_key("chat")
    broken = Served("broken", Repeated(Text("あ"), Text("い"), 0.2, RuntimeError("a fault")))
    spent = lambda: ledger.balance(db, f"key:{key.id}").spent  # noqa: E731
    with serving(broken, cost=cost) as running, running.client() as client:
        ask = lambda **more: client.post("/v1/chat/completions", json={**ASKED, **more}, headers=bearer(secret))  # noqa: E731
        assert ask(model="broken").status_code == 500
        assert spent() == 0, "a whole answer that never went out"
        assert ask(model="broken", stream=True).text.endswith("data: [DONE]\n\n")
        assert spent() == 2, "two pieces went out"
    assert ledger.balance(db, f"key:{key.id}").held == 0


def test_what_a_stopped_server_did_not_give_out_is_not_charged(
    serving: Callable[..., Any], make_key: Callable[..., Any], db: Database
) -> None:
    key, secret = make_key("chat")
    chat = Repeated(*[part for _ in range(500) for part in (0.02, Text("あ"))], Usage(3, 500), Done("stop"))
    with serving(Served("long", chat), cost=cost, grace=0.3) as running, running.client() as client, ThreadPoolExecutor(2) as pool:
        body = {**ASKED, "model": "long", "max_tokens": 500}
        whole = pool.submit(client.post, "/v1/chat/completions", json=body, headers=bearer(secret))
        assert until(lambda: chat.passed >= 3)
        running.stop()
        assert whole.result().status_code == 503
    now = ledger.balance(db, f"key:{key.id}")
    assert (now.spent, now.held) == (0, 0)


def test_nothing_stays_set_aside_for_who_goes_away_at_the_very_beginning(
    running: Running, make_key: Callable[..., Any], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tsuzuri.serve import books

    reserve, begun, gone = books.ledger.reserve, threading.Event(), threading.Event()

    def slow(*how: Any) -> Any:
        begun.set()
        assert gone.wait(60)
        return reserve(*how)

    key, running.key = make_key("chat")
    monkeypatch.setattr(books.ledger, "reserve", slow)
    with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2])), timeout=60) as connection:
        connection.sendall(request(running, {**ASKED, "model": "long", "max_tokens": 100}))
        assert begun.wait(60)
        assert running.service.access.under_way == 1
    assert until(lambda: running.service.access.under_way == 0, 60), "the server has heard that nobody listens"
    gone.set()
    assert until(lambda: reserved_for(db, key.id), 60), "it is set aside all the same"
    assert until(lambda: ledger.balance(db, f"key:{key.id}").held == 0, 60), "and given back"
    assert ledger.balance(db, f"key:{key.id}").spent == 0


def test_what_it_costs_is_told_before(serving: Callable[..., Any], tiny: Path, make_key: Callable[..., Any], db: Database) -> None:
    """The price of each model without asking it anything, what reading costs with a count, and the most that an answer can cost."""
    prices = lambda model, *, input, output, cached=0, at: {  # noqa: E731
        "paid": input - cached + output * 3, "tiny": -(-input // 2) + output
    }.get(model)  # fmt: skip
    models = [
        Served("paid", Repeated(Text("は"), Usage(3, 1), Done("stop"))),
        Served("unpriced", Repeated(text="は")),
        from_directory(tiny),
    ]
    with serving(*models, cost=prices) as running, running.client() as client:
        listed = {model["id"]: model["pricing"] for model in client.get("/v1/models").json()["data"]}
        paid = {"currency": "JPY", "per_tokens": "1000000", "input": "1", "cached": "0", "output": "3"}
        assert listed == {"paid": paid, "unpriced": None, "tiny": {**paid, "input": "0.5", "cached": "0.5", "output": "1"}}
        assert client.get("/v1/models/paid").json()["pricing"] == paid
        counted = client.post("/v1/messages/count_tokens", json={"model": "tiny", "messages": ASKED["messages"]})
        assert counted.headers["x-tsuzuri-input-yen"] == f"{Decimal(-(-counted.json()['input_tokens'] // 2)) / 1_000_000:f}"
        said = client.post("/v1/chat/completions", json={**ASKED, "model": "tiny", "max_tokens": 3})
        assert said.headers["x-tsuzuri-most-yen"] == f"{Decimal(-(-said.json()['usage']['prompt_tokens'] // 2) + 3) / 1_000_000:f}"
        for stream in (False, True):
            said = client.post("/v1/chat/completions", json={**ASKED, "model": "paid", "stream": stream})
            assert Decimal(said.headers["x-tsuzuri-most-yen"]) >= Decimal(6) / 1_000_000
        assert "x-tsuzuri-most-yen" not in client.post("/v1/chat/completions", json={**ASKED, "model": "unpriced"}).headers


def test_without_a_price_or_a_bound_a_budget_buys_nothing(running: Running, make_key: Callable[..., Any], db: Database) -> None:
    key, secret = make_key("chat")
    with running.client() as client:
        ask = lambda **more: client.post("/v1/chat/completions", json={**ASKED, **more}, headers=bearer(secret))  # noqa: E731
        assert ask(model="unpriced").status_code == 200, "no budget, no question"
        ledger.set_limit(db, f"key:{key.id}", 1000)
        found = ask(model="unpriced")
        assert (found.status_code, found.json()["error"]["code"]) == (403, "price_unknown")
        found = ask(model="priced", max_tokens=None)
        assert (found.status_code, found.json()["error"]["param"]) == (400, "max_tokens")
        assert ask(model="priced").status_code == 200


def test_a_model_is_charged_by_its_own_name_else_by_the_one_it_has_for_all(
    serving: Callable[..., Any], make_key: Callable[..., Any], db: Database
) -> None:
    def table(model: str, *, input: int, output: int, cached: int = 0, at: int) -> int | None:
        return {"own": 1, "provider/m": 7}.get(model, 0) * output or None

    script = Repeated(Text("は"), Text("い"), Usage(3, 2), Done("stop"))
    models = [Served("own", script, priced="provider/m"), Served("far", script, priced="provider/m"), Served("none", script, priced="p/x")]
    with serving(*models, cost=table) as running, running.client() as client:
        for model, spent in (("own", 2), ("far", 14)):
            key, secret = make_key("chat")
            ledger.set_limit(db, f"key:{key.id}", 1000)
            body = {**ASKED, "model": model}
            assert client.post("/v1/chat/completions", json=body, headers=bearer(secret)).status_code == 200
            assert ledger.balance(db, f"key:{key.id}").spent == spent
        found = client.post("/v1/chat/completions", json={**ASKED, "model": "none"}, headers=bearer(secret))
        assert found.json()["error"]["code"] == "price_unknown"


def test_every_request_with_a_key_is_written_down_and_nothing_that_was_said(
    running: Running, make_key: Callable[..., Any], db: Database
) -> None:
    before = max((record.seq for record in audit.records(db)), default=0)
    key, secret = make_key("chat")
    with running.client() as client:
        ask = lambda model, **more: client.post("/v1/chat/completions", json={**ASKED, "model": model, **more}, headers=bearer(secret))  # noqa: E731
        ask("priced", user="u1", metadata={"case": "7"})
        ask("priced", stream=True)
        ask("none")
        client.post("/v1/embeddings", json={}, headers=bearer(secret))
        client.get("/v1/models", headers=bearer(f"{secret[:-2]}xx"))
        client.get("/v1/models", headers=bearer("tsz_nothing"))
        client.get("/health")
    running.stop()
    found = [record.body for record in audit.records(db, before + 1) if record.kind == "request"]
    assert [(r["route"], r["status"], r["model"], r["completion_tokens"]) for r in found] == [
        ("chat_completions", 200, "priced", 2),
        ("chat_completions", 200, "priced", 2),
        ("chat_completions", 404, None, 0),
        ("embeddings", 403, None, 0),
        ("models", 401, None, 0),
    ]
    assert {r["key"] for r in found} == {key.id} and found[4]["refused"] == "wrong"
    assert found[0]["marks"] == {"user": "u1", "metadata.case": "7"} and found[0]["request"].startswith("req_")
    text = json.dumps(found, ensure_ascii=False)
    assert "ひみつ" not in text and secret not in text
    assert audit.verify(db).sound


def test_what_cannot_be_written_down_does_not_happen(running: Running, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from tsuzuri.serve import books

    def full(*_: object) -> int:
        raise OSError(28, "no space left")

    written = books.audit.append_many
    with running.client() as client:
        ask = lambda: client.post("/v1/chat/completions", json={**ASKED, "model": "priced"})  # noqa: E731
        monkeypatch.setattr(books.audit, "append_many", full)
        assert ask().status_code == 200
        assert until(lambda: running.service.books.broken)
        found = ask()
        assert (found.status_code, found.json()["error"]["code"]) == (503, "audit_unavailable")
        before = max(record.seq for record in audit.records(db))
        monkeypatch.setattr(books.audit, "append_many", written)
        assert ask().status_code == 200
        last = lambda: max(record.seq for record in audit.records(db))  # noqa: E731
        assert until(lambda: last() >= before + 2, 60), "what was kept waiting is there, too"


def test_records_are_written_once_whoever_writes_them(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several find at once that the audit could not be written, and try again."""
    written, lost = audit.append_many, threading.Event()

    def full(*given: Any) -> int:
        if lost.is_set():
            return written(*given)
        raise OSError(28, "no space left")

    async def all_of() -> None:
        books = Books(db)
        for number in range(20):
            books.record("counted", {"number": number})
        await books.flush()
        assert books.broken
        lost.set()
        await asyncio.gather(*(books.ready() for _ in range(3)))
        books.record("counted", {"number": 20})
        await books.flush()

    monkeypatch.setattr(audit, "append_many", full)
    before = max((record.seq for record in audit.records(db)), default=0)
    asyncio.run(all_of())
    assert [record.body["number"] for record in audit.records(db, before + 1)] == [*range(21)]


def test_whoever_leaves_while_records_are_written_leaves_none_twice(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    written, begun = audit.append_many, threading.Event()

    def slow(*given: Any) -> int:
        begun.set()
        time.sleep(0.3)
        return written(*given)

    async def all_of() -> None:
        books = Books(db)
        books._pending.append(("counted", {"number": 0}, None))
        leaving = asyncio.create_task(books.flush())
        await asyncio.to_thread(begun.wait)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await books.flush()

    before = max((record.seq for record in audit.records(db)), default=0)
    monkeypatch.setattr(audit, "append_many", slow)
    asyncio.run(all_of())
    assert [record.body["number"] for record in audit.records(db, before + 1)] == [0]


@pytest.mark.parametrize("signals", [1, 2])
def test_what_is_cut_off_at_the_end_is_written_down(
    signals: int, serving: Callable[..., Any], make_key: Callable[..., Any], db: Database
) -> None:
    """The server stops waiting in the middle of an answer; when it has ended, the record is there."""
    key, secret = make_key("chat")
    endless = Served("endless", Repeated(*[part for _ in range(5000) for part in (0.01, Text("あ"))], Usage(3, 5000), Done("stop")))
    with serving(endless, grace=0.2 if signals == 1 else 30) as running, running.client() as client:
        body = {**ASKED, "model": "endless", "max_tokens": 5000}
        asking = threading.Thread(target=lambda: client.post("/v1/chat/completions", json=body, headers=bearer(secret)))
        asking.start()
        assert until(lambda: running.service.pool.get("endless").chat.passed > 3)
        for _ in range(signals - 1):
            running.server.handle_exit(signal.SIGTERM, None)
        running.stop()
        asking.join()
    assert [one.body["model"] for one in audit.records(db) if one.kind == "request" and one.body.get("key") == key.id] == ["endless"]
