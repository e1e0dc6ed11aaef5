"""Backup and restore: everything comes back, on the same kind of database and on the other; a damaged file changes nothing."""

from __future__ import annotations

import hashlib
import json
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from sqlalchemy import select

from tsuzuri.errors import ConfigError, FormatError, MissingError
from tsuzuri.store import attempts, audit, database, energy, keys, ledger, responses, turns, users
from tsuzuri.store.backup import backup, check, restore
from tsuzuri.store.database import Database
from tsuzuri.store.ledger import ALL, Reservation
from tsuzuri.store.tables import metadata, now_ms

GOOD = "朝の散歩と味噌汁と新聞紙"


def filled(db: Database) -> tuple[str, str]:
    """Something in every table; returns an API key and the one it replaced."""
    audit.append(db, "chat", {"old": True}, now=5)
    audit.prune(db, 10)
    user = users.first_administrator(db, str(users.invite(db)), "山田", GOOD)
    users.sign_in(db, "山田", GOOD)
    attempts.attempt(db, "山田", "127.0.0.1")
    turns.take(db, turns.Limits("key k", at_once=2))
    old, old_secret = keys.create(db, "受付 🍜", user_id=user.id, models=["小"], addresses=["::/0", "0.0.0.0/0"])
    key, secret = keys.rotate(db, old.id)
    ledger.set_limit(db, ALL, 1000)
    held = ledger.reserve(db, key, "r1", 100)
    assert isinstance(held, Reservation)
    ledger.settle(db, held, 70)
    ledger.reserve(db, key, "r2", 50)
    energy.add(db, [energy.Used(key, energy.Energy(measured=7, estimated=3), now_ms())])
    responses.keep(db, "user u", "resp_1", {"input": [], "response": {}, "previous": None}, days=1)
    audit.append(db, "chat", {"n": 1}, content="中身")
    return secret, old_secret


def everything(db: Database) -> dict[str, list[tuple[object, ...]]]:
    with db.read() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns))]
            for table in metadata.sorted_tables
        }


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_everything_comes_back_on_either_database(
    db: Database, kind: str, another: Callable[[str], str | Path], secret_place: Path, tmp_path: Path
) -> None:
    secret, old_secret = filled(db)
    before = everything(db)
    assert [name for name, rows in before.items() if not rows] == [], "nothing is tested of an empty table"
    summary = backup(db, tmp_path / "all.backup")
    assert summary.rows == {name: len(rows) for name, rows in before.items()}
    place = another(kind)
    restore(tmp_path / "all.backup", place, secret_place)
    with database.open(place, secret_place) as restored:
        assert everything(restored) == before
        assert keys.find(restored, secret, "8.8.8.8") and keys.find(restored, old_secret, "8.8.8.8")
        assert users.sign_in(restored, "山田", GOOD)
        assert audit.verify(restored).sound and ledger.verify(restored) == []
        last = max(record.seq for record in audit.records(restored) if record.kind == "chat")
        assert audit.content(restored, last) == "中身"
        key = keys.listed(restored)[1]
        assert isinstance(ledger.reserve(restored, key, "r3", 10), Reservation), "numbers go on"
        assert ledger.verify(restored) == []


def test_a_backup_is_of_one_moment_while_calls_go_on(
    db: Database, another: Callable[[str], str | Path], secret_place: Path, tmp_path: Path
) -> None:
    key, _ = keys.create(db, "鍵")
    stop = threading.Event()

    def call() -> None:
        number = 0
        while not stop.is_set():
            held = ledger.reserve(db, key, f"r{number}", 100)
            assert isinstance(held, Reservation)
            ledger.settle(db, held, 60)
            audit.append(db, "chat", {"n": number})
            number += 1

    thread = threading.Thread(target=call)
    thread.start()
    try:
        for number in range(4):
            backup(db, tmp_path / f"{number}.backup")
    finally:
        stop.set()
        thread.join()
    place = another(db.dialect)
    restore(tmp_path / "3.backup", place, secret_place)
    with database.open(place, secret_place) as restored:
        assert ledger.verify(restored) == [] and audit.verify(restored).sound
        assert restored.dialect == db.dialect


def test_a_backup_is_whole_private_and_never_over_another(db: Database, tmp_path: Path) -> None:
    secret, _ = filled(db)
    path = tmp_path / "all.backup"
    backup(db, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir() if "backup" in file.name] == ["all.backup"]
    was = path.read_bytes()
    with pytest.raises(ConfigError, match="同じ名前"):
        backup(db, path)
    assert path.read_bytes() == was
    content = zstandard.ZstdDecompressor().stream_reader(was).read().decode()
    assert secret[17:] not in content and "中身" not in content and db.secrets.pepper().hex() not in content


@pytest.mark.parametrize("damage", ["cut", "flip", "row", "more", "text", "empty", "gone"])
def test_a_damaged_file_is_told_and_changes_nothing(
    db: Database, damage: str, another: Callable[[str], str | Path], secret_place: Path, tmp_path: Path
) -> None:
    filled(db)
    path = tmp_path / "all.backup"
    backup(db, path)
    data, pack = path.read_bytes(), zstandard.ZstdCompressor().compress
    plain = zstandard.ZstdDecompressor().stream_reader(data).read()
    changed = {
        "cut": data[: len(data) // 2],
        "flip": data[:200] + bytes([data[200] ^ 255]) + data[201:],
        "row": pack(plain.replace("受付".encode(), "裏口".encode())),
        "more": pack(plain + b'{"table":"users"}\n'),
        "text": b"hello\n",
        "empty": b"",
    }
    path.unlink()
    if damage != "gone":
        path.write_bytes(changed[damage])
    place = another(db.dialect)
    with pytest.raises(MissingError if damage == "gone" else FormatError, match="バックアップ"):
        restore(path, place, secret_place)
    with database.connect(place, secret_place) as untouched, untouched.read() as connection:
        assert database.version(connection) is None


def test_what_is_there_is_not_overwritten(db: Database, address: str | Path, secret_place: Path, tmp_path: Path) -> None:
    filled(db)
    backup(db, tmp_path / "all.backup")
    before = everything(db)
    with pytest.raises(ConfigError, match="空ではありません"):
        restore(tmp_path / "all.backup", address, secret_place)
    assert everything(db) == before


def test_other_secrets_are_told_before_anything_is_written(db: Database, another: Callable[[str], str | Path], tmp_path: Path) -> None:
    backup(db, tmp_path / "all.backup")
    place, other = another(db.dialect), tmp_path / "other"
    with pytest.raises(MissingError, match="pepper"):
        restore(tmp_path / "all.backup", place, other)
    database.open(another(db.dialect), other).close()
    with pytest.raises(FormatError, match="pepper"):
        restore(tmp_path / "all.backup", place, other)
    with database.connect(place, other) as untouched, untouched.read() as connection:
        assert database.version(connection) is None


def test_a_backup_of_the_first_schema_is_restored_and_brought_up_to_date(
    db: Database, another: Callable[[str], str | Path], secret_place: Path, tmp_path: Path
) -> None:
    """As that version wrote it: without the tables and the column that came later."""
    secret, _ = filled(db)
    backup(db, tmp_path / "new")
    text = zstandard.ZstdDecompressor().stream_reader((tmp_path / "new").read_bytes()).read().decode()
    heading, *lines = text.splitlines()[:-1]
    old, table = [json.dumps({**json.loads(heading), "schema": "v0001"})], ""
    later, columns = ("responses", "attempts", "turns", "energy"), list[str]()
    for line in lines:
        value = json.loads(line)
        if isinstance(value, dict):
            table, columns = value["table"], value["columns"]
            value = {**value, "columns": [name for name in columns if name != "seen_at"]}
        else:
            value = [cell for name, cell in zip(columns, value, strict=True) if name != "seen_at"]
        old += [json.dumps(value)] if table not in later else []
    data = "".join(f"{line}\n" for line in old).encode()
    end = json.dumps({"sha256": hashlib.sha256(data).hexdigest()}).encode() + b"\n"
    (tmp_path / "old").write_bytes(zstandard.ZstdCompressor().compress(data + end))
    place = another(db.dialect)
    assert not {*later} & {*restore(tmp_path / "old", place, secret_place).rows}
    with database.open(place, secret_place) as restored:
        assert everything(restored) == {**everything(db), **{key: [] for key in later}}
        assert keys.find(restored, secret, "8.8.8.8")
        responses.keep(restored, "user u", "resp_2", {"input": [], "response": {}, "previous": None}, days=1)


def test_a_backup_of_a_newer_schema_is_refused(
    db: Database, another: Callable[[str], str | Path], secret_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "version", lambda connection: "v9999")
    backup(db, tmp_path / "all.backup")
    monkeypatch.undo()
    assert check(tmp_path / "all.backup").schema == "v9999"
    with pytest.raises(FormatError, match="新しい版"):
        restore(tmp_path / "all.backup", another(db.dialect), secret_place)


def test_a_backup_that_cannot_be_written_leaves_nothing(db: Database, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="none"):
        backup(db, tmp_path / "none" / "all.backup")
    assert not (tmp_path / "none").exists()
