"""API keys: made once, shown once, found by the HMAC of what a client sends.

In: a name and what the key may do. Out: a `Key`, and the secret (`tsz_…`, 256 random bits) that nobody can show again: kept are a public
prefix, by which it is looked up, and an HMAC-SHA-256 under the pepper, compared in constant time. What a dump of the database
holds opens nothing. A decision reads the database each time, so a revocation holds from the next request on. It counts no requests.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import json
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from sqlalchemy import Connection, Row, bindparam, insert, or_, select, update

from tsuzuri.errors import ConfigError, MissingError, Words
from tsuzuri.folder import suggestion
from tsuzuri.store import audit
from tsuzuri.store.audit import OPERATOR
from tsuzuri.store.database import Database
from tsuzuri.store.tables import keys, now_ms, users

if TYPE_CHECKING:
    from tsuzuri.store.users import Person

SCOPES = ("chat", "embeddings", "documents", "tools", "audit", "admin")
SHAPE = re.compile(r"tsz_([a-z2-7]{12})_([A-Za-z0-9_-]{43})")
PURPOSE = "api key"
MINUTE = 60_000
DAY = 24 * 60 * MINUTE

Reason: TypeAlias = Literal["malformed", "unknown", "wrong", "revoked", "expired", "owner", "address"]


@dataclass(frozen=True, slots=True)
class Key:
    """What a key may do; never the secret, nor its hash. `None` in a limit: none. Times in milliseconds since 1970."""

    id: str
    prefix: str
    name: str
    user_id: str | None
    scopes: frozenset[str]
    models: tuple[str, ...] | None
    addresses: tuple[str, ...]
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrent: int | None
    created_at: int
    expires_at: int | None
    last_used_at: int | None
    revoked_at: int | None
    replaces: str | None

    def allows(self, scope: str, model: str | None = None) -> bool:
        """`scope` and, where one is named, `model`. No scope implies another; admin neither."""
        assert scope in SCOPES, scope
        return scope in self.scopes and (model is None or self.models is None or model in self.models)


@dataclass(frozen=True, slots=True)
class Refused:
    """For the audit; a client is told nothing but that it is refused."""

    reason: Reason
    key_id: str | None = None


def create(
    db: Database,
    name: str,
    *,
    user_id: str | None = None,
    scopes: Collection[str] = ("chat",),
    models: Sequence[str] | None = None,
    addresses: Sequence[str] = (),
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    concurrent: int | None = None,
    expires_at: int | None = None,
    within: Key | Person | None = None,
    by: str = OPERATOR,
    now: int | None = None,
) -> tuple[Key, str]:
    """A new key and its secret. `within`: whoever makes it; what that one may not do, the new one may not either.
    `by`: who does it, for the audit, which is written in the same transaction.

    Raises ConfigError for an unknown scope, address, limit or model list, and for more than `within` allows; MissingError for a user
    who is not there or not active.
    """
    now = now_ms() if now is None else now
    limits = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute, "concurrent": concurrent}
    key = Key(
        id=f"key_{secrets.token_hex(12)}",
        prefix=base64.b32encode(secrets.token_bytes(8)).decode().lower()[:12],
        name=name,
        user_id=user_id,
        scopes=frozenset(scopes),
        models=None if models is None else tuple(models),
        addresses=tuple(_network(name, address) for address in addresses),
        **limits,
        created_at=now,
        expires_at=expires_at,
        last_used_at=None,
        revoked_at=None,
        replaces=None,
    )
    _check(key, now)
    if within is not None:
        _check_within(key, within)
    with db.write() as connection:
        secret = _store(db, connection, key)
        granted = {"scopes": sorted(key.scopes), "models": key.models, "addresses": key.addresses, "expires_at": key.expires_at, **limits}
        audit.append(db, "key.created", {"by": by, "key": key.id, "user": user_id, **granted}, connection=connection, now=now)
    return key, secret


_JUDGED = (  # built once: every request asks it
    select(keys, users.c.active)
    .select_from(keys.outerjoin(users, keys.c.user_id == users.c.id))
    .where(keys.c.prefix == bindparam("sought"))
)


def judge(db: Database, secret: str, address: str | None = None, now: int | None = None) -> Key | Refused:
    """The key behind what a client sent from `address`, or why there is none. It only reads; see `note`."""
    now = now_ms() if now is None else now
    shape = SHAPE.fullmatch(secret)
    if shape is None:
        return Refused("malformed")
    with db.read() as connection:
        found = connection.execute(_JUDGED, {"sought": shape[1]}).first()
    hashed = _hash(db, secret)
    if not hmac.compare_digest(hashed, bytes(found.hash) if found else hashed[::-1]):
        return Refused("wrong", found.id) if found else Refused("unknown")
    assert found is not None
    key = _key(found)
    reason = _why_not(key, found.active, address, now)
    return key if reason is None else Refused(reason, key.id)


def due(key: Key, now: int | None = None) -> bool:
    """Whether its use is to be noted: to the minute."""
    return key.last_used_at is None or (now_ms() if now is None else now) - key.last_used_at >= MINUTE


def note(db: Database, key: Key, now: int | None = None) -> None:
    """That it was used."""
    with db.write() as connection:
        connection.execute(update(keys).where(keys.c.id == key.id).values(last_used_at=now_ms() if now is None else now))


def find(db: Database, secret: str, address: str | None = None, now: int | None = None) -> Key | None:
    """`judge` for whoever needs no reason; the use is noted where that is due."""
    found = judge(db, secret, address, now)
    if isinstance(found, Refused):
        return None
    if due(found, now):
        note(db, found, now)
    return found


def rotate(
    db: Database,
    key_id: str,
    *,
    overlap_ms: int = DAY,
    within: Key | Person | None = None,
    by: str = OPERATOR,
    now: int | None = None,
) -> tuple[Key, str]:
    """A key that may do the same, and its secret; the old one works for `overlap_ms` more. Raises MissingError, ConfigError."""
    now = now_ms() if now is None else now
    with db.write() as connection:
        old = _one(connection, key_id)
        if old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= now):
            raise ConfigError(
                Words(f"キー「{key_id}」を取り替えようとしました。", f"Rotating the key '{key_id}'."),
                found=Words("もう使えないキーです。", "It is no longer valid."),
                todo=Words("tsuzuri keys create で新しく作ってください。", "Make a new one with tsuzuri keys create."),
            )
        if within is not None:
            _check_within(old, within)
        values = {name: getattr(old, name) for name in Key.__dataclass_fields__}
        fresh = {"id": f"key_{secrets.token_hex(12)}", "prefix": base64.b32encode(secrets.token_bytes(8)).decode().lower()[:12]}
        new = Key(**{**values, **fresh, "created_at": now, "last_used_at": None, "replaces": old.id})
        secret = _store(db, connection, new)
        ends = now + overlap_ms
        connection.execute(
            update(keys).where(keys.c.id == old.id, or_(keys.c.expires_at.is_(None), keys.c.expires_at > ends)).values(expires_at=ends)
        )
        said = {"by": by, "key": new.id, "replaces": old.id, "overlap_ms": overlap_ms}
        audit.append(db, "key.rotated", said, connection=connection, now=now)
    return new, secret


def revoke(db: Database, key_id: str, *, by: str = OPERATOR, now: int | None = None) -> Key:
    """From the next request on it is refused. Revoking twice changes nothing. `key_id`: its id, or its prefix. Raises MissingError."""
    now = now_ms() if now is None else now
    with db.write() as connection:
        key = _one(connection, key_id)
        done = connection.execute(update(keys).where(keys.c.id == key.id, keys.c.revoked_at.is_(None)).values(revoked_at=now))
        if done.rowcount:
            audit.append(db, "key.revoked", {"by": by, "key": key.id}, connection=connection, now=now)
        return _one(connection, key.id)


CHANGEABLE = ("name", "models", "addresses", "requests_per_minute", "tokens_per_minute", "concurrent", "expires_at")


def change(
    db: Database,
    key_id: str,
    changes: Mapping[str, Any],
    *,
    within: Key | Person | None = None,
    by: str = OPERATOR,
    now: int | None = None,
) -> Key:
    """Sets some of CHANGEABLE; never what it is for, whose it is, nor its secret. Holds from the next request on. Raises as `create`."""
    assert set(changes) <= set(CHANGEABLE), changes
    now = now_ms() if now is None else now
    with db.write() as connection:
        old = _one(connection, key_id)
        made = replace(old, **changes)
        made = replace(made, addresses=tuple(_network(made.name, address) for address in made.addresses))
        _check(made, now if "expires_at" in changes else 0)
        if within is not None:
            _check_within(made, within)
        values = {name: _cells(made)[name] for name in changes}
        if values:
            connection.execute(update(keys).where(keys.c.id == old.id).values(**values))
            # a name may be a person's, and what stands in the chain cannot be erased
            pairs = {name: "" if name == "name" else [getattr(old, name), getattr(made, name)] for name in changes}
            audit.append(db, "key.changed", {"by": by, "key": old.id, "changed": pairs}, connection=connection, now=now)
        return _one(connection, old.id)


def listed(db: Database, user_id: str | None = None) -> list[Key]:
    """All of them, or those of one user, oldest first; revoked and expired ones, too."""
    query = select(keys).order_by(keys.c.created_at, keys.c.id)
    with db.read() as connection:
        rows = connection.execute(query if user_id is None else query.where(keys.c.user_id == user_id)).all()
    return [_key(row) for row in rows]


def one(db: Database, key_id: str) -> Key:
    """By id or prefix. Raises MissingError."""
    with db.read() as connection:
        return _one(connection, key_id)


def _store(db: Database, connection: Connection, key: Key) -> str:
    secret = f"tsz_{key.prefix}_{secrets.token_urlsafe(32)}"
    if key.user_id is not None:
        active = connection.execute(select(users.c.active).where(users.c.id == key.user_id)).scalar()
        if not active:
            raise MissingError(
                Words(f"利用者「{key.user_id}」のキーを作ろうとしました。", f"Making a key for the user '{key.user_id}'."),
                found=Words("その利用者はいないか、停止されています。", "There is no such user, or a deactivated one."),
                todo=Words("tsuzuri users list で確かめてください。", "See tsuzuri users list."),
            )
    connection.execute(insert(keys).values(**_cells(key), hash=_hash(db, secret)))
    return secret


def _cells(key: Key) -> dict[str, Any]:
    """As the table keeps them."""
    row = {name: getattr(key, name) for name in Key.__dataclass_fields__}
    lists: dict[str, Any] = {
        "scopes": json.dumps(sorted(key.scopes)),
        "models": None if key.models is None else json.dumps(key.models, ensure_ascii=False),
        "addresses": json.dumps(key.addresses),
    }
    return {**row, **lists}


def _one(connection: Connection, key_id: str) -> Key:
    row = connection.execute(select(keys).where(or_(keys.c.id == key_id, keys.c.prefix == key_id))).first()
    if row is None:
        raise MissingError(
            Words(f"キー「{key_id}」を探しました。", f"Looking for the key '{key_id}'."),
            found=Words("そのキーはありません。", "There is no such key."),
            todo=Words("tsuzuri keys list で確かめてください。", "See tsuzuri keys list."),
        )
    return _key(row)


def _key(row: Row[Any]) -> Key:
    values = {name: getattr(row, name) for name in Key.__dataclass_fields__}
    models = None if row.models is None else tuple(json.loads(row.models))
    return Key(**{**values, "scopes": frozenset(json.loads(row.scopes)), "models": models, "addresses": tuple(json.loads(row.addresses))})


def _hash(db: Database, secret: str) -> bytes:
    return hmac.digest(db.secrets.derived(PURPOSE), secret.encode(), "sha256")


def _why_not(key: Key, active: bool | None, address: str | None, now: int) -> Reason | None:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and key.expires_at <= now:
        return "expired"
    if key.user_id is not None and not active:
        return "owner"
    return None if not key.addresses or _within(address, key.addresses) else "address"


def _within(address: str | None, networks: Sequence[str]) -> bool:
    """An address that cannot be told is in no network. An IPv4 address written as IPv6 is that IPv4 address."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found
    return any(found in ipaddress.ip_network(network) for network in networks)


def _network(name: str, address: str) -> str:
    try:
        return str(ipaddress.ip_network(address))
    except ValueError as error:
        raise _wrong(
            name,
            Words(f"「{address}」はアドレスの範囲ではありません。", f"'{address}' is not a range of addresses."),
            Words("例：192.168.1.0/24、2001:db8::/32", "For example 192.168.1.0/24 or 2001:db8::/32."),
        ) from error


def _check(key: Key, now: int) -> None:
    if not key.name.strip() or len(key.name) > 200:
        raise _wrong(
            key.name, Words("名前が空か、長すぎます。", "Its name is empty or too long."), Words("名前を付けてください。", "Name it.")
        )
    for scope in sorted(key.scopes):
        if scope not in SCOPES:
            found = Words(
                f"「{scope}」という権限はありません。あるのは {'、'.join(SCOPES)} です。",
                f"There is no scope '{scope}'. There is {', '.join(SCOPES)}.",
            )
            raise _wrong(key.name, found, suggestion(scope, list(SCOPES)))
    for limit in ("requests_per_minute", "tokens_per_minute", "concurrent"):
        value = getattr(key, limit)
        if value is not None and not 1 <= value < 1 << 53:
            raise _wrong(
                key.name,
                Words(f"{limit} が {value} です。", f"{limit} is {value}."),
                Words("1 以上の整数にしてください。", "Give a whole number from 1."),
            )
    if key.expires_at is not None and key.expires_at <= now:
        raise _wrong(
            key.name,
            Words("期限がもう過ぎています。", "It would have expired already."),
            Words("先の日時にしてください。", "Name a later time."),
        )


def _check_within(key: Key, maker: Key | Person) -> None:
    models = maker.models is None or (key.models is not None and set(key.models) <= set(maker.models))
    ends = maker.expires_at is None or (key.expires_at is not None and key.expires_at <= maker.expires_at)
    from_where = not maker.addresses or (bool(key.addresses) and all(_inside(one, maker.addresses) for one in key.addresses))
    pairs = [(getattr(key, limit), getattr(maker, limit)) for limit in ("requests_per_minute", "tokens_per_minute", "concurrent")]
    limits = all(most is None or (given is not None and given <= most) for given, most in pairs)
    if not (key.scopes <= maker.scopes and models and ends and from_where and limits):
        raise _wrong(
            key.name,
            Words(
                "作る人にない権限・モデル・期限・接続元・上限を含みます。",
                "It asks for scopes, models, a time, addresses or limits that whoever makes it lacks.",
            ),
            Words("その範囲にとどめてください。", "Stay within those."),
        )


def _inside(network: str, networks: Sequence[str]) -> bool:
    found = ipaddress.ip_network(network)
    return any(found.version == other.version and found.subnet_of(other) for other in map(ipaddress.ip_network, networks))  # type: ignore[arg-type]


def _wrong(name: str, found: Words, todo: Words) -> ConfigError:
    return ConfigError(Words(f"キー「{name}」を作ろうとしました。", f"Making the key '{name}'."), found=found, todo=todo)
