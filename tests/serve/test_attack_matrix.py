"""Every route × everybody who may ask × everything that is somebody else's, taken from the table of routes: all of it denied.

A new route is tried without being told. One that names an object in its path, or a model in its body, fails here until this file says what
may be asked for, since nobody else can know whose that would be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from argon2 import PasswordHasher
from served import Repeated, Running
from sqlalchemy import select

from tsuzuri.folder import find, names
from tsuzuri.serve.access import EVERYONE, OPEN
from tsuzuri.serve.app import ROUTES
from tsuzuri.serve.models import Served
from tsuzuri.store import keys, ledger, tables, users
from tsuzuri.store.database import Database
from tsuzuri.types import Done, Text, Usage

GOOD = "朝の散歩と味噌汁と新聞紙"
NAMES = names(ROUTES)
SAID = [{"role": "user", "content": "あ"}]
MODEL_BODIES: dict[str, dict[str, Any]] = {  # of routes that ask a model: what is asked but for the model's name
    "chat_completions": {"messages": SAID},
    "completions": {"prompt": "あ"},
    "detokenize": {"tokens": [1]},
    "embeddings": {"input": "あ"},
    "messages": {"messages": SAID, "max_tokens": 1},
    "messages_count_tokens": {"messages": SAID},
    "ollama_chat": {"messages": SAID},
    "ollama_embed": {"input": "あ"},
    "ollama_generate": {"prompt": "あ"},
    "ollama_show": {},
    "rerank": {"query": "あ", "documents": ["い"]},
    "responses": {"input": "あ"},
    "responses_input_tokens": {"input": "あ"},
    "tokenize": {"prompt": "あ"},
}
NO_MODEL = {  # of routes with a body that names none
    "budget_set": {"amount": 1},
    "first_administrator": {"token": "x", "name": "x", "password": GOOD},
    "key_change": {"name": "改名"},
    "key_create": {"name": "新しい鍵"},
    "key_rotate": {},
    "moderations": {"input": "あ"},
    "password": {"current": GOOD, "password": GOOD},
    "session_begin": {"name": "x", "password": GOOD},
    "user_add": {"name": "加わる人"},
    "user_change": {"role": "member"},
}
OBJECTS = {"model:path", "model", "key", "user", "owner", "response"}  # that a path may name
Ask = Callable[..., httpx2.Response]


def test_every_route_is_covered() -> None:
    for name in NAMES:
        module = find(ROUTES, name)
        for path in module.PATHS:
            assert set(re.findall(r"\{([^}]*)\}", path)) <= OBJECTS, f"{name}: say in this file what is somebody else's there"
        if module.METHOD in ("PATCH", "POST", "PUT"):
            assert (name in MODEL_BODIES) != (name in NO_MODEL), f"{name}: say in this file what may be asked of it, and whether of a model"


@pytest.fixture(scope="module")
def running(serving: Callable[..., Any]) -> Iterator[Running]:
    chat = Repeated(Text("はい"), Usage(1, 1), Done("stop"))
    with serving(Served("script", chat), Served("other", chat)) as found:
        yield found


@pytest.fixture(scope="module")
def people(db: Database) -> dict[str, users.User]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(users, "_hasher", lambda: PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        return {name: users.add(db, f"表の{name}", name.partition(" ")[0], GOOD) for name in ("admin", "auditor", "member", "member 2")}


@pytest.fixture(scope="module")
def ask(running: Running, db: Database, people: dict[str, users.User]) -> Iterator[Ask]:
    """As somebody: "nobody", "key SCOPE", "session ROLE" and so on."""
    patch = pytest.MonkeyPatch()
    patch.setattr(users, "_hasher", lambda: PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    headers: dict[str, dict[str, str]] = {"nobody": {}}
    for scope in keys.SCOPES:
        headers[f"key {scope}"] = {"authorization": f"Bearer {keys.create(db, scope, scopes=[scope], concurrent=64)[1]}"}
    gone, secret = keys.create(db, "gone", scopes=keys.SCOPES)
    keys.revoke(db, gone.id)
    headers["key revoked"] = {"authorization": f"Bearer {secret}"}
    headers["key wrong"] = {"authorization": f"Bearer {secret[:-1]}{'A' if secret[-1] != 'A' else 'B'}"}
    for name, user in people.items():
        _, token = users.sign_in(db, user.name, GOOD) or pytest.fail()
        headers[f"session {name}"] = {"cookie": f"tsuzuri={token}", "x-csrf-token": users.csrf(db, token)}
    with httpx2.Client(base_url=running.url, timeout=30) as client:
        yield lambda who, method, path, body=None: client.request(method, path, headers=headers[who], json=body)
    patch.undo()


WHO = [
    "nobody",
    *(f"key {scope}" for scope in keys.SCOPES),
    "key revoked",
    "key wrong",
    "session admin",
    "session auditor",
    "session member",
]


def may(who: str, policy: Any) -> bool:
    """What the policy says, read here a second time."""
    kind, _, name = who.partition(" ")
    return policy == OPEN or (name in policy if kind == "key" else f"role:{name}" in policy)


def paths(name: str, **objects: str) -> list[str]:
    objects = {
        "model:path": "script",
        "model": "script",
        "key": "key_none",
        "user": "user_none",
        "owner": "user:user_none",
        "response": "resp_none",
        **objects,
    }
    return [re.sub(r"\{([^}]*)\}", lambda found: objects[found[1]], path) for path in find(ROUTES, name).PATHS]


def everything(db: Database) -> list[Any]:
    """What only whoever may should be able to change. When a key was last used is noted by using it."""
    kept = (tables.users, tables.limits, tables.sessions)
    columns = [column for column in tables.keys.columns if column.name != "last_used_at"]
    with db.read() as connection:
        rows = [sorted(map(repr, connection.execute(select(*(c for c in table.columns if c.name != "seen_at"))))) for table in kept]
        return [*rows, sorted(map(repr, connection.execute(select(*columns))))]


@pytest.mark.parametrize("name", NAMES)
def test_who_may_not_is_denied_whoever_it_is(name: str, ask: Ask, db: Database) -> None:
    module, tried, before = find(ROUTES, name), 0, everything(db)
    for path in paths(name):
        for who in WHO:
            if may(who, module.POLICY):
                continue
            known = who.startswith(("key ", "session ")) and who not in ("key revoked", "key wrong")
            for body in (None, {**MODEL_BODIES.get(name, NO_MODEL.get(name, {})), "model": "script"}):
                assert ask(who, module.METHOD, path, body).status_code == (403 if known else 401), (who, path)
                tried += 1
    assert (tried > 0) is (module.POLICY != OPEN)
    assert everything(db) == before


@pytest.mark.parametrize("name", [name for name in NAMES if find(ROUTES, name).POLICY != OPEN])
def test_who_may_is_let_in(name: str, ask: Ask) -> None:
    """Else a door that is closed to all would pass the test above."""
    module = find(ROUTES, name)
    if module.METHOD == "GET":
        for who in (who for who in WHO if may(who, module.POLICY)):
            assert ask(who, "GET", paths(name)[0]).status_code == (404 if "{response}" in module.PATHS[0] else 200), who
    elif name != "session_end":
        who = next(who for who in WHO if may(who, module.POLICY))
        assert ask(who, module.METHOD, paths(name)[0], {"no such": "field"}).status_code in (400, 404), who


OWNED = [name for name in NAMES if "{key}" in find(ROUTES, name).PATHS[0]]


@pytest.mark.parametrize("name", OWNED)
def test_another_persons_keys_are_not_there(name: str, ask: Ask, db: Database, people: dict[str, users.User]) -> None:
    """Nor are an administrator's, nor those of nobody; by their id or their public part; and theirs are."""
    module = find(ROUTES, name)
    foreign = [keys.create(db, "他人の", user_id=people[whose].id)[0] for whose in ("member 2", "admin")] + [
        keys.create(db, "誰のでもない")[0]
    ]
    before, messages = everything(db), set()
    for who in ("session member", "session auditor"):
        for key in foreign:
            for spelled in (key.id, key.prefix, key.id.upper(), f"{key.id}%00", f"{key.id} ", f"./{key.id}", "key_" + "0" * 24):
                found = ask(who, module.METHOD, paths(name, key=spelled)[0], NO_MODEL.get(name))
                assert found.status_code == 404, (who, spelled)
                messages.add(found.json()["error"]["message"])
        own, _ = keys.create(db, "自分の", user_id=people[who.removeprefix("session ")].id)
        assert ask(who, module.METHOD, paths(name, key=own.id)[0], NO_MODEL.get(name)).status_code in (200, 201), "their own"
        keys.revoke(db, own.id)
    there = {repr(row) for row in before[3]}
    assert there <= {repr(row) for row in everything(db)[3]}, "nothing of theirs has changed"
    assert len(messages) <= 2, "what is not there and what is not theirs are told alike"


def test_a_list_holds_ones_own_alone(ask: Ask, db: Database, people: dict[str, users.User]) -> None:
    mine, theirs = (keys.create(db, "鍵", user_id=people[whose].id)[0] for whose in ("member", "member 2"))
    for owner in (f"user:{people['member'].id}", f"user:{people['member 2'].id}", f"key:{mine.id}", f"key:{theirs.id}"):
        ledger.set_limit(db, owner, 5)
    listed = ask("session member", "GET", "/api/keys").json()["data"]
    assert mine.id in {key["id"] for key in listed} and {key["user_id"] for key in listed} == {people["member"].id}
    budgets = {one["owner"] for one in ask("session member", "GET", "/api/budgets").json()["data"]}
    assert {f"user:{people['member'].id}", f"key:{mine.id}"} <= budgets
    assert not budgets & {f"user:{people['member 2'].id}", f"key:{theirs.id}", "all"}
    assert {one["owner"] for one in ask("session auditor", "GET", "/api/budgets").json()["data"]} > budgets


MODELLED = [*MODEL_BODIES, *(name for name in NAMES if "{model" in find(ROUTES, name).PATHS[0])]


@pytest.mark.parametrize("name", MODELLED)
def test_a_model_that_is_not_for_a_key_is_not_there(name: str, running: Running, make_key: Callable[..., Any]) -> None:
    module = find(ROUTES, name)
    _, secret = make_key("chat", "embeddings", models=["script"])
    headers = {"authorization": f"Bearer {secret}"}
    with httpx2.Client(base_url=running.url, headers=headers, timeout=30) as client:
        said = []
        for model in ("other", "none_"):
            for path in paths(name, **{"model:path": model, "model": model}):
                body = {**MODEL_BODIES[name], "model": model} if name in MODEL_BODIES else None
                found = client.request(module.METHOD, path, json=body)
                assert found.status_code == 404, path
                said.append(re.sub(r"req_\w+", "", found.text.replace("none_", "other")))
    assert len(set(said)) == 1, "no word of what exists"


def test_every_policy_word_is_a_scope_or_a_role() -> None:
    for name in NAMES:
        policy = find(ROUTES, name).POLICY
        assert policy == OPEN or set(policy) <= {*keys.SCOPES, *EVERYONE}
