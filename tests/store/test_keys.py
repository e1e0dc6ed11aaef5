"""API keys: what opens, what does not, and what a thief of the database has. On both databases."""

from __future__ import annotations

import base64
import secrets
from dataclasses import asdict, replace

import pytest
from sqlalchemy import insert, select, update

from tsuzuri.errors import ConfigError, MissingError
from tsuzuri.store import keys
from tsuzuri.store.database import Database
from tsuzuri.store.keys import DAY, Key, Refused
from tsuzuri.store.tables import keys as table
from tsuzuri.store.tables import users

NOW = 1_700_000_000_000


def add_user(db: Database, active: bool = True) -> str:
    identity = f"user_{secrets.token_hex(4)}"
    with db.write() as connection:
        connection.execute(insert(users).values(id=identity, name=identity, role="member", active=active, created_at=NOW))
    return identity


def test_a_new_key_opens_and_says_what_it_may_do(db: Database) -> None:
    made, secret = keys.create(db, "受付", scopes=["chat", "embeddings"], models=["small"], requests_per_minute=60, now=NOW)
    found = keys.find(db, secret, now=NOW)
    assert found is not None
    assert replace(found, last_used_at=None) == made
    assert found.allows("chat", "small") and found.allows("embeddings")
    assert not found.allows("chat", "large") and not found.allows("admin")
    assert found.requests_per_minute == 60 and found.tokens_per_minute is None


def test_a_secret_has_256_random_bits(db: Database) -> None:
    made = {keys.create(db, "多")[1] for _ in range(20)}
    assert len({secret[17:] for secret in made}) == 20
    for secret in made:
        assert keys.SHAPE.fullmatch(secret)
        assert len(base64.urlsafe_b64decode(secret[17:] + "=")) == 32


@pytest.mark.parametrize("change", ["first", "last", "short", "prefix", "empty", "other", "newline"])
def test_a_secret_with_anything_changed_opens_nothing_and_says_nothing(db: Database, change: str) -> None:
    _, secret = keys.create(db, "元")
    _, other = keys.create(db, "他")
    flip = {"A": "B"}
    changed = {
        "first": secret[:17] + flip.get(secret[17], "A") + secret[18:],
        "last": secret[:-1] + flip.get(secret[-1], "A"),
        "short": secret[:-1],
        "prefix": secret[:16],
        "empty": "",
        "other": other[:17] + secret[17:],
        "newline": secret + "\n",
    }[change]
    assert keys.find(db, changed) is None
    assert isinstance(keys.judge(db, changed), Refused)
    assert keys.find(db, secret) is not None


def test_every_reason_of_refusal_is_told_to_the_audit(db: Database) -> None:
    user = add_user(db)
    key, secret = keys.create(db, "元", user_id=user, addresses=["10.0.0.0/8"], expires_at=NOW + DAY, now=NOW)
    wrong = secret[:17] + "A" * 43
    unknown = f"tsz_{'a' * 12}_{'A' * 43}"
    assert keys.judge(db, "sk-nothing", now=NOW) == Refused("malformed")
    assert keys.judge(db, unknown, now=NOW) == Refused("unknown")
    assert keys.judge(db, wrong, now=NOW) == Refused("wrong", key.id)
    assert keys.judge(db, secret, "192.168.0.1", now=NOW) == Refused("address", key.id)
    assert keys.judge(db, secret, None, now=NOW) == Refused("address", key.id)
    assert keys.judge(db, secret, "10.9.9.9", now=NOW + DAY) == Refused("expired", key.id)
    assert isinstance(keys.judge(db, secret, "10.9.9.9", now=NOW + DAY - 1), Key)
    with db.write() as connection:
        connection.execute(update(users).where(users.c.id == user).values(active=False))
    assert keys.judge(db, secret, "10.9.9.9", now=NOW) == Refused("owner", key.id)
    keys.revoke(db, key.id, now=NOW)
    assert keys.judge(db, secret, "10.9.9.9", now=NOW) == Refused("revoked", key.id)


@pytest.mark.parametrize(
    ("networks", "sender", "within"),
    [
        (["10.0.0.0/8"], "10.255.255.255", True),
        (["10.0.0.0/8"], "11.0.0.0", False),
        (["10.0.0.0/8"], "::ffff:10.1.1.1", True),
        (["10.0.0.0/8"], "::ffff:11.1.1.1", False),
        (["10.0.0.0/8"], "0x0a.1.1.1", False),
        (["10.0.0.0/8"], "010.1.1.1", False),
        (["10.0.0.0/8"], "testclient", False),
        (["2001:db8::/32", "192.168.1.7"], "2001:db8::1", True),
        (["2001:db8::/32", "192.168.1.7"], "192.168.1.7", True),
        (["2001:db8::/32", "192.168.1.7"], "192.168.1.8", False),
        ([], "8.8.8.8", True),
        ([], None, True),
    ],
)
def test_addresses(db: Database, networks: list[str], sender: str | None, within: bool) -> None:
    _, secret = keys.create(db, "所", addresses=networks)
    assert (keys.find(db, secret, sender) is not None) is within


def test_a_revocation_holds_from_the_next_request_on(db: Database) -> None:
    key, secret = keys.create(db, "元")
    assert keys.find(db, secret) is not None
    gone = keys.revoke(db, key.prefix)
    assert gone.revoked_at is not None
    assert keys.find(db, secret) is None
    assert keys.revoke(db, key.id).revoked_at == gone.revoked_at


def test_after_a_rotation_both_work_for_the_overlap_and_then_the_new_one_alone(db: Database) -> None:
    key, old = keys.create(db, "元", scopes=["chat"], models=["a", "あ"], concurrent=2, now=NOW)
    new_key, new = keys.rotate(db, key.id, overlap_ms=1000, now=NOW)
    assert new_key.replaces == key.id
    same = ("name", "scopes", "models", "addresses", "concurrent", "user_id")
    assert [getattr(new_key, name) for name in same] == [getattr(key, name) for name in same]
    assert keys.find(db, old, now=NOW + 999) and keys.find(db, new, now=NOW + 999)
    assert keys.find(db, old, now=NOW + 1000) is None
    assert keys.find(db, new, now=NOW + 1000) is not None


def test_a_rotation_never_makes_the_old_key_last_longer_nor_wakes_a_dead_one(db: Database) -> None:
    key, old = keys.create(db, "元", expires_at=NOW + 500, now=NOW)
    new_key, _ = keys.rotate(db, key.id, overlap_ms=DAY, now=NOW)
    assert keys.find(db, old, now=NOW + 500) is None
    assert new_key.expires_at == NOW + 500
    with pytest.raises(ConfigError, match="もう使えない"):
        keys.rotate(db, key.id, now=NOW + 500)
    keys.revoke(db, new_key.id, now=NOW)
    with pytest.raises(ConfigError, match="もう使えない"):
        keys.rotate(db, new_key.id, now=NOW)


def test_the_last_use_is_known_to_the_minute(db: Database) -> None:
    key, secret = keys.create(db, "元", now=NOW)
    assert keys.one(db, key.id).last_used_at is None
    for when, noted in ((0, 0), (59_999, 0), (60_000, 60_000)):
        keys.find(db, secret, now=NOW + when)
        assert keys.one(db, key.id).last_used_at == NOW + noted
    keys.find(db, secret[:-1] + "x", now=NOW + 200_000)
    assert keys.one(db, key.id).last_used_at == NOW + 60_000


def test_nothing_in_a_row_opens(db: Database) -> None:
    """Pass the hash: what a dump of the table holds, in every form one might send it."""
    _, secret = keys.create(db, "元")
    with db.read() as connection:
        row = connection.execute(select(table)).one()
    assert secret.encode() not in bytes(row.hash) and secret[17:] not in repr(row)
    for stolen in (
        bytes(row.hash).hex(),
        base64.urlsafe_b64encode(bytes(row.hash)).decode().rstrip("="),
        bytes(row.hash).decode("latin-1"),
    ):
        for sent in (stolen, f"tsz_{row.prefix}_{stolen}"):
            assert keys.find(db, sent) is None


def test_the_hash_needs_the_pepper(db: Database) -> None:
    """A row copied into an installation with another pepper opens nothing there."""
    _, secret = keys.create(db, "元")
    assert keys.find(db, secret) is not None
    db.secrets._read["pepper"] = secrets.token_bytes(32)
    assert keys.find(db, secret) is None


def test_a_key_shows_neither_secret_nor_hash(db: Database) -> None:
    made, secret = keys.create(db, "元")
    found = keys.listed(db)
    assert found == [made]
    assert secret[17:] not in repr(found) and "hash" not in asdict(made)


def test_a_key_may_do_no_more_than_that_of_its_maker(db: Database) -> None:
    maker, _ = keys.create(db, "親", scopes=["chat", "admin"], models=["a"], expires_at=NOW + DAY, now=NOW)
    keys.create(db, "子", scopes=["chat"], models=["a"], expires_at=NOW + DAY, within=maker, now=NOW)
    for more in ({"scopes": ["audit"]}, {"models": ["a", "b"]}, {"models": None}, {"expires_at": NOW + DAY + 1}, {"expires_at": None}):
        with pytest.raises(ConfigError, match="作る人にない"):
            keys.create(db, "子", **{"models": ["a"], "expires_at": NOW + DAY, "within": maker, "now": NOW, **more})
    assert len(keys.listed(db)) == 2


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"scopes": ["chta"]}, "chat"),
        ({"addresses": ["10.0.0.1/8"]}, "10.0.0.1/8"),
        ({"addresses": ["どこか"]}, "範囲"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"tokens_per_minute": -1}, "tokens_per_minute"),
        ({"concurrent": 1 << 60}, "concurrent"),
        ({"expires_at": 5}, "期限"),
        ({"name": " "}, "名前"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_made(db: Database, fields: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        keys.create(db, **{"name": "元", **fields})
    assert keys.listed(db) == []


def test_a_key_for_nobody_or_for_one_who_is_deactivated_is_refused(db: Database) -> None:
    for user in ("user_none", add_user(db, active=False)):
        with pytest.raises(MissingError, match="利用者"):
            keys.create(db, "元", user_id=user)
    mine = add_user(db)
    made, _ = keys.create(db, "元", user_id=mine)
    keys.create(db, "別")
    assert keys.listed(db, mine) == [made]


def test_a_key_that_is_not_there_is_told(db: Database) -> None:
    for ask in (keys.revoke, keys.rotate, keys.one):
        with pytest.raises(MissingError, match="key_x"):
            ask(db, "key_x")


def test_keys_that_begin_alike_are_not_confused(db: Database) -> None:
    """The whole secret counts, not its beginning."""
    _, secret = keys.create(db, "元")
    for cut in range(20, len(secret)):
        assert keys.find(db, secret[:cut] + "".join("A" if one != "A" else "B" for one in secret[cut:])) is None
