"""Encryption at rest: nothing planted is found in the files, nothing opens elsewhere, nothing erased comes back."""

from __future__ import annotations

import base64
import secrets
import threading
from pathlib import Path

import pytest
from sqlalchemy import select, update

from tsuzuri.errors import BusyError, FormatError, MissingError
from tsuzuri.store import audit, database, keys, sealed, users
from tsuzuri.store.database import Database
from tsuzuri.store.tables import data_keys, facts

PLANTED = "患者番号八一四二の検査結果"
PLACE = ("notes", "text", "1")


def seal(db: Database, value: bytes = PLANTED.encode(), place: tuple[str, str, str] = PLACE) -> bytes:
    with db.write() as connection:
        return sealed.seal(db, connection, *place, value)


def unseal(db: Database, kept: bytes, place: tuple[str, str, str] = PLACE) -> bytes:
    with db.read() as connection:
        return sealed.unseal(db, connection, *place, kept)


def raw(directory: Path) -> bytes:
    """Every byte of every file, the WAL included."""
    return b"".join(file.read_bytes() for file in sorted(directory.rglob("*")) if file.is_file())


def spelled(value: str) -> list[bytes]:
    """As it might stand in a file; in base64 at each of its three alignments."""
    data = value.encode()
    aligned = [base64.b64encode(b"x" * shift + data)[4:-4] for shift in range(3)]
    return [data, value.encode("utf-16-le"), value.encode("cp932"), value.encode("unicode_escape"), data.hex().encode(), *aligned]


def test_what_is_sealed_opens_where_it_was_sealed(db: Database) -> None:
    for value in (b"", PLANTED.encode(), secrets.token_bytes(100_000)):
        assert unseal(db, seal(db, value)) == value
    one, two = seal(db), seal(db)
    assert one != two and len(one) == len(PLANTED.encode()) + 29


@pytest.mark.parametrize("place", [("notes", "text", "2"), ("notes", "title", "1"), ("other", "text", "1")])
def test_moved_elsewhere_it_does_not_open(db: Database, place: tuple[str, str, str]) -> None:
    kept = seal(db)
    seal(db, b"its neighbour", place)
    with pytest.raises(FormatError, match="別の行"):
        unseal(db, kept, place)


def test_a_data_key_moved_to_another_row_does_not_open(db: Database) -> None:
    kept = seal(db)
    with db.write() as connection:
        connection.execute(update(data_keys).values(record="notes/2"))
    with pytest.raises(FormatError, match="別の行"):
        unseal(db, kept, ("notes", "text", "2"))


def test_with_one_bit_changed_or_cut_it_does_not_open(db: Database) -> None:
    kept = seal(db)
    for place in range(len(kept)):
        with pytest.raises(FormatError, match="書き換えられ"):
            unseal(db, kept[:place] + bytes([kept[place] ^ 1]) + kept[place + 1 :])
        with pytest.raises(FormatError, match="書き換えられ"):
            unseal(db, kept[:place])


def test_without_the_master_key_it_does_not_open_and_says_so(db: Database, secret_place: Path) -> None:
    kept = seal(db)
    (name,) = db.secrets.masters()
    file, was = secret_place / name, (secret_place / name).read_text()
    db.secrets._read.clear()
    file.unlink()
    with pytest.raises(MissingError, match=name):
        unseal(db, kept)
    file.write_text(secrets.token_hex(32))
    file.chmod(0o600)
    with pytest.raises(FormatError, match="マスター鍵"):
        unseal(db, kept)
    db.secrets._read.clear()
    file.write_text(was)
    assert unseal(db, kept) == PLANTED.encode()


def test_nothing_planted_is_found_in_the_bytes_of_the_data(tmp_path: Path) -> None:
    """Contents, passwords, keys, session tokens: in the database, its WAL, and after it is closed. What is not sealed is found, so
    the search itself works."""
    place = tmp_path / "data"
    with database.open(place, tmp_path / "secrets") as db:
        audit.append(db, "chat", {"note": "平文の目印"}, content=PLANTED)
        user = users.add(db, "山田", password=PLANTED)
        _, token = users.sign_in(db, "山田", PLANTED) or pytest.fail()
        _, key = keys.create(db, "鍵", user_id=user.id)
        seal(db)
        bytes_open = raw(place)
        assert (place / f"{database.FILE}-wal").stat().st_size > 0
    for found in (bytes_open, raw(place)):
        assert any(spelling in found for spelling in spelled("平文の目印"))
        for planted in (PLANTED, token, key[17:]):
            for spelling in spelled(planted) if planted is PLANTED else [planted.encode()]:
                assert spelling not in found
        for secret in (tmp_path / "secrets").iterdir():
            value = secret.read_text().strip()
            assert value.encode() not in found and bytes.fromhex(value) not in found


def test_an_erasure_leaves_no_byte(tmp_path: Path) -> None:
    place = tmp_path / "data"
    with database.open(place, tmp_path / "secrets") as db:
        for number in range(200):
            audit.append(db, "chat", {"n": number}, content=f"{PLANTED}{number}")
        with db.read() as connection:
            wrapped = bytes(connection.execute(select(data_keys.c.wrapped).where(data_keys.c.record == "audit_contents/77")).scalar_one())
            kept = bytes(connection.execute(select(audit.audit_contents.c.sealed).where(audit.audit_contents.c.seq == 77)).scalar_one())
        assert wrapped in raw(place) and kept in raw(place)
        audit.erase_content(db, 77)
        assert wrapped not in raw(place) and kept not in raw(place)
        assert wrapped[12:28] not in raw(place) and kept[13:29] not in raw(place)
        assert audit.content(db, 77) is None and audit.content(db, 78) == f"{PLANTED}77"
        assert audit.verify(db).sound
    assert wrapped[12:28] not in raw(place)


def test_an_erasure_that_is_still_being_read_is_told_and_done_when_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 50)
    with database.open(tmp_path / "data", tmp_path / "secrets") as db:
        kept = seal(db)
        with db.read() as connection:
            wrapped = bytes(connection.execute(select(data_keys.c.wrapped)).scalar_one())
            with pytest.raises(BusyError, match="古い状態"):
                sealed.erase(db, "notes", "1")
            with pytest.raises(MissingError, match="消去"):
                unseal(db, kept)
        sealed.erase(db, "notes", "1")
        assert wrapped not in raw(tmp_path / "data")


def test_what_was_erased_does_not_open_and_its_neighbours_do(db: Database) -> None:
    kept, other = seal(db), seal(db, b"other", ("notes", "text", "2"))
    sealed.erase(db, "notes", "1")
    with pytest.raises(MissingError, match="消去"):
        unseal(db, kept)
    assert unseal(db, other, ("notes", "text", "2")) == b"other"
    again = seal(db, b"again")
    assert unseal(db, again) == b"again"
    with pytest.raises(FormatError, match="書き換えられ"):
        unseal(db, kept)


def test_a_new_master_key_wraps_everything_and_the_old_one_goes(db: Database, secret_place: Path) -> None:
    places = [("notes", "text", str(number)) for number in range(sealed.BATCH + 20)]
    with db.write() as connection:
        kept = [sealed.seal(db, connection, *place, place[2].encode()) for place in places]
    assert sealed.rotate(db) == len(places)
    assert db.secrets.masters() == ["master-0002"]
    assert not (secret_place / "master-0001").exists()
    assert [unseal(db, one, place) for one, place in zip(kept, places, strict=True)][-1] == places[-1][2].encode()
    assert sealed.rotate(db) == len(places)
    assert unseal(db, kept[0], places[0]) == b"0"


def test_an_interrupted_rotation_is_run_again(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [seal(db, b"x", ("notes", "text", str(number))) for number in range(6)]
    monkeypatch.setattr(sealed, "BATCH", 2)
    encrypt, calls = sealed._encrypt, []

    def stopped(key: bytes, value: bytes, place: str) -> bytes:
        calls.append(place)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encrypt(key, value, place)

    monkeypatch.setattr(sealed, "_encrypt", stopped)
    with pytest.raises(KeyboardInterrupt):
        sealed.rotate(db)
    monkeypatch.setattr(sealed, "_encrypt", encrypt)
    assert len(db.secrets.masters()) == 2
    for number, one in enumerate(kept):
        assert unseal(db, one, ("notes", "text", str(number))) == b"x"
    sealed.rotate(db)
    assert db.secrets.masters() == ["master-0003"]
    assert unseal(db, kept[5], ("notes", "text", "5")) == b"x"


def test_under_load_a_rotation_fails_no_read_and_loses_no_value(db: Database, address: str | Path, secret_place: Path) -> None:
    """Another process of ours, as it were: its own database object, sealing and reading while the key changes twice."""
    stop, failures, done = threading.Event(), [], []

    def work(number: int) -> None:
        with database.open(address, secret_place) as own:
            count = 0
            while not stop.is_set() or count < 3:
                place = ("notes", "text", f"{number}-{count}")
                try:
                    kept = seal(own, place[2].encode(), place)
                    done.append((place, kept))
                    assert unseal(own, done[0][1], done[0][0])
                except Exception as error:
                    failures.append(error)
                count += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        sealed.rotate(db)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    for place, kept in done:
        assert unseal(db, kept, place) == place[2].encode()


def test_of_many_who_seal_first_at_once_one_decides(address: str | Path, secret_place: Path) -> None:
    failures: list[Exception] = []
    together = threading.Barrier(6)

    def work(number: int) -> None:
        try:
            with database.open(address, secret_place) as own:
                together.wait()
                place = ("notes", "text", f"{number}")
                assert unseal(own, seal(own, b"x", place), place) == b"x"
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_database_knows_which_master_key_is_in_use(db: Database) -> None:
    seal(db)
    with db.read() as connection:
        assert connection.execute(select(facts.c.value).where(facts.c.name == "master")).scalar() == "master-0001"
