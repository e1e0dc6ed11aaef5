"""People at the door: signing in and out, cookies, pages of other sites, guesses, the first administrator. Over real HTTP."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from argon2 import PasswordHasher
from served import Repeated, Running
from sqlalchemy import delete, update

from tsuzuri.serve import signing
from tsuzuri.serve.models import Served
from tsuzuri.store import attempts, audit, keys, tables, users
from tsuzuri.store.database import Database

GOOD = "朝の散歩と味噌汁と新聞紙"
OPEN: list[httpx2.Client] = []  # to be closed
COOKIE = re.compile(r"tsuzuri=(tszsess_[A-Za-z0-9_-]{43}); Path=/; Max-Age=43200; HttpOnly; SameSite=Strict")


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch, db: Database) -> Iterator[None]:
    """argon2id at its least, and nobody guessed before."""
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(users, "_hasher", lambda: cheap)
    users._nobody.cache_clear()
    forget(db)
    yield
    while OPEN:
        OPEN.pop().close()


def forget(db: Database) -> None:
    with db.write() as connection:
        connection.execute(delete(tables.attempts))


@pytest.fixture(scope="module")
def running(serving: Callable[..., Any]) -> Iterator[Running]:
    with serving(Served("script", Repeated(text="はい"))) as found:
        yield found


@pytest.fixture
def made(db: Database) -> Callable[..., users.User]:
    names = iter(f"人{number}" for number in range(1000))
    before = len(users.listed(db))
    return lambda role="member": users.add(db, f"{before}の{next(names)}", role, GOOD)


def client(running: Running) -> httpx2.Client:
    OPEN.append(httpx2.Client(base_url=running.url, timeout=30))
    return OPEN[-1]


@contextmanager
def signed_in(running: Running, name: str, password: str = GOOD) -> Iterator[httpx2.Client]:
    """A client that holds the cookie and sends the token along, as a page does."""
    with client(running) as found:
        answer = found.post("/api/session", json={"name": name, "password": password})
        assert answer.status_code == 200, answer.text
        found.headers["x-csrf-token"] = answer.json()["csrf_token"]
        yield found


# ── in and out


def test_a_person_signs_in_is_known_and_signs_out(running: Running, made: Callable[..., users.User]) -> None:
    user = made()
    with client(running) as page:
        assert page.get("/api/session").status_code == 401
        answer = page.post("/api/session", json={"name": user.name, "password": GOOD})
        assert COOKIE.fullmatch(answer.headers["set-cookie"])
        found = page.get("/api/session").json()
        assert found == answer.json() and found["user"]["id"] == user.id and set(found["user"]) == {
            "object", "id", "name", "role", "active", "created_at",
        }  # fmt: skip
        out = page.delete("/api/session", headers={"x-csrf-token": found["csrf_token"]})
        assert out.status_code == 200 and "Max-Age=0" in out.headers["set-cookie"]
        token = COOKIE.fullmatch(answer.headers["set-cookie"])
        assert token and page.get("/api/session", headers={"cookie": f"tsuzuri={token[1]}"}).status_code == 401, "it is over here, too"


def test_everything_that_is_not_quite_right_has_one_answer(running: Running, made: Callable[..., users.User], db: Database) -> None:
    right, gone, without = made(), made(), users.add(db, "鍵だけの人")
    users.deactivate(db, gone.id)
    answers = set()
    with client(running) as page:
        for name, password in [(right.name, GOOD + "x"), ("いない人", GOOD), (gone.name, GOOD), (without.name, GOOD), (without.name, "x")]:
            answer = page.post("/api/session", json={"name": name, "password": password})
            answers.add((answer.status_code, answer.text, "set-cookie" in answer.headers))
    assert answers == {(401, answer.text, False)}


def test_a_wrong_name_takes_as_long_as_a_wrong_password(
    monkeypatch: pytest.MonkeyPatch, db: Database, made: Callable[..., users.User]
) -> None:
    """The same work is done: passwords are looked at as often, and the database is written to as often."""
    user, seen = made(), Counter[str]()
    real = users._hasher()

    class Counting:
        def verify(self, hashed: str, password: str) -> bool:
            seen["verified"] += 1
            return real.verify(hashed, password)

        def hash(self, password: str) -> str:
            return real.hash(password)

    users._nobody()
    monkeypatch.setattr(users, "_hasher", Counting)
    counts = []
    for name in (user.name, "いない人"):
        seen.clear()
        before = max(record.seq for record in audit.records(db))
        assert users.sign_in(db, name, "x" * 20) is None
        counts.append((seen["verified"], max(record.seq for record in audit.records(db)) - before))
    assert counts == [(1, 1), (1, 1)]


def test_a_session_never_survives_a_new_sign_in_nor_is_one_taken_that_another_chose(
    running: Running, made: Callable[..., users.User]
) -> None:
    user = made()
    with client(running) as page:
        tokens = []
        for _ in range(2):
            answer = page.post("/api/session", json={"name": user.name, "password": GOOD})
            tokens.append((COOKIE.fullmatch(answer.headers["set-cookie"]) or pytest.fail())[1])
        assert tokens[0] != tokens[1]
        ask = lambda token: client(running).get("/api/session", headers={"cookie": f"tsuzuri={token}"}).status_code  # noqa: E731
        assert [ask(token) for token in tokens] == [401, 200]
        assert client(running).post(
            "/api/session", json={"name": user.name, "password": GOOD}, headers={"cookie": "tsuzuri=tszsess_chosen"}
        ).headers["set-cookie"].startswith("tsuzuri=tszsess_")  # fmt: skip
        assert ask("tszsess_chosen") == 401


@pytest.mark.parametrize(("column", "ago"), [("expires_at", 0), ("seen_at", users.IDLE_MS)])
def test_a_session_ends_in_the_end_and_when_nobody_uses_it(
    running: Running, made: Callable[..., users.User], db: Database, column: str, ago: int
) -> None:
    user = made()
    with signed_in(running, user.name) as page:
        assert page.get("/api/session").status_code == 200
        with db.write() as connection:
            whose = tables.sessions.c.user_id == user.id
            connection.execute(update(tables.sessions).where(whose).values({column: tables.now_ms() - ago}))
        assert page.get("/api/session").status_code == 401


def test_use_keeps_a_session_alive_to_the_minute(db: Database, made: Callable[..., users.User]) -> None:
    user = made()
    _, token = users.sign_in(db, user.name, GOOD, now=0) or pytest.fail()
    step = users.IDLE_MS - 1
    assert all(users.session(db, token, now=step * turn) for turn in range(1, 4))
    assert users.session(db, token, now=step * 3 + users.IDLE_MS) is None


CHANGES = {
    "another password": lambda db, user: users.set_password(db, user.id, GOOD + "二"),
    "deactivated": lambda db, user: users.deactivate(db, user.id),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_of_a_person_holds_from_the_next_request_on(
    running: Running, made: Callable[..., users.User], db: Database, what: str
) -> None:
    user = made()
    with signed_in(running, user.name) as page:
        assert page.get("/api/keys").status_code == 200
        CHANGES[what](db, user)
        assert page.get("/api/keys").status_code == 401


def test_a_changed_role_holds_from_the_next_request_on(running: Running, made: Callable[..., users.User], db: Database) -> None:
    made("admin")
    user = made("admin")
    with signed_in(running, user.name) as page:
        assert page.get("/api/users").status_code == 200
        users.set_role(db, user.id, "auditor")
        assert page.get("/api/users").status_code == 403
        assert page.get("/api/audit").status_code == 200


def test_ones_own_password_needs_the_present_one_and_ends_every_session(running: Running, made: Callable[..., users.User]) -> None:
    user = made()
    with signed_in(running, user.name) as page, signed_in(running, user.name) as other:
        wrong = page.post("/api/password", json={"current": GOOD + "x", "password": GOOD + "二"})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (403, "current")
        assert page.post("/api/password", json={"current": GOOD, "password": "短い"}).status_code == 400
        assert page.post("/api/password", json={"current": GOOD, "password": GOOD + "二"}).status_code == 200
        assert {one.get("/api/session").status_code for one in (page, other)} == {401}
    with signed_in(running, user.name, GOOD + "二") as page:
        assert page.get("/api/session").status_code == 200


# ── cookies and pages of other sites


def test_with_tls_the_cookie_is_the_hosts_alone_and_no_other_is_read() -> None:
    from tsuzuri.serve import cookies

    line = cookies.made("tszsess_x", 60, True)["set-cookie"]
    assert line == "__Host-tsuzuri=tszsess_x; Path=/; Max-Age=60; HttpOnly; SameSite=Strict; Secure"
    assert cookies.session({"cookie": "tsuzuri=planted; __Host-tsuzuri=ours"}, True) == "ours"
    assert cookies.session({"cookie": "tsuzuri=planted"}, True) is None
    assert cookies.session({"cookie": "__Host-tsuzuri=a"}, False) is None
    assert cookies.session({"cookie": "tsuzuri=a; tsuzuri=b"}, False) is None, "one of them is somebody else's"


ELSEWHERE = [
    {"x-csrf-token": ""},
    {"x-csrf-token": "0" * 64},
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://localhost.evil.example"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
]


@pytest.mark.parametrize("headers", ELSEWHERE, ids=str)
def test_what_another_sites_page_asks_for_changes_nothing(
    headers: dict[str, str], running: Running, made: Callable[..., users.User]
) -> None:
    with signed_in(running, made("admin").name) as page:
        for method, path, body in [
            ("POST", "/api/users", {"name": "よその人"}),
            ("PATCH", "/api/users/none", {}),
            ("PUT", "/api/budgets/all", {"amount": 1}),
            ("DELETE", "/api/session", None),
            ("POST", "/api/password", {"current": GOOD, "password": GOOD + "二"}),
        ]:
            found = page.request(method, path, json=body, headers=headers)
            assert (found.status_code, found.json()["error"]["code"]) == (403, "cross_site_request"), path
        assert page.get("/api/session").status_code == 200


def test_another_persons_csrf_token_is_none(running: Running, made: Callable[..., users.User]) -> None:
    with signed_in(running, made().name) as page, signed_in(running, made().name) as other:
        assert page.delete("/api/session", headers={"x-csrf-token": other.headers["x-csrf-token"]}).status_code == 403


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}], ids=str)
@pytest.mark.parametrize("path", ["/api/session", "/api/first-administrator"])
def test_nobody_is_signed_in_by_another_sites_page(path: str, headers: dict[str, str], running: Running) -> None:
    with client(running) as page:
        body = {"name": "a", "password": GOOD, **({"token": "x"} if "first" in path else {})}
        assert page.post(path, json=body, headers=headers).status_code == 403
        form = {"content-type": "application/x-www-form-urlencoded"}
        assert page.post(path, content=b"name=a", headers=form).status_code == 415


def test_our_own_page_may(running: Running, made: Callable[..., users.User]) -> None:
    ours = {"origin": running.url, "sec-fetch-site": "same-origin"}
    with signed_in(running, made().name) as page:
        assert page.delete("/api/session", headers=ours).status_code == 200


# ── a session and a key are two things


def test_a_session_is_no_key_and_a_key_no_session(running: Running, made: Callable[..., users.User], make_key: Callable[..., Any]) -> None:
    user = made("admin")
    with signed_in(running, user.name) as page:
        token = page.cookies["tsuzuri"]
        assert page.post("/v1/chat/completions", json={}).status_code == 403, "no session may unless the route says so"
        for headers in ({"authorization": f"Bearer {token}"}, {"x-api-key": token}):
            assert page.get("/api/session", headers=headers).status_code == 401
        _, secret = make_key(*keys.SCOPES)
        bearer = {"authorization": f"Bearer {secret}"}
        assert page.get("/api/session", headers=bearer).status_code == 403, "the key that was sent is what counts"
        assert client(running).get("/api/session", headers={"cookie": f"tsuzuri={secret}"}).status_code == 401
        assert page.get("/api/users", headers={"authorization": "Bearer tsz_wrong"}).status_code == 401, "nor is a session fallen back on"


# ── guesses


def test_who_guesses_at_a_name_waits_whether_there_is_one_or_not(
    running: Running, made: Callable[..., users.User], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "WAITING", 1000)
    for name in (made().name, "いない人"):
        with client(running) as page, ThreadPoolExecutor(8) as pool:
            guess = lambda n, name=name, page=page: page.post("/api/session", json={"name": name, "password": f"{n}" * 12})  # noqa: E731
            found = list(pool.map(guess, range(20)))
            assert Counter(one.status_code for one in found) == {401: attempts.AT_A_NAME, 429: 20 - attempts.AT_A_NAME}
            late = page.post("/api/session", json={"name": name, "password": GOOD})
            assert late.status_code == 429, "even the right one"
            assert 0 < int(late.headers["retry-after"]) <= 900 and late.json()["error"]["code"] == "too_many_attempts"


def test_who_guesses_from_one_address_waits_and_time_heals(db: Database) -> None:
    now, found = 1_000_000, []
    for number in range(attempts.FROM_AN_ADDRESS + 5):
        found.append(attempts.attempt(db, f"name{number}", "192.0.2.1", now=now))
    assert [wait is None for wait in found] == [True] * attempts.FROM_AN_ADDRESS + [False] * 5
    assert attempts.attempt(db, "x", "192.0.2.2", now=now) is None, "from elsewhere it may be tried"
    assert attempts.attempt(db, "x", "192.0.2.1", now=now + attempts.WINDOW_MS - 1) is not None
    assert attempts.attempt(db, "x", "192.0.2.1", now=now + attempts.WINDOW_MS) is None


def test_of_a_network_of_ipv6_every_address_is_one(db: Database) -> None:
    found = [attempts.attempt(db, f"n{n}", f"2001:db8::{n:x}") for n in range(attempts.FROM_AN_ADDRESS + 1)]
    assert found[-1] is not None and attempts.attempt(db, "n", "2001:db8:0:1::1") is None


def test_who_knows_the_password_is_not_counted_against(running: Running, made: Callable[..., users.User], db: Database) -> None:
    user = made()
    for _ in range(attempts.AT_A_NAME + 2):
        with signed_in(running, user.name):
            pass
    with db.read() as connection:
        assert [row.count for row in connection.execute(tables.attempts.select())] == [0]  # type: ignore[operator]


def test_no_name_that_was_typed_is_kept(running: Running, db: Database) -> None:
    typed = "まちがえて打ったパスワード"
    with client(running) as page:
        page.post("/api/session", json={"name": typed, "password": GOOD})
    with db.read() as connection:
        rows = [tuple(row) for table in (tables.attempts, tables.audit) for row in connection.execute(table.select())]
    assert rows and typed not in repr(rows)


def test_a_crowd_at_the_door_is_sent_away_before_it_takes_the_memory(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "WAITING", 0)
    with client(running) as page:
        answer = page.post("/api/session", json={"name": "a", "password": GOOD})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "busy")


# ── the first administrator


def test_of_a_hundred_at_once_exactly_one_becomes_the_first_administrator(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from tsuzuri.serve.app import Service
    from tsuzuri.serve.models import Pool
    from tsuzuri.serve.server import Address, Server, listen
    from tsuzuri.store import database

    monkeypatch.setattr(signing, "WAITING", 1000)
    place = tmp_path_factory.mktemp("first")
    with database.open(place / "data", place / "secrets") as db, listen(Address(port=0)) as at:
        token = users.invite(db)
        server = Server(Service(Pool([]), db), Address(), 0.2)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [at]}, daemon=True)
        thread.start()
        with httpx2.Client(base_url=f"http://127.0.0.1:{at.getsockname()[1]}", timeout=60) as page, ThreadPoolExecutor(100) as pool:
            body = lambda n: {"name": f"人{n}", "password": GOOD}  # noqa: E731
            ask = lambda n, token=token: page.post("/api/first-administrator", json={"token": token, **body(n)})  # noqa: E731
            found = Counter(one.status_code for one in pool.map(ask, range(100)))
            assert found[200] == 1 and set(found) <= {200, 400, 401}
            assert [(user.role, user.active) for user in users.listed(db)] == [("admin", True)]
            assert ask(0).status_code == ask(0, "tszfirst_wrong").status_code == 401
        assert users.invite(db) is None
        server.should_exit = True
        thread.join(20)
