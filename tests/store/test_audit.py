"""The audit: everything that is done to it behind its back is found. On both databases; the tampering is done with plain SQL."""

from __future__ import annotations

import hashlib
import hmac
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from tsuzuri.errors import ConfigError, FormatError, MissingError
from tsuzuri.store import audit
from tsuzuri.store.database import Database

NOW = 1_700_000_000_000
LENGTH = 12
PLANTED = "社外秘：来期の価格表"


def filled(db: Database, count: int = LENGTH) -> None:
    for number in range(count):
        said = PLANTED if number % 4 == 0 else None
        audit.append(db, "chat", {"key": "key_1", "tokens": {"in": number, "out": 7}, "語": "値"}, content=said, now=NOW + number)


def unlocked(db: Database, connection: Connection) -> None:
    """Whoever may write the schema may drop the triggers."""
    names = ["audit_unchanged", "audit_undeleted"] if db.dialect == "sqlite" else ["audit_kept ON audit", "audit_whole ON audit"]
    for name in names:
        connection.execute(text(f"DROP TRIGGER IF EXISTS {name}"))


def tamper(db: Database, *statements: str, **values: object) -> None:
    with db.write() as connection:
        unlocked(db, connection)
        for statement in statements:
            connection.execute(text(statement), values)


def forged(db: Database, connection: Connection, seq: int, prev: bytes, key: bytes | None, tokens: int = 1) -> bytes:
    """Writes a record as we would, with the given key; returns its hash."""
    body = {"key": "key_1", "tokens": {"in": tokens, "out": 7}}
    value = {"at": NOW, "body": body, "kind": "chat", "prev": prev.hex(), "seq": seq, "v": 1}
    record = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(record.encode()).digest()
    row = {"s": seq, "r": record, "h": digest, "m": hmac.digest(key or b"guess", digest, "sha256")}
    connection.execute(text("INSERT INTO audit (seq, record, hash, mac) VALUES (:s, :r, :h, :m)"), row)
    return digest


def rewrite(db: Database, count: int, key: bytes | None) -> None:
    """The whole chain anew, its head too: what somebody with the database does, and with `key` somebody with everything."""
    with db.write() as connection:
        unlocked(db, connection)
        for table in ("audit", "audit_contents", "audit_head"):
            connection.execute(text(f"DELETE FROM {table}"))
        digest = audit.START
        for seq in range(1, count + 1):
            digest = forged(db, connection, seq, digest, key)
        connection.execute(text("INSERT INTO audit_head (id, seq, hash) VALUES (1, :s, :h)"), {"s": count, "h": digest})


def wrong(db: Database, path: Path | None = None) -> set[tuple[int, str]]:
    report = audit.verify(db, audit.read_anchors(path) if path else ())
    assert report.sound is not bool(report.findings)
    return {(found.seq, found.wrong) for found in report.findings}


# ── sound


def test_a_chain_that_nobody_touched_is_sound(db: Database, tmp_path: Path) -> None:
    assert audit.verify(db).sound
    path = tmp_path / "anchors"
    audit.anchor(db, path)
    filled(db)
    audit.anchor(db, path)
    audit.append_many(db, [("key.revoked", {"key": "key_1"}), ("key.revoked", {"key": None, "by": [1, True]})])
    report = audit.verify(db, audit.read_anchors(path))
    assert (report.records, report.anchored, report.pruned, report.findings) == (LENGTH + 2, LENGTH, 0, ())


def test_records_come_back_as_they_were(db: Database) -> None:
    body = {"text": '改行\n「引用」"\\ \u2028 🍜', "n": [1, None, True, {"深": -(1 << 60)}]}
    assert audit.append(db, "test", body, now=NOW) == 1
    (found,) = audit.records(db)
    assert (found.seq, found.at, found.kind, found.body) == (1, NOW, "test", body)
    audit.append(db, "odd", {"a": "\0\ud800x"})
    assert [record.body for record in audit.records(db, 2)] == [{"a": "��x"}]
    assert audit.verify(db).sound


def test_what_has_no_one_spelling_or_is_too_much_is_not_written(db: Database) -> None:
    for body in ({"x": 0.1}, {"x": b"b"}, {"x": {1, 2}}):
        with pytest.raises(TypeError):
            audit.append(db, "test", body)
    with pytest.raises(ConfigError, match="64 KiB"):
        audit.append(db, "test", {"x": "あ" * 30_000})
    assert audit.verify(db).records == 0


def test_many_who_write_at_once_make_one_chain(db: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda n: audit.append(db, "chat", {"n": n}), range(60)))
    assert sorted(numbers) == list(range(1, 61))
    assert audit.verify(db) == audit.Report(60, 0, 0, 0, ())


def test_a_record_shares_the_fate_of_the_transaction_it_is_part_of(db: Database) -> None:
    with pytest.raises(RuntimeError, match="undone"), db.write() as connection:
        audit.append(db, "test", {}, connection=connection)
        raise RuntimeError("undone")
    assert audit.append(db, "test", {}) == 1


# ── tampered


@pytest.mark.parametrize("statement", ["UPDATE audit SET record = 'x'", "DELETE FROM audit WHERE seq = 3", "DELETE FROM audit"])
def test_the_database_refuses_a_change(db: Database, statement: str) -> None:
    filled(db)
    with pytest.raises(DBAPIError, match="audit records are"), db.write() as connection:
        connection.execute(text(statement))
    assert audit.verify(db).sound


def test_every_byte_of_every_record_counts(db: Database) -> None:
    filled(db, 2)
    with db.read() as connection:
        row = connection.execute(text("SELECT record, hash, mac FROM audit WHERE seq = 2")).one()
    columns: dict[str, Any] = {"record": row.record, "hash": bytes(row.hash), "mac": bytes(row.mac)}
    for column, value in columns.items():
        for place in range(0, len(value), 7 if column == "record" else 5):
            if isinstance(value, bytes):
                changed: Any = value[:place] + bytes([value[place] ^ 1]) + value[place + 1 :]
            else:
                changed = value[:place] + chr(ord(value[place]) ^ 1) + value[place + 1 :]
            tamper(db, f"UPDATE audit SET {column} = :x WHERE seq = 2", x=changed)
            assert {2} <= {seq for seq, _ in wrong(db)}, (column, place)
        tamper(db, f"UPDATE audit SET {column} = :x WHERE seq = 2", x=value)
        assert wrong(db) == set()


TAMPERINGS: dict[str, tuple[list[str], set[tuple[int, str]]]] = {
    "one in the middle deleted": (["DELETE FROM audit WHERE seq = 5"], {(5, "missing")}),
    "the first deleted": (["DELETE FROM audit WHERE seq = 1"], {(1, "missing"), (1, "content")}),
    "the last deleted": (["DELETE FROM audit WHERE seq = 12"], {(12, "cut")}),
    "deleted and closed up": (
        ["DELETE FROM audit WHERE seq = 5", *(f"UPDATE audit SET seq = {n - 1} WHERE seq = {n}" for n in range(6, 13))],
        {(5, "order"), (12, "cut")},
    ),
    "two swapped": (
        ["UPDATE audit SET seq = 99 WHERE seq = 3", "UPDATE audit SET seq = 3 WHERE seq = 4", "UPDATE audit SET seq = 4 WHERE seq = 99"],
        {(3, "order"), (4, "order")},
    ),
    "one repeated at the end": (["INSERT INTO audit SELECT 13, record, hash, mac FROM audit WHERE seq = 12"], {(13, "order")}),
    "one put before the first": (["INSERT INTO audit SELECT 0, record, hash, mac FROM audit WHERE seq = 1"], {(1, "missing")}),
    "one of a negative number": (["INSERT INTO audit SELECT -5, record, hash, mac FROM audit WHERE seq = 1"], {(1, "missing")}),
    "all deleted": (["DELETE FROM audit"], {(1, "cut")}),
    "a content changed": (["UPDATE audit_contents SET sealed = (SELECT sealed FROM audit_contents WHERE seq = 5) WHERE seq = 1"], {(1, "content")}),
    "a content deleted": (["DELETE FROM audit_contents WHERE seq = 5"], {(5, "content")}),
    "a content added": (["INSERT INTO audit_contents SELECT 2, sealed FROM audit_contents WHERE seq = 1"], {(2, "content")}),
    "the head set back": (["UPDATE audit_head SET seq = 3"], {(13, "cut")}),
    "the head deleted": (["DELETE FROM audit_head"], {(13, "cut")}),
    "a tombstone invented": (
        ["INSERT INTO audit_tombstones SELECT 4, hash, 1, mac FROM audit WHERE seq = 4", "DELETE FROM audit WHERE seq <= 4"],
        {(4, "tombstone")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERINGS)
def test_each_way_of_tampering_is_found_where_it_was_done(db: Database, name: str) -> None:
    filled(db)
    statements, expected = TAMPERINGS[name]
    tamper(db, *statements)
    assert expected <= wrong(db)


def test_a_cut_end_with_its_head_is_found_by_an_anchor_alone(db: Database, tmp_path: Path) -> None:
    filled(db)
    audit.anchor(db, tmp_path / "anchors")
    head = "UPDATE audit_head SET seq = 9, hash = (SELECT hash FROM audit WHERE seq = 9)"
    tamper(db, "DELETE FROM audit WHERE seq > 9", "DELETE FROM audit_contents WHERE seq > 9", head)
    assert wrong(db) == set(), "a chain alone cannot tell"
    assert wrong(db, tmp_path / "anchors") == {(10, "cut")}
    for number in range(5):
        audit.append(db, "chat", {"later": number})
    assert wrong(db, tmp_path / "anchors") == {(12, "rewritten")}, "nor does growing again hide it"


def test_a_rewritten_whole_is_found_by_the_key_and_with_the_key_stolen_by_an_anchor(db: Database, tmp_path: Path) -> None:
    filled(db)
    audit.anchor(db, tmp_path / "anchors")
    rewrite(db, LENGTH, None)
    assert {seq for seq, what in wrong(db) if what == "forged"} == set(range(1, LENGTH + 1))
    rewrite(db, LENGTH, db.secrets.derived(audit.PURPOSE))
    assert wrong(db) == set(), "a chain alone cannot tell"
    assert wrong(db, tmp_path / "anchors") == {(LENGTH, "rewritten")}
    rewrite(db, 2, db.secrets.derived(audit.PURPOSE))
    assert wrong(db, tmp_path / "anchors") == {(3, "cut")}


def test_an_anchor_that_is_not_ours_is_told(db: Database, tmp_path: Path) -> None:
    filled(db)
    path = tmp_path / "anchors"
    made = audit.anchor(db, path)
    line = path.read_text(encoding="utf-8")
    path.write_text(line.replace(f'"seq":{made.seq}', '"seq":3'), encoding="utf-8")
    assert wrong(db, path) == {(3, "anchor")}
    for broken in ("{", "[]", line.replace("12", '"12"'), '{"seq":1}'):
        path.write_text(broken, encoding="utf-8")
        with pytest.raises(FormatError, match="アンカー"):
            audit.read_anchors(path)
    with pytest.raises(MissingError, match="アンカー"):
        audit.read_anchors(tmp_path / "none")


def test_text_that_is_no_utf8_is_found_and_breaks_nothing(db: Database) -> None:
    if db.dialect != "sqlite":
        pytest.skip("PostgreSQL keeps no such text")
    filled(db)
    tamper(db, "UPDATE audit SET record = CAST(x'ff00fe' AS TEXT), hash = 'x', mac = 5 WHERE seq = 4", "UPDATE audit_head SET hash = 'x'")
    assert {(4, "changed"), (4, "forged"), (4, "order"), (5, "order"), (13, "cut")} <= wrong(db)


def some_tampering(draw: Any, db: Database) -> list[str]:
    """One to three steps, each of which changes something."""
    steps = []
    for _ in range(draw(st.integers(1, 3))):
        n, m = draw(st.permutations(range(1, LENGTH + 1)))[:2]
        steps.append(
            draw(
                st.sampled_from(
                    [
                        f"DELETE FROM audit WHERE seq = {n}",
                        f"UPDATE audit SET record = record || ' ' WHERE seq = {n}",
                        f"UPDATE audit SET record = replace(record, 'out', 'owt') WHERE seq = {n}",
                        f"UPDATE audit SET record = (SELECT record FROM audit WHERE seq = {m}) WHERE seq = {n}",
                        f"UPDATE audit SET hash = (SELECT hash FROM audit WHERE seq = {m}) WHERE seq = {n}",
                        f"UPDATE audit SET mac = (SELECT mac FROM audit WHERE seq = {m}) WHERE seq = {n}",
                        f"UPDATE audit SET seq = {n + 100} WHERE seq = {n}",
                        f"INSERT INTO audit SELECT {n + 200}, record, hash, mac FROM audit WHERE seq = {m}",
                    ]
                )
            )
        )
    return steps


def test_random_tampering_is_found(db: Database) -> None:
    """Whatever leaves the rows other than they were is a finding; whatever leaves them as they were is none."""
    filled(db)
    everything = "SELECT seq, record, hash, mac FROM audit ORDER BY seq"

    class Undo(Exception):
        pass

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
    @given(st.data())
    def law(data: st.DataObject) -> None:
        with pytest.raises(Undo), db.write() as connection:
            before = connection.execute(text(everything)).all()
            unlocked(db, connection)
            for step in some_tampering(data.draw, db):
                savepoint = connection.begin_nested()
                try:
                    connection.execute(text(step))
                    savepoint.commit()
                except DBAPIError:  # a number that is taken
                    savepoint.rollback()
            changed = connection.execute(text(everything)).all() != before
            assert audit.verify(_Inside(db, connection)).sound is not changed
            raise Undo

    law()


class _Inside:
    """The database as it looks from inside a transaction that is not going to be."""

    def __init__(self, db: Database, connection: Connection) -> None:
        self.secrets, self._connection = db.secrets, connection

    def read(self) -> _Inside:
        return self

    def __enter__(self) -> Connection:
        return self._connection

    def __exit__(self, *_: object) -> None:
        pass


# ── what was said


def test_what_was_said_is_kept_only_where_it_was_asked_for_and_goes_for_good(db: Database) -> None:
    kept = audit.append(db, "chat", {"n": 1}, content=PLANTED)
    not_kept = audit.append(db, "chat", {"n": 2})
    assert audit.content(db, kept) == PLANTED
    assert audit.content(db, not_kept) is None
    audit.erase_content(db, kept)
    assert audit.content(db, kept) is None
    report = audit.verify(db)
    assert (report.sound, report.erased, report.records) == (True, 1, 3)
    audit.erase_content(db, kept)
    audit.erase_content(db, not_kept)
    assert audit.verify(db).records == 3, "nothing more to erase, nothing more to say"


def test_words_in_a_body_erase_nothing(db: Database) -> None:
    audit.append(db, "chat", {}, content=PLANTED)
    audit.append(db, "chat", {"kind": "audit.erased", "seq": 1, "x": {"kind": "audit.erased"}})
    tamper(db, "DELETE FROM audit_contents")
    assert wrong(db) == {(1, "content")}


# ── retention


def test_what_is_old_gives_way_to_a_tombstone_and_the_rest_is_sound(db: Database, tmp_path: Path) -> None:
    filled(db)
    path = tmp_path / "anchors"
    audit.anchor(db, path)
    assert audit.prune(db, NOW + 5, now=NOW + 100) == 5
    assert audit.prune(db, NOW + 5, now=NOW + 100) == 0
    report = audit.verify(db, audit.read_anchors(path))
    assert (report.records, report.pruned, report.anchored, report.findings) == (LENGTH - 5 + 1, 5, LENGTH, ())
    assert audit.content(db, 1) is None and audit.content(db, 9) == PLANTED
    assert next(audit.records(db)).seq == 6
    assert audit.prune(db, NOW + 200, now=NOW + 300) == LENGTH - 5 + 1
    report = audit.verify(db, audit.read_anchors(path))
    assert (report.records, report.pruned, report.findings) == (1, LENGTH + 1, ())


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit_tombstones",
        "UPDATE audit_tombstones SET at = 5",
        "UPDATE audit_tombstones SET through = 6",
        "DELETE FROM audit WHERE seq = 6",
    ],
)
def test_a_tombstone_covers_what_it_says_and_no_more(db: Database, statement: str) -> None:
    filled(db)
    audit.prune(db, NOW + 5, now=NOW + 100)
    assert audit.verify(db).sound
    tamper(db, statement)
    assert not audit.verify(db).sound


def test_an_anchor_at_the_end_of_what_was_pruned_still_holds(db: Database, tmp_path: Path) -> None:
    filled(db, 5)
    audit.anchor(db, tmp_path / "anchors")
    audit.append(db, "later", {}, now=NOW + 1000)
    audit.prune(db, NOW + 5)
    assert wrong(db, tmp_path / "anchors") == set()


# ── for others


def test_an_export_can_be_verified_by_a_few_lines_of_anyones(db: Database) -> None:
    filled(db)
    key, last = db.secrets.derived(audit.PURPOSE), "00" * 32
    everything = [json.loads(line) for line in audit.export(db)]
    lines = [line for line in everything if "record" in line]
    assert len(lines) == LENGTH and everything[-1] == {"head": LENGTH, "hash": lines[-1]["hash"]}
    for line in lines:
        record = json.loads(line["record"])
        assert (record["seq"], record["prev"]) == (line["seq"], last)
        last = hashlib.sha256(line["record"].encode()).hexdigest()
        assert last == line["hash"]
        assert hmac.digest(key, bytes.fromhex(last), "sha256").hex() == line["mac"]
        assert json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":")) == line["record"], "canonical"
    assert PLANTED not in "".join(audit.export(db))
