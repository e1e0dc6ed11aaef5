"""People: who they are, how they sign in, what role they have; and the first administrator.

In: names, passwords, tokens. Out: a `User`, or None for anything that is not quite right. Kept of a password is argon2id (over an HMAC
under the pepper), of a session and of an invitation an HMAC. There is no default user and no default password: the first
administrator is made with a one-time token that the server prints on its console, and a unique column decides who that is.
Deactivation holds from the next request on, keys included. What a role may do is decided where it is asked (serve).
"""

from __future__ import annotations

import hmac
import re
import secrets
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, TypeAlias

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from sqlalchemy import Connection, Row, Select, delete, exc, insert, or_, select, update

from tsuzuri.errors import ConfigError, MissingError, Words
from tsuzuri.folder import suggestion
from tsuzuri.store import audit
from tsuzuri.store.audit import OPERATOR
from tsuzuri.store.database import Database
from tsuzuri.store.keys import Key
from tsuzuri.store.tables import invitations, now_ms, sessions, users

ROLES = ("member", "auditor", "admin")
SHORTEST, LONGEST = 12, 1024  # characters of a password
HOUR = 3_600_000
MINUTE = 60_000
SESSION_MS = 12 * HOUR
IDLE_MS = HOUR
INVITATION_MS = 24 * HOUR
PEOPLE = frozenset({"chat", "embeddings", "documents", "tools"})
SCOPES_OF = {"member": PEOPLE, "auditor": PEOPLE | {"audit"}, "admin": PEOPLE | {"audit", "admin"}}  # what keys that they make may have


@dataclass(frozen=True, slots=True)
class User:
    id: str
    name: str  # NFKC, lower case: two that look alike are one
    role: str
    active: bool
    created_at: int


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is signed in: asked the same things as a `Key`, and never taken for one. `session`: which of theirs, for the audit."""

    user: User
    session: str

    @property
    def id(self) -> str:
        return self.user.id

    @property
    def user_id(self) -> str:
        return self.user.id

    @property
    def scopes(self) -> frozenset[str]:
        return SCOPES_OF[self.user.role]

    models: ClassVar[None] = None
    addresses: ClassVar[tuple[str, ...]] = ()
    requests_per_minute: ClassVar[None] = None
    tokens_per_minute: ClassVar[None] = None
    concurrent: ClassVar[None] = None
    expires_at: ClassVar[None] = None


Who: TypeAlias = Key | Person  # whoever asks


# ── the first administrator


def invite(db: Database, now: int | None = None) -> str | None:
    """A one-time token for the first administrator, valid for a day; None where there is one already."""
    now = now_ms() if now is None else now
    token = f"tszfirst_{secrets.token_urlsafe(32)}"
    with db.write() as connection:
        if connection.execute(select(users.c.id).where(users.c.first == 1)).first():
            return None
        row = {"hash": _hash(db, "invitation", token), "created_at": now, "expires_at": now + INVITATION_MS}
        connection.execute(insert(invitations).values(**row))
    return token


def invited(db: Database, token: str, now: int | None = None) -> bool:
    """Whether the token is good as it looks now; `first_administrator` decides."""
    with db.read() as connection:
        return connection.execute(_valid(db, token, now_ms() if now is None else now)).first() is not None


def _valid(db: Database, token: str, now: int) -> Select[Any]:
    right = invitations.c.hash == _hash(db, "invitation", token)
    return select(invitations.c.hash).where(right, invitations.c.used_at.is_(None), invitations.c.expires_at > now)


def first_administrator(db: Database, token: str, name: str, password: str, now: int | None = None) -> User:
    """Uses up the token. Of many at once exactly one succeeds; the others, and whoever has no valid token, get a ConfigError."""
    now = now_ms() if now is None else now
    asked = Words("最初の管理者を登録しようとしました。", "Making the first administrator.")
    row = _row(db, name, "admin", password, now)
    try:
        with db.write() as connection:
            used = connection.execute(
                update(invitations)
                .where(
                    invitations.c.hash == _hash(db, "invitation", token), invitations.c.used_at.is_(None), invitations.c.expires_at > now
                )
                .values(used_at=now)
            )
            if used.rowcount != 1:
                raise ConfigError(
                    asked,
                    found=Words("トークンが違うか、使用済みか、期限切れです。", "The token is wrong, used or expired."),
                    todo=Words("サーバーの画面に出ている新しいトークンを使ってください。", "Use the newest one on the server's console."),
                )
            said = {"by": row["id"], "user": row["id"], "role": "admin", "first": True}
            audit.append(db, "user.added", said, connection=connection, now=now)
            connection.execute(insert(users).values(**row, first=1))  # the constraint decides, not the look before it
    except exc.IntegrityError as error:
        raise ConfigError(
            asked,
            found=Words("もう登録されているか、その名前が使われています。", "There is one already, or the name is taken."),
            todo=Words("管理者に利用者を追加してもらってください。", "Ask the administrator to add you."),
        ) from error
    return _user(row)


# ── people


def add(db: Database, name: str, role: str = "member", password: str | None = None, *, by: str = OPERATOR, now: int | None = None) -> User:
    """A new user; without a password nobody signs in under the name, and keys can be made for it. Raises ConfigError."""
    now = now_ms() if now is None else now
    row = _row(db, name, role, password, now)
    try:
        with db.write() as connection:
            none_yet = role == "admin" and not connection.execute(select(users.c.id).where(users.c.first == 1)).first()
            connection.execute(insert(users).values(**row, first=1 if none_yet else None))
            audit.append(db, "user.added", {"by": by, "user": row["id"], "role": role}, connection=connection, now=now)
    except exc.IntegrityError as error:
        raise _wrong(
            name, Words("その名前はもう使われています。", "The name is taken."), Words("別の名前にしてください。", "Take another.")
        ) from error
    return _user(row)


def listed(db: Database) -> list[User]:
    """All of them by name, deactivated ones too."""
    with db.read() as connection:
        return [_user(row._mapping) for row in connection.execute(select(users).order_by(users.c.name))]


def one(db: Database, who: str) -> User:
    """By name or id. Raises MissingError."""
    with db.read() as connection:
        return _user(_one(connection, who)._mapping)


def set_role(db: Database, who: str, role: str, *, by: str = OPERATOR) -> User:
    """The last active administrator stays one: ConfigError."""
    return change(db, who, role=role, by=by)


def set_password(db: Database, who: str, password: str, *, by: str = OPERATOR) -> User:
    """Ends the sessions that are open. Raises ConfigError, MissingError."""
    return change(db, who, password=password, by=by)


def deactivate(db: Database, who: str, *, by: str = OPERATOR) -> User:
    """From the next request on neither password, session nor key of theirs opens anything. The last administrator: ConfigError."""
    return change(db, who, active=False, by=by)


def change(
    db: Database, who: str, role: str | None = None, password: str | None = None, active: bool = True, *, by: str = OPERATOR
) -> User:
    """The only way in which a role, a password or `active` (which is never given back) changes; all that is asked, or nothing."""
    if role is not None:
        _check_role(who, role)
    hashed = None if password is None else _password(db, who, password)
    with db.write() as connection:
        found = _one(connection, who)
        if (role is not None and role != "admin") or not active:
            _check_not_last(connection, found)
        here = update(users).where(users.c.id == found.id)
        if role is not None:
            connection.execute(here.values(role=role))
            audit.append(db, "user.role", {"by": by, "user": found.id, "before": found.role, "role": role}, connection=connection)
        if hashed is not None:
            connection.execute(here.values(password=hashed))
            audit.append(db, "user.password", {"by": by, "user": found.id}, connection=connection)
        if not active:
            connection.execute(here.values(active=False))
            audit.append(db, "user.deactivated", {"by": by, "user": found.id}, connection=connection)
        if hashed is not None or not active:
            connection.execute(delete(sessions).where(sessions.c.user_id == found.id))
        return _user(_one(connection, found.id)._mapping)


def leave(connection: Connection, user_id: str) -> None:
    """Somebody is about to be erased: not the last administrator (ConfigError), and who was the first hands that on, so that nobody is invited
    to become it again."""
    found = _one(connection, user_id)
    if found.role == "admin":
        _check_not_last(connection, found)
    if found.first:
        connection.execute(update(users).where(users.c.id == user_id).values(first=None))
        others = (
            select(users.c.id).where(users.c.role == "admin", users.c.id != user_id).order_by(users.c.active.desc(), users.c.created_at)
        )
        next_one = connection.execute(others).scalars().first()
        connection.execute(update(users).where(users.c.id == next_one).values(first=1))


# ── signing in


def sign_in(
    db: Database,
    name: str,
    password: str,
    now: int | None = None,
    lasts_ms: int = SESSION_MS,
    *,
    address: str | None = None,
    instead: str | None = None,
) -> tuple[User, str] | None:
    """The user and a session token, shown once; None for a wrong name, a wrong password and a deactivated user alike, in like time.

    `instead`: the token of a session that this one takes the place of. How often it may be tried is for `attempts` to say.
    """
    now = now_ms() if now is None else now
    with db.read() as connection:
        found = connection.execute(select(users).where(users.c.name == spelled(name))).first()
    right = _matches(db, found.password if found else None, password)
    token = f"tszsess_{secrets.token_urlsafe(32)}"
    with db.write() as connection:
        # deactivated, or given another password, while this one was looked at
        still = select(users.c.active, users.c.password).where(users.c.id == (found.id if found else "")).with_for_update()
        row = connection.execute(still).first()
        if found is None or not right or row is None or not row.active or row.password != found.password:
            said = {"user": found.id if found else None, "address": address}
            audit.append(db, "user.refused", said, connection=connection, now=now)
            return None
        gone = [sessions.c.expires_at <= now, sessions.c.seen_at <= now - IDLE_MS]
        if instead is not None:
            gone.append(sessions.c.hash == _hash(db, "session", instead))
        connection.execute(delete(sessions).where(or_(*gone)))
        times = {"created_at": now, "expires_at": now + lasts_ms, "seen_at": now}
        connection.execute(insert(sessions).values(hash=_hash(db, "session", token), user_id=found.id, **times))
        audit.append(db, "user.signed_in", {"user": found.id, "address": address}, connection=connection, now=now)
    return _user(found._mapping), token


def session(db: Database, token: str, now: int | None = None) -> Person | None:
    """Whose session it is: as long as it lasts, is used now and then, and they are active. Notes the use, to the minute."""
    now = now_ms() if now is None else now
    hashed = _hash(db, "session", token)
    query = select(users, sessions.c.seen_at).join(sessions, sessions.c.user_id == users.c.id)
    with db.read() as connection:
        valid = (sessions.c.hash == hashed, sessions.c.expires_at > now, sessions.c.seen_at > now - IDLE_MS, users.c.active.is_(True))
        found = connection.execute(query.where(*valid)).first()
    if found is None:
        return None
    if now - found.seen_at >= MINUTE:
        with db.write() as connection:
            connection.execute(update(sessions).where(sessions.c.hash == hashed).values(seen_at=now))
    return Person(_user(found._mapping), hashed[:6].hex())


def csrf(db: Database, token: str) -> str:
    """What a page must send along with the session's cookie to change anything: another site's page cannot read it."""
    return _hash(db, "csrf", token).hex()


def knows(db: Database, who: str, password: str) -> bool:
    """Whether it is their password."""
    with db.read() as connection:
        found = _one(connection, who)
    return _matches(db, found.password, password) and bool(found.active)


def sign_out(db: Database, token: str) -> None:
    with db.write() as connection:
        connection.execute(delete(sessions).where(sessions.c.hash == _hash(db, "session", token)))


# ── below


def _row(db: Database, name: str, role: str, password: str | None, now: int) -> dict[str, Any]:
    shown = spelled(name)
    if (
        not re.fullmatch(r"[^\s\x00-\x20\x7f/:]([^\x00-\x1f\x7f/:]{0,98}[^\s\x00-\x20\x7f/:])?", shown)
        or not shown.isprintable()
        or shown.startswith("user_")
    ):
        raise _wrong(
            name,
            Words(
                "名前が空か、長すぎるか、使えない文字を含みます。", "The name is empty, too long, or has characters that cannot be used."
            ),
            Words(
                "100 文字以内で、/ と : を含まず、user_ で始まらない名前にしてください。",
                "Take one of up to 100 characters without / and :, and not beginning with user_.",
            ),
        )
    _check_role(name, role)
    hashed = None if password is None else _password(db, name, password)
    return {"id": f"user_{secrets.token_hex(12)}", "name": shown, "password": hashed, "role": role, "active": True, "created_at": now}


def spelled(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _user(row: Any) -> User:
    return User(**{field: row[field] for field in User.__dataclass_fields__})


def _one(connection: Connection, who: str) -> Row[Any]:
    row = connection.execute(select(users).where(or_(users.c.id == who, users.c.name == spelled(who)))).first()
    if row is None:
        raise MissingError(
            Words(f"利用者「{who}」を探しました。", f"Looking for the user '{who}'."),
            found=Words("その利用者はいません。", "There is no such user."),
            todo=Words("tsuzuri users list で確かめてください。", "See tsuzuri users list."),
        )
    return row


def _check_role(name: str, role: str) -> None:
    if role not in ROLES:
        found = Words(
            f"「{role}」という役割はありません。あるのは {'、'.join(ROLES)} です。",
            f"There is no role '{role}'. There is {', '.join(ROLES)}.",
        )
        raise _wrong(name, found, suggestion(role, list(ROLES)))


def _check_not_last(connection: Connection, found: Row[Any]) -> None:
    """Whoever asks holds the rows of all administrators: two who deactivate each other do it one after the other."""
    administrators = select(users.c.id).where(users.c.role == "admin", users.c.active.is_(True)).order_by(users.c.id).with_for_update()
    if connection.execute(administrators).scalars().all() == [found.id]:
        raise _wrong(
            found.name,
            Words("ただ一人の管理者です。", "There is no other administrator."),
            Words("先に別の管理者を決めてください。", "Make another one first."),
        )


def _password(db: Database, name: str, password: str) -> str:
    if not SHORTEST <= len(password) <= LONGEST:
        raise _wrong(
            name,
            Words(f"パスワードは {SHORTEST} 文字以上 {LONGEST} 文字以下です。", f"A password has {SHORTEST} to {LONGEST} characters."),
            Words("言葉をいくつか並べたものなどにしてください。", "Take a few words in a row, for example."),
        )
    return _hasher().hash(_peppered(db, password))


def _matches(db: Database, hashed: str | None, password: str) -> bool:
    """In like time where there is no such user: the same work is done on a hash that nothing matches."""
    nobody = _nobody()  # made once, whoever asks first
    try:
        _hasher().verify(hashed or nobody, _peppered(db, password[: LONGEST + 1]))
    except VerifyMismatchError:
        return False
    return hashed is not None


def _peppered(db: Database, password: str) -> str:
    return _hash(db, "password", unicodedata.normalize("NFC", password)).hex()


def _hash(db: Database, purpose: str, value: str) -> bytes:
    return hmac.digest(db.secrets.derived(purpose), value.encode("utf-8", "surrogatepass"), "sha256")


@cache
def _hasher() -> PasswordHasher:
    return PasswordHasher()  # argon2id, RFC 9106's second choice: 64 MiB, 3 passes, 4 lanes


@cache
def _nobody() -> str:
    return _hasher().hash(secrets.token_hex(32))


def _wrong(name: str, found: Words, todo: Words) -> ConfigError:
    return ConfigError(Words(f"利用者「{name}」を変えようとしました。", f"Changing the user '{name}'."), found=found, todo=todo)
