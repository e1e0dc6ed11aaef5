"""Nobody writes a field that is not theirs to write, and nobody makes anything more than they are: the database is compared.

Every route that changes an object is sent every column there is, one by one and all together, as every role. What may change is worked out
here from the allow-lists; whatever else changes is a failure.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from argon2 import PasswordHasher
from served import Repeated, Running
from sqlalchemy import BigInteger, Boolean, Integer, LargeBinary, select

from tsuzuri.serve import managing
from tsuzuri.serve.models import Served
from tsuzuri.store import audit, keys, ledger, tables, users
from tsuzuri.store.database import Database

GOOD = "朝の散歩と味噌汁と新聞紙"
ROLES = ("admin", "auditor", "member")
FIELDS = {column.name: column for table in (tables.keys, tables.users, tables.limits, tables.sessions) for column in table.columns}
MORE = ["is_admin", "roles", "user", "key", "secret", "__class__", "constructor", "owner", "permissions", "scopes.0", "admin", "token"]
Row = dict[str, Any]


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "_hasher", lambda: PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture(scope="module")
def running(serving: Callable[..., Any]) -> Iterator[Running]:
    with serving(Served("script", Repeated(text="はい"))) as found:
        yield found


@pytest.fixture(scope="module")
def people(db: Database) -> dict[str, users.User]:
    return {name: users.add(db, f"欄の{name}", name, GOOD) for name in ROLES}


@pytest.fixture
def client(running: Running) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=running.url, timeout=30) as found:
        yield found


def session(db: Database, user: users.User) -> dict[str, str]:
    _, token = users.sign_in(db, user.name, GOOD) or pytest.fail()
    return {"cookie": f"tsuzuri={token}", "x-csrf-token": users.csrf(db, token)}


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def mutated(name: str) -> Any:
    """A value unlike any that is there, of a type that might pass."""
    special = {"role": "admin", "scopes": ["admin"], "models": ["other"], "addresses": ["10.0.0.0/8"], "password": GOOD + "二", "active": False,
               "expires_at": tables.now_ms() + 10**9, "user": "欄のadmin", "name": "書き換え"}  # fmt: skip
    if name in special:
        return special[name]
    kind = FIELDS[name].type if name in FIELDS else None
    if isinstance(kind, Boolean):
        return True
    return 77 if isinstance(kind, BigInteger | Integer) else "00" if isinstance(kind, LargeBinary) else "mutated"


def snapshot(db: Database) -> dict[str, dict[str, Row]]:
    found: dict[str, dict[str, Row]] = {}
    with db.read() as connection:
        for table, one in ((tables.users, "id"), (tables.keys, "id"), (tables.limits, "owner")):
            rows = [dict(row._mapping) for row in connection.execute(select(table))]
            found[table.name] = {row[one]: {name: cell for name, cell in row.items() if name != "last_used_at"} for row in rows}
    return found


def changed(db: Database, before: dict[str, dict[str, Row]]) -> set[tuple[str, str, str]]:
    """(table, row, column) of everything that is other than it was; a new row is its column "new"."""
    found = set()
    for table, rows in snapshot(db).items():
        for identity in rows.keys() | before[table].keys():
            if identity not in before[table] or identity not in rows:
                found.add((table, identity, "new" if identity in rows else "gone"))
                continue
            now, was = rows[identity], before[table][identity]
            found |= {(table, identity, column) for column in now if now[column] != was[column]}
    return found


def new_target(db: Database, people: dict[str, users.User], what: str, role: str) -> tuple[str, str, str, str]:
    """(method, path, table, row) of something that is new."""
    user = users.add(db, f"的{secrets.token_hex(4)}", "member", GOOD)
    key, _ = keys.create(db, "的", user_id=people[role].id if what == "key" else user.id, requests_per_minute=5)
    return {
        "user": ("PATCH", f"/api/users/{user.id}", "users", user.id),
        "key": ("PATCH", f"/api/keys/{key.id}", "keys", key.id),
        "budget": ("PUT", f"/api/budgets/key:{key.id}", "limits", f"key:{key.id}"),
    }[what]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("what", ["user", "key", "budget"])
def test_only_what_is_on_the_list_changes(what: str, role: str, db: Database, client: httpx2.Client, people: dict[str, users.User]) -> None:
    headers, tried, did = session(db, people[role]), 0, 0
    target, before = new_target(db, people, what, role), snapshot(db)
    for field in dict.fromkeys((*FIELDS, *MORE)):
        method, path, table, row = target
        found = client.request(method, path, json={field: mutated(field)}, headers=headers)
        allowed = field in managing.WRITABLE[role].get(what, ())  # type: ignore[call-overload]
        differs = changed(db, before)
        assert found.status_code == 200 if allowed else found.status_code in (400, 403), (field, found.text)
        assert differs == ({(table, row, "new" if what == "budget" else field)} if allowed else set()), field
        tried, did = tried + 1, did + allowed
        if allowed:
            target, before = new_target(db, people, what, role), snapshot(db)
    assert tried > 30 and did == len(managing.WRITABLE[role].get(what, ())), "and what is on the list does change"  # type: ignore[call-overload]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("method", "path"),
    [("PATCH", "/api/users/{user}"), ("PATCH", "/api/keys/{key}"), ("PUT", "/api/budgets/all"), ("POST", "/api/users"), ("POST", "/api/keys"),
     ("POST", "/api/keys/{key}/rotate"), ("POST", "/api/password")],
)  # fmt: skip
def test_a_whole_object_with_everything_changed_changes_nothing(
    method: str, path: str, role: str, db: Database, client: httpx2.Client, people: dict[str, users.User]
) -> None:
    own, _ = keys.create(db, "自分の", user_id=people[role].id)
    before = snapshot(db)
    whole = {field: mutated(field) for field in [*FIELDS, *MORE]}
    path = path.format(user=people[role].id, key=own.id)
    assert client.request(method, path, json=whole, headers=session(db, people[role])).status_code in (400, 403)
    assert changed(db, before) == set()


@pytest.mark.parametrize("field", sorted({*FIELDS, *MORE} - managing.ALL["new key"] - managing.ALL["new user"]))
def test_nothing_new_is_made_with_a_field_that_is_not_to_be_given(
    field: str, db: Database, client: httpx2.Client, people: dict[str, users.User]
) -> None:
    headers, before = session(db, people["admin"]), snapshot(db)
    for path in ("/api/users", "/api/keys"):
        found = client.post(path, json={"name": f"新{field}", field: mutated(field)}, headers=headers)
        assert (found.status_code, found.json()["error"]["param"]) == (400, field)
    assert changed(db, before) == set()


def test_a_body_with_a_key_twice_or_a_name_in_disguise_changes_nothing(
    db: Database, client: httpx2.Client, people: dict[str, users.User]
) -> None:
    own, _ = keys.create(db, "自分の", user_id=people["member"].id)
    headers, before = {**session(db, people["member"]), "content-type": "application/json"}, snapshot(db)
    for body in (b'{"name": "a", "name": "b"}', b'{"na\\u006de": "a", "name": "b"}', '{"ｎａｍｅ": "a"}'.encode(), b'{"name\\u0000": "a"}', b'{"Name": "a"}',
                 b'{"name": "a", "scopes": null}', b'[{"name": "a"}]', b'{"name": {"$set": "a"}}', b'{"__proto__": {"name": "a"}}'):  # fmt: skip
        assert client.patch(f"/api/keys/{own.id}", content=body, headers=headers).status_code in (400, 403), body
    assert changed(db, before) == set()


# ── nobody makes anything more than they are


def test_a_key_makes_none_that_may_more(db: Database, client: httpx2.Client) -> None:
    limits = {"models": ["script"], "addresses": ["127.0.0.0/8"], "requests_per_minute": 1000, "tokens_per_minute": 50, "concurrent": 4}
    until = tables.now_ms() + 10**9
    maker, secret = keys.create(db, "作る", scopes=["admin", "chat"], expires_at=until, **limits)  # type: ignore[arg-type]
    right = {"name": "新", "scopes": ["chat"], **limits, "expires_at": until}
    assert client.post("/api/keys", json=right, headers=bearer(secret)).status_code == 201
    before = snapshot(db)
    for more in (
        {"scopes": ["chat", "audit"]}, {"scopes": list(keys.SCOPES)}, {"models": None}, {"models": ["script", "other"]}, {"addresses": []},
        {"addresses": ["127.0.0.0/7"]}, {"addresses": ["127.0.0.1", "::1"]}, {"requests_per_minute": 1001}, {"requests_per_minute": None},
        {"tokens_per_minute": None}, {"concurrent": 5}, {"concurrent": None}, {"expires_at": until + 1}, {"expires_at": None},
    ):  # fmt: skip
        found = client.post("/api/keys", json={**right, **more}, headers=bearer(secret))
        assert found.status_code == 400, more
        if "scopes" not in more:
            assert client.patch(f"/api/keys/{maker.id}", json=more, headers=bearer(secret)).status_code == 400, "nor lifts its own limits"
    broad, _ = keys.create(db, "広い", scopes=keys.SCOPES)
    before = snapshot(db)
    assert client.post(f"/api/keys/{broad.id}/rotate", json={}, headers=bearer(secret)).status_code == 400, "nor gets the successor of one"
    assert client.patch(f"/api/keys/{broad.id}", json={"name": "x"}, headers=bearer(secret)).status_code == 400
    assert changed(db, before) == set()
    assert client.delete(f"/api/keys/{broad.id}", headers=bearer(secret)).status_code == 200, "what is taken away is always less"


def test_a_key_makes_nobody_who_may_more(db: Database, client: httpx2.Client, people: dict[str, users.User]) -> None:
    _, secret = keys.create(db, "管理だけ", scopes=["admin"])
    before = snapshot(db)
    for method, path, body in (
        ("POST", "/api/users", {"name": "裏口", "role": "admin", "password": GOOD}),
        ("POST", "/api/users", {"name": "裏口"}),
        ("PATCH", f"/api/users/{people['member'].id}", {"role": "admin"}),
        ("PATCH", f"/api/users/{people['admin'].id}", {"password": GOOD + "二"}),
        ("PATCH", f"/api/users/{people['member'].id}", {"password": GOOD + "二", "role": None}),
    ):
        found = client.request(method, path, json=body, headers=bearer(secret))
        assert (found.status_code, found.json()["error"]["code"]) == (403, "beyond_your_own"), path
    assert changed(db, before) == set()
    _, secret = keys.create(db, "全部", scopes=keys.SCOPES)
    assert client.post("/api/users", json={"name": "正面", "role": "admin"}, headers=bearer(secret)).status_code == 201


def test_an_administrator_is_budgeted_too_and_a_key_does_not_set_the_budget_it_spends(
    db: Database, client: httpx2.Client, people: dict[str, users.User]
) -> None:
    key, secret = keys.create(db, "管理の鍵", scopes=["admin"], user_id=people["admin"].id)
    assert set(ledger.owners(key)) == {"all", f"key:{key.id}", f"user:{people['admin'].id}"}
    person = users.Person(people["admin"], "x")
    assert set(ledger.owners(person)) == {"all", f"user:{people['admin'].id}"}
    before = snapshot(db)
    for owner in ledger.owners(key):
        found = client.put(f"/api/budgets/{owner}", json={"amount": 10**9}, headers=bearer(secret))
        assert (found.status_code, found.json()["error"]["code"]) == (403, "beyond_your_own"), owner
    assert changed(db, before) == set()
    assert client.put("/api/budgets/all", json={"amount": 10**15}, headers=session(db, people["admin"])).status_code == 200
    assert client.put("/api/budgets/all", json={"amount": None}, headers=session(db, people["admin"])).status_code == 200


def test_the_last_administrator_cannot_be_lost_over_http_either(db: Database, client: httpx2.Client, people: dict[str, users.User]) -> None:
    others = [user for user in users.listed(db) if user.role == "admin" and user.active and user.id != people["admin"].id]
    for user in others:
        users.set_role(db, user.id, "member")
    for body in ({"role": "member"}, {"active": False}):
        assert client.patch(f"/api/users/{people['admin'].id}", json=body, headers=session(db, people["admin"])).status_code == 400
    assert users.one(db, people["admin"].id).role == "admin"


# ── what was done is written down, and what is shown is on a list, too


def test_every_change_is_written_down_with_who_did_it(db: Database, client: httpx2.Client, people: dict[str, users.User]) -> None:
    start = max(record.seq for record in audit.records(db)) + 1
    headers, admin = session(db, people["admin"]), people["admin"].id
    user = client.post("/api/users", json={"name": "記録の人"}, headers=headers).json()["id"]
    key = client.post("/api/keys", json={"name": "記録の鍵", "user": user}, headers=headers).json()["id"]
    client.patch(f"/api/keys/{key}", json={"concurrent": 3}, headers=headers)
    new = client.post(f"/api/keys/{key}/rotate", json={"overlap_seconds": 0}, headers=headers).json()["id"]
    client.delete(f"/api/keys/{new}", headers=headers)
    client.put(f"/api/budgets/user:{user}", json={"amount": 5}, headers=headers)
    client.patch(f"/api/users/{user}", json={"role": "auditor", "active": False}, headers=headers)
    found = [(record.kind, record.body) for record in audit.records(db, start) if record.kind not in ("request", "user.signed_in")]
    assert [kind for kind, _ in found] == [
        "user.added",
        "key.created",
        "key.changed",
        "key.rotated",
        "key.revoked",
        "budget.set",
        "user.role",
        "user.deactivated",
    ]
    assert {body["by"] for _, body in found} == {admin}
    assert found[2][1]["changed"] == {"concurrent": [None, 3]}


def test_nothing_secret_is_shown(db: Database, client: httpx2.Client, people: dict[str, users.User]) -> None:
    headers = session(db, people["admin"])
    secret = client.post("/api/keys", json={"name": "見える？"}, headers=headers).json()["key"]
    shown = "".join(
        client.get(path, headers=headers).text for path in ("/api/keys", "/api/users", "/api/budgets", "/api/audit", "/api/session")
    )
    shown += client.get("/api/audit/export", headers=headers).text
    with db.read() as connection:
        hidden = [bytes(cell).hex() for cell in connection.execute(select(tables.keys.c.hash)).scalars()]
        hidden += [bytes(cell).hex() for cell in connection.execute(select(tables.sessions.c.hash)).scalars()]
        hidden += [cell for cell in connection.execute(select(tables.users.c.password)).scalars() if cell]
    assert secret not in shown and "$argon2" not in shown and headers["cookie"].partition("=")[2] not in shown
    assert not [one for one in hidden if one in shown]


def test_the_audit_is_read_in_parts_and_exported_as_it_is(db: Database, client: httpx2.Client, people: dict[str, users.User]) -> None:
    headers = session(db, people["auditor"])
    part = client.get("/api/audit?start=2&limit=3", headers=headers).json()
    assert [record["seq"] for record in part["data"]] == [2, 3, 4] and part["has_more"] is True
    for query in ("start=0", "limit=1001", "limit=x", "limit=１", "begin=1", "start=-1", "start=1e3"):
        assert client.get(f"/api/audit?{query}", headers=headers).status_code == 400, query
    found = client.get("/api/audit/export", headers=headers)
    assert found.headers["content-type"] == "application/x-ndjson"
    lines = found.text.splitlines()
    there = list(audit.export(db))  # and after them, what has happened since
    assert lines[:-1] == there[: len(lines) - 1] and len(lines) > 10
    assert json.loads(lines[-1])["head"] == len(lines) - 1
