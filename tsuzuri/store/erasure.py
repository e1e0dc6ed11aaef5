"""A person is erased: name, password, sessions, keys, stored answers, and what they said where the audit kept it.

In: a name or an id. Out: how much there was. Ledger and audit stay whole and go on naming a random id, behind which nobody stands any more.
What a record of the audit itself holds (the address a request came from, what a client sent as its `user` or `metadata`) cannot be taken out of
the chain: it goes with `audit.prune`. So does what backups hold with the backups, and a prefix cache with its folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import Connection, delete, or_, select, update

from tsuzuri.errors import MissingError
from tsuzuri.store import attempts, audit, responses, sealed, users
from tsuzuri.store import tables as t
from tsuzuri.store.audit import OPERATOR
from tsuzuri.store.database import Database
from tsuzuri.store.tables import now_ms


@dataclass(frozen=True, slots=True)
class Erased:
    user: str  # the id that ledger and audit go on naming
    keys: int
    responses: int
    contents: int  # of the audit


def erase(db: Database, who: str, *, by: str = OPERATOR) -> Erased:
    """In one transaction, and then from the files (`sealed.wipe`). A request that was under way may still write what it said: by its id a
    person can be erased again. Raises MissingError, ConfigError for the last administrator, BusyError where somebody still reads."""
    try:
        name, user_id = (found := users.one(db, who)).name, found.id
    except MissingError:
        if not _known(db, who):
            raise
        name, user_id = None, who
    with db.write() as connection:
        if name is not None:
            users.leave(connection, user_id)
        own = [*connection.execute(select(t.keys.c.id).where(t.keys.c.user_id == user_id)).scalars()]
        erased = Erased(user_id, len(own), _responses(connection, user_id, own), _contents(db, connection, user_id, own))
        owners = [user_id, f"user:{user_id}", *own, *(f"key:{key}" for key in own)]
        for table, column in ((t.turns, t.turns.c.owner), (t.limits, t.limits.c.owner)):
            connection.execute(delete(table).where(column.in_(owners)))
        connection.execute(delete(t.sessions).where(t.sessions.c.user_id == user_id))
        # a key of somebody else's cannot have taken the place of one of theirs, but the constraint does not know that
        connection.execute(update(t.keys).where(t.keys.c.replaces.in_(own)).values(replaces=None))
        connection.execute(delete(t.keys).where(t.keys.c.user_id == user_id))
        if name is not None:
            attempts.forget(db, connection, name)
            connection.execute(delete(t.users).where(t.users.c.id == user_id))
        said = {"by": by, "user": user_id, "keys": erased.keys, "responses": erased.responses, "contents": erased.contents}
        audit.append(db, "user.erased", said, connection=connection, now=now_ms())
    sealed.wipe(db)
    return erased


def _known(db: Database, user_id: str) -> bool:
    """Whether somebody of that id was erased before."""
    return any(record.kind == "user.erased" and record.body["user"] == user_id for record in audit.records(db))


def _responses(connection: Connection, user_id: str, own: list[str]) -> int:
    owners = [f"user {user_id}", *(f"key {key}" for key in own)]
    ids = connection.execute(select(t.responses.c.id).where(t.responses.c.owner.in_(owners))).scalars().all()
    for id in ids:
        sealed.forget(connection, responses.TABLE, id)
    connection.execute(delete(t.responses).where(t.responses.c.owner.in_(owners)))
    return len(ids)


def _contents(db: Database, connection: Connection, user_id: str, own: list[str]) -> int:
    """Of records that name the person, or a key of theirs: keys that were erased before are named with the person, too."""
    query = select(t.audit.c.seq, t.audit.c.record).join(t.audit_contents, t.audit_contents.c.seq == t.audit.c.seq)
    named = or_(t.audit.c.record.contains(user_id, autoescape=True), *(t.audit.c.record.contains(key, autoescape=True) for key in own))
    theirs = []
    for seq, record in connection.execute(query.where(named)):
        body = json.loads(record)["body"]
        if body.get("user") == user_id or body.get("key") in own:
            theirs.append(seq)
    for seq in theirs:
        audit.erase_in(db, connection, seq)
    return len(theirs)
