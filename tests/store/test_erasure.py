"""A person who is erased is nowhere: not in a row, not in a byte of the data or its WAL; what others said, the chain and the books stay whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from store.test_sealed import raw, spelled

from tsuzuri.errors import BusyError, ConfigError, MissingError
from tsuzuri.store import attempts, audit, database, energy, erasure, keys, ledger, responses, turns, users
from tsuzuri.store import tables as t
from tsuzuri.store.database import Database

NAME, OTHER, KEY_NAME, RENAMED = "小鳥遊七海", "御手洗健", "小鳥遊の鍵", "七海の新しい鍵"
SAID = "検査結果八一四二"
GOOD = "朝の散歩と味噌汁と新聞紙"
Trace = list[bytes]


def lived(db: Database, name: str, key_name: str) -> tuple[users.User, Trace]:
    """A person with something in every place; and every byte string by which they could be found."""
    user = users.add(db, name, password=GOOD)
    attempts.attempt(db, name, "192.0.2.1")
    _, token = users.sign_in(db, name, GOOD) or pytest.fail()
    key, _ = keys.create(db, key_name, user_id=user.id)
    new, _ = keys.rotate(db, key.id, overlap_ms=60_000)
    keys.change(db, new.id, {"name": RENAMED if name == NAME else "別の鍵"})
    turns.take(db, turns.Limits(new.id, at_once=2))
    ledger.set_limit(db, f"user:{user.id}", 1000)
    held = ledger.reserve(db, new, f"r-{user.id}", 100)
    assert isinstance(held, ledger.Reservation)
    ledger.settle(db, held, 70)
    energy.add(db, [energy.Used(new, energy.Energy(measured=5), 0)])
    ids = []
    for number, owner in enumerate((f"user {user.id}", f"key {new.id}")):
        ids.append(f"resp_{user.id}{number}")
        responses.keep(db, owner, ids[-1], {"input": [SAID], "response": {}, "previous": None}, days=30)
    seqs = []
    for body in ({"key": new.id, "user": user.id}, {"key": key.id, "user": user.id}, {"key": None, "user": user.id}):
        audit.append(db, "request", {**body, "route": "chat_completions"}, content=SAID)
        seqs.append(max(record.seq for record in audit.records(db)))
    with db.read() as connection:
        row = connection.execute(select(t.users).where(t.users.c.id == user.id)).one()
        own = connection.execute(select(t.keys).where(t.keys.c.user_id == user.id)).all()
        session = connection.execute(select(t.sessions.c.hash).where(t.sessions.c.user_id == user.id)).scalar_one()
        records = [*(f"responses/{id}" for id in ids), *(f"audit_contents/{seq}" for seq in seqs)]
        wrapped = connection.execute(select(t.data_keys.c.wrapped).where(t.data_keys.c.record.in_(records))).scalars().all()
        kept = connection.execute(select(t.responses.c.sealed).where(t.responses.c.id.in_(ids))).scalars().all()
        said = connection.execute(select(t.audit_contents.c.sealed).where(t.audit_contents.c.seq.in_(seqs))).scalars().all()
    assert (len(own), len(wrapped), len(kept), len(said)) == (2, 5, 2, 3) and token
    sealed_parts = [bytes(one)[13:45] for one in (*wrapped, *kept, *said)]
    key_names = [each.name for each in own]
    return user, [
        *(text.encode() for text in (row.name, row.password, *key_names)),
        *(bytes(each.hash) for each in own),
        *(each.prefix.encode() for each in own),
        bytes(session),
        attempts._name(db, name).encode(),
        *(id.encode() for id in ids),
        *sealed_parts,
    ]


def rows(db: Database) -> bytes:
    """Every cell of every table, as bytes: what a query could find on either database."""
    found: list[Any] = []
    with db.read() as connection:
        for table in t.metadata.sorted_tables:
            for row in connection.execute(select(table)):
                found += [bytes(cell) if isinstance(cell, bytes | memoryview) else str(cell).encode() for cell in row]
    return b"\n".join(found)


def test_nothing_of_a_person_is_left_in_any_row_and_the_rest_is_whole(db: Database) -> None:
    user, trace = lived(db, NAME, KEY_NAME)
    neighbour, others = lived(db, OTHER, "御手洗の鍵")
    there = rows(db)
    assert all(one in there for one in (*trace, *others)), "the search finds what is there"
    found = erasure.erase(db, NAME)
    assert (found.user, found.keys, found.responses, found.contents) == (user.id, 2, 2, 3)
    left = rows(db)
    assert [one for one in trace if one in left] == []
    for text in (NAME, KEY_NAME, RENAMED, SAID):
        assert all(spelling not in left for spelling in spelled(text))
    assert [one for one in others if one not in left] == [], "nobody else has lost anything"
    assert audit.verify(db).sound and ledger.verify(db) == []
    assert ledger.balance(db, f"user:{user.id}").spent == 70, "what was spent stays spent, by somebody without a name"
    assert users.sign_in(db, OTHER, GOOD) and users.one(db, neighbour.id).active
    with pytest.raises(MissingError):
        users.one(db, NAME)
    assert users.sign_in(db, NAME, GOOD) is None
    (record,) = [one for one in audit.records(db) if one.kind == "user.erased"]
    assert record.body == {"by": audit.OPERATOR, "user": user.id, "keys": 2, "responses": 2, "contents": 3}


def test_no_byte_is_left_in_the_data_directory_while_it_is_open_and_after(tmp_path: Path) -> None:
    place = tmp_path / "data"
    with database.open(place, tmp_path / "secrets") as db:
        lived(db, OTHER, "御手洗の鍵")
        _, trace = lived(db, NAME, KEY_NAME)
        before = raw(place)
        assert [one for one in trace if one not in before] == [], "the search finds what is there, in the WAL too"
        erasure.erase(db, NAME)
        during = raw(place)
    for bytes_left in (during, raw(place)):
        assert [one for one in trace if one in bytes_left] == []
        for text in (NAME, KEY_NAME, RENAMED, SAID):
            assert all(spelling not in bytes_left for spelling in spelled(text)), text


def test_somebody_who_still_reads_is_told_and_it_is_done_when_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 50)
    place = tmp_path / "data"
    with database.open(place, tmp_path / "secrets") as db:
        user, trace = lived(db, NAME, KEY_NAME)
        with db.read() as connection:
            connection.execute(select(t.users)).all()
            with pytest.raises(BusyError, match="古い状態"):
                erasure.erase(db, NAME)
        assert erasure.erase(db, user.id).keys == 0
        assert [one for one in trace if one in raw(place)] == []


def test_what_was_under_way_is_erased_by_the_id(db: Database) -> None:
    user, _ = lived(db, NAME, KEY_NAME)
    erasure.erase(db, NAME)
    audit.append(db, "request", {"key": "key_gone", "user": user.id}, content=SAID)
    seq = max(record.seq for record in audit.records(db))
    responses.keep(db, f"user {user.id}", "resp_late", {"input": [SAID], "response": {}, "previous": None}, days=30)
    found = erasure.erase(db, user.id)
    assert (found.keys, found.responses, found.contents) == (0, 1, 1)
    assert audit.content(db, seq) is None
    with pytest.raises(MissingError):
        erasure.erase(db, "user_nobody")


def test_the_last_administrator_stays_and_the_first_hands_it_on(db: Database) -> None:
    first = users.first_administrator(db, str(users.invite(db)), "山田", GOOD)
    with pytest.raises(ConfigError, match="ただ一人"):
        erasure.erase(db, "山田")
    assert users.one(db, "山田").active
    users.add(db, "佐藤", "admin", GOOD)
    erasure.erase(db, first.id)
    assert users.invite(db) is None, "nobody is invited to become the first again"
    with pytest.raises(ConfigError, match="ただ一人"):
        erasure.erase(db, "佐藤")
