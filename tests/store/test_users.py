"""People: signing in, the first administrator, roles, deactivation. On both databases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select

from tsuzuri.errors import ConfigError, MissingError
from tsuzuri.store import keys, users
from tsuzuri.store.database import Database
from tsuzuri.store.tables import invitations, sessions
from tsuzuri.store.tables import users as table

NOW = 1_700_000_000_000
PASSWORD = "朝の散歩と味噌汁と新聞"  # 11 characters
GOOD = PASSWORD + "紙"
REAL = users._hasher


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """argon2id at its least, so that a hundred sign-ups take no minute; one test below looks at the real cost."""
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(users, "_hasher", lambda: cheap)
    users._nobody.cache_clear()


def at_once(count: int, work: Callable[[int], object]) -> Counter[str]:
    def one(number: int) -> str:
        try:
            work(number)
        except ConfigError:
            return "refused"
        return "made"

    with ThreadPoolExecutor(count) as pool:
        return Counter(pool.map(one, range(count)))


def test_of_a_hundred_with_the_same_token_exactly_one_becomes_the_first_administrator(db: Database) -> None:
    token = users.invite(db)
    assert token
    assert at_once(100, lambda n: users.first_administrator(db, token, f"人{n}", GOOD)) == {"made": 1, "refused": 99}
    assert [(user.role, user.active) for user in users.listed(db)] == [("admin", True)]
    assert users.invite(db) is None


def test_of_many_with_tokens_of_their_own_exactly_one_becomes_the_first_administrator(db: Database) -> None:
    """No look beforehand can decide this; the constraint does. The tokens of the others are not used up by it."""
    tokens = [users.invite(db) for _ in range(30)]
    assert at_once(30, lambda n: users.first_administrator(db, str(tokens[n]), f"人{n}", GOOD)) == {"made": 1, "refused": 29}
    with db.read() as connection:
        used = connection.execute(select(invitations.c.used_at)).scalars().all()
    assert sum(at is not None for at in used) == 1


def test_a_token_of_the_first_administrator_works_once_in_time_and_as_it_is(db: Database) -> None:
    token = users.invite(db, now=NOW)
    assert token
    for wrong, now in ((token[:-1], NOW), ("", NOW), (token, NOW + users.INVITATION_MS)):
        with pytest.raises(ConfigError, match="トークン"):
            users.first_administrator(db, wrong, "山田", GOOD, now=now)
    with pytest.raises(ConfigError, match="12 文字"):
        users.first_administrator(db, token, "山田", PASSWORD, now=NOW)
    made = users.first_administrator(db, token, "山田", GOOD, now=NOW)
    assert made == users.one(db, "山田") and made.role == "admin"
    with pytest.raises(ConfigError, match="トークン"):
        users.first_administrator(db, token, "鈴木", GOOD, now=NOW)
    with db.read() as connection:
        assert token not in repr(connection.execute(select(invitations)).all())


def test_an_administrator_added_by_the_operator_is_the_first_one(db: Database) -> None:
    users.add(db, "会員")
    assert users.invite(db) is not None
    users.add(db, "管理", "admin")
    assert users.invite(db) is None
    users.add(db, "管理二", "admin")


def test_signing_in_needs_the_name_and_the_password(db: Database) -> None:
    made = users.add(db, "山田", password=GOOD)
    users.add(db, "無人")
    for name, password in (("山田", PASSWORD), ("山田", ""), ("鈴木", GOOD), ("無人", GOOD), ("無人", ""), ("山田", GOOD * 1000), ("", "")):
        assert users.sign_in(db, name, password) is None
    found = users.sign_in(db, "山田", GOOD)
    assert found is not None and found[0] == made
    assert users.session(db, found[1]).user == made


def test_names_that_look_alike_are_one(db: Database) -> None:
    users.add(db, "Ｙａｍａｄａ", password=GOOD)
    assert users.sign_in(db, "yamada", GOOD)
    with pytest.raises(ConfigError, match="使われて"):
        users.add(db, "YAMADA")


def test_a_session_ends_when_it_is_over_or_signed_out(db: Database) -> None:
    users.add(db, "山田", password=GOOD)
    _, token = users.sign_in(db, "山田", GOOD, now=NOW, lasts_ms=1000) or pytest.fail()
    _, other = users.sign_in(db, "山田", GOOD, now=NOW) or pytest.fail()
    assert users.session(db, token, now=NOW + 999)
    assert users.session(db, token, now=NOW + 1000) is None
    assert users.session(db, token + "x", now=NOW) is None and users.session(db, "", now=NOW) is None
    users.sign_out(db, other)
    assert users.session(db, other, now=NOW) is None
    users.sign_in(db, "山田", GOOD, now=NOW + 2000)
    with db.read() as connection:
        assert len(connection.execute(select(sessions)).all()) == 1, "the expired one is gone"


def test_nothing_of_a_session_or_a_password_is_in_the_database(db: Database) -> None:
    users.add(db, "山田", password=GOOD)
    _, token = users.sign_in(db, "山田", GOOD) or pytest.fail()
    with db.read() as connection:
        held = connection.execute(select(sessions.c.hash)).scalar()
        hashed = connection.execute(select(table.c.password)).scalar()
    assert users.session(db, bytes(held or b"").hex()) is None
    assert token.encode() not in bytes(held or b"") and GOOD not in str(hashed)
    assert str(hashed).startswith("$argon2id$")
    assert users.sign_in(db, "山田", str(hashed)) is None


def test_a_deactivation_ends_password_session_and_key_at_once(db: Database) -> None:
    user = users.add(db, "山田", password=GOOD)
    _, token = users.sign_in(db, "山田", GOOD) or pytest.fail()
    _, secret = keys.create(db, "鍵", user_id=user.id)
    assert users.session(db, token) and keys.find(db, secret)
    assert users.deactivate(db, "山田").active is False
    assert users.session(db, token) is None
    assert users.sign_in(db, "山田", GOOD) is None
    assert keys.find(db, secret) is None


def test_the_last_administrator_stays_one(db: Database) -> None:
    users.add(db, "甲", "admin")
    users.add(db, "乙", "admin")
    users.deactivate(db, "甲")
    for change in (lambda: users.deactivate(db, "乙"), lambda: users.set_role(db, "乙", "member")):
        with pytest.raises(ConfigError, match="ただ一人"):
            change()
    assert users.one(db, "乙").role == "admin"


def test_two_administrators_who_deactivate_each_other_leave_one(db: Database) -> None:
    for turn in range(5):
        before = [user.id for user in users.listed(db) if user.active]
        pair = [users.add(db, f"{name}{turn}", "admin").id for name in "甲乙"]
        for other in before:
            users.deactivate(db, other)
        assert at_once(2, lambda n, pair=pair: users.deactivate(db, pair[1 - n])) == {"made": 1, "refused": 1}


def test_a_new_password_ends_what_was_open(db: Database) -> None:
    users.add(db, "山田", password=GOOD)
    _, token = users.sign_in(db, "山田", GOOD) or pytest.fail()
    users.set_password(db, "山田", GOOD + "二")
    assert users.session(db, token) is None
    assert users.sign_in(db, "山田", GOOD) is None
    assert users.sign_in(db, "山田", GOOD + "二")


@pytest.mark.parametrize(
    ("name", "role", "password", "said"),
    [
        ("", "member", None, "名前"),
        (" 山田", "member", None, "名前"),
        ("a/b", "member", None, "名前"),
        ("a\n", "member", None, "名前"),
        ("あ" * 101, "member", None, "名前"),
        ("山田", "Admin", None, "admin"),
        ("山田", "member", "short", "12 文字"),
        ("山田", "member", "長" * 1025, "1024 文字"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_made(db: Database, name: str, role: str, password: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        users.add(db, name, role, password)
    assert users.listed(db) == []


def test_a_role_is_changed_and_one_who_is_not_there_is_told(db: Database) -> None:
    users.add(db, "山田")
    assert users.set_role(db, "山田", "auditor").role == "auditor"
    with pytest.raises(ConfigError, match="役割"):
        users.set_role(db, "山田", "root")
    with pytest.raises(MissingError, match="鈴木"):
        users.set_role(db, "鈴木", "member")


def test_a_password_costs_what_it_should() -> None:
    """RFC 9106: argon2id with 64 MiB, 3 passes, 4 lanes."""
    assert REAL().hash("x").startswith("$argon2id$v=19$m=65536,t=3,p=4$")
