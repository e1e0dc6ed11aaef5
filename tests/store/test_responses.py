"""Answers that are kept: for their owner, for their time, sealed; and erased to the last byte. On both databases."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert, select, update
from store.test_sealed import raw, spelled

from tsuzuri.errors import ConfigError, FormatError, InputError
from tsuzuri.store import backup, database, keys, responses, sealed
from tsuzuri.store.database import Database
from tsuzuri.store.tables import data_keys, facts, metadata
from tsuzuri.store.tables import responses as table

ME, OTHER = "user u1", "user u2"
SAID = "合言葉は朝焼けの灯台です"


def keep(db: Database, id: str, previous: str | None = None, text: str = SAID, owner: str = ME, now: int = 0) -> dict[str, object]:
    value = {"input": [{"text": text}], "response": {"id": id}, "previous": previous}
    responses.keep(db, owner, id, value, days=1, now=now)
    return value


def test_it_is_there_for_its_owner_and_for_its_time(db: Database) -> None:
    value = keep(db, "a")
    assert responses.find(db, ME, "a", now=responses.DAY - 1) == value
    for owner, id, now in ((OTHER, "a", 1), (ME, "b", 1), (ME, "a", responses.DAY)):
        assert responses.find(db, owner, id, now=now) is None
        assert responses.conversation(db, owner, id, now=now) is None


def test_a_conversation_is_all_that_leads_to_it(db: Database) -> None:
    made = [keep(db, "a"), keep(db, "b", "a"), keep(db, "c", "b")]
    keep(db, "d", "b")
    assert responses.conversation(db, ME, "c", now=1) == made
    assert responses.erase(db, ME, "b")
    assert responses.conversation(db, ME, "c", now=1) is None, "what is erased is not gone on from"
    assert responses.conversation(db, ME, "a", now=1) == made[:1]


def test_a_conversation_has_an_end(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(db, "a")
    keep(db, "b", "a")
    for name in ("LONGEST", "LONGEST_BYTES"):
        with monkeypatch.context() as patched:
            patched.setattr(responses, name, 1)
            with pytest.raises(InputError, match="新しい会話"):
                responses.conversation(db, ME, "b", now=1)


def test_nobody_keeps_without_end(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(db, "a")
    responses.check_room(db, ME, now=1)
    for name in ("MOST", "MOST_BYTES"):
        with monkeypatch.context() as patched:
            patched.setattr(responses, name, 1)
            with pytest.raises(ConfigError, match="削除"):
                responses.check_room(db, ME, now=1)
            responses.check_room(db, OTHER, now=1)
            responses.check_room(db, ME, now=responses.DAY)


def test_only_its_owner_erases_it_and_only_once(db: Database) -> None:
    value = keep(db, "a")
    assert not responses.erase(db, OTHER, "a")
    assert responses.find(db, ME, "a", now=1) == value
    assert responses.erase(db, ME, "a") and not responses.erase(db, ME, "a")
    with db.read() as connection:
        assert connection.execute(select(data_keys.c.record).where(data_keys.c.record == "responses/a")).first() is None


def test_what_has_had_its_time_is_erased(db: Database) -> None:
    keep(db, "a")
    late = keep(db, "b", now=1)
    assert responses.prune(db, now=responses.DAY) == 1
    with db.read() as connection:
        assert connection.execute(select(table.c.id)).scalars().all() == ["b"]
        assert connection.execute(select(data_keys.c.record)).scalars().all() == ["responses/b"]
    assert responses.find(db, ME, "b", now=2) == late
    assert responses.prune(db, now=responses.DAY) == 0


def test_put_in_anothers_place_it_does_not_open(db: Database) -> None:
    keep(db, "a")
    keep(db, "b", owner=OTHER)
    with db.write() as connection:
        stolen = connection.execute(select(table.c.sealed).where(table.c.id == "b")).scalar_one()
        connection.execute(update(table).where(table.c.id == "a").values(sealed=bytes(stolen)))
    with pytest.raises(FormatError):
        responses.find(db, ME, "a", now=1)


def test_a_backup_holds_them_and_a_restored_one_opens(
    db: Database, another: Callable[[str], str | Path], secret_place: Path, tmp_path: Path
) -> None:
    value = keep(db, "a")
    backup.backup(db, tmp_path / "backup")
    place = another(db.dialect)
    backup.restore(tmp_path / "backup", place, secret_place)
    with database.open(place, secret_place) as other:
        assert responses.find(other, ME, "a", now=1) == value


def test_in_the_bytes_of_the_data_it_is_never_found_and_erased_no_byte_of_it_is(tmp_path: Path) -> None:
    place = tmp_path / "data"
    with database.open(place, tmp_path / "secrets") as db:
        for number in range(50):
            keep(db, f"resp_{number:024x}", text=f"{SAID}{number}" * 200)
        last = f"resp_{7:024x}"
        with db.read() as connection:
            kept = bytes(connection.execute(select(table.c.sealed).where(table.c.id == last)).scalar_one())
            wrapped = bytes(connection.execute(select(data_keys.c.wrapped).where(data_keys.c.record == f"responses/{last}")).scalar_one())
        pieces = [kept[i : i + 16] for i in range(0, len(kept) - 16, 997)]
        found = raw(place)
        assert wrapped in found and sum(piece in found for piece in pieces) > len(pieces) // 2, "the search itself works"
        assert not any(spelling in found for spelling in spelled(SAID))
        assert responses.erase(db, ME, last)
        sealed.wipe(db)
        found = raw(place)
        assert wrapped not in found and last.encode() not in found and not any(piece in found for piece in pieces)
        assert responses.find(db, ME, f"resp_{8:024x}", now=1) is not None
    assert not any(piece in raw(place) for piece in [wrapped, *pieces])


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_database_of_version_one_is_brought_up_to_date_with_all_that_is_in_it(
    kind: str, another: Callable[[str], str | Path], tmp_path: Path
) -> None:
    place, secret = another(kind), tmp_path / "secrets"
    with database.connect(place, secret) as old:
        database.upgrade(old, "v0001")
        with old.read() as connection:
            assert database.version(connection) == "v0001"
        database.check_secrets(old)
        with old.write() as connection:
            connection.execute(insert(facts).values(name="kept", value=secrets.token_hex(4)))
        key, token = keys.create(old, "first")
    with database.open(place, secret) as db:
        with db.read() as connection:
            assert connection.execute(select(facts.c.name).where(facts.c.name == "kept")).scalar() == "kept"
            assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata) == []
        found = keys.find(db, token)
        assert found is not None and found.id == key.id
        assert responses.find(db, ME, "a") is None
        keep(db, "a")
        assert responses.find(db, ME, "a", now=1) is not None
