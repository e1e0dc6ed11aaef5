"""What happened, in a chain: each record holds the hash of the one before it.

In: a kind and a body of plain values (who, what, how many tokens). Out: records 1, 2, 3 …, and a `Report` of everything that was done to
them since. A chain alone does not tell when its end is cut off or all of it is written anew: therefore `anchor` writes how long it
is, and its last hash, into a file elsewhere, and an HMAC under a key that is not in the database is on every record. Triggers refuse
changes. Old records give way to a signed tombstone. Contents of requests are kept only if given, sealed, and can be erased.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from sqlalchemy import Column, ColumnElement, Connection, LargeBinary, Text, bindparam, cast, delete, insert, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from tsuzuri.directory import told
from tsuzuri.errors import ConfigError, FormatError, MissingError, Words
from tsuzuri.store import sealed
from tsuzuri.store.database import Database
from tsuzuri.store.tables import audit, audit_contents, audit_head, audit_tombstones, now_ms

VERSION = 1
OPERATOR = "operator"  # whoever may read and write the files of the installation
START = bytes(32)  # what the first record names as the one before it
LARGEST = 64 * 1024  # bytes of a record: it says what happened, not what was said
BATCH = 10_000
PURPOSE = "audit"
SEALED = "_sealed"  # hash of the sealed content; sorts before every other name, so that it can be seen without reading the rest
ERASED = "audit.erased"
WITH_CONTENT, OF_ERASURE = f'{{"{SEALED}":'.encode(), f'"kind":"{ERASED}"'.encode()
Wrong: TypeAlias = Literal["changed", "forged", "missing", "order", "cut", "rewritten", "tombstone", "anchor", "content"]


@dataclass(frozen=True, slots=True)
class Record:
    seq: int
    at: int
    kind: str
    body: dict[str, Any]
    hash: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """The chain had `seq` records at `at`, and this was the hash of the last; `mac` is ours."""

    seq: int
    hash: str
    at: int
    mac: str


@dataclass(frozen=True, slots=True)
class Finding:
    """changed: not what its hash says. forged: not ours. missing: a gap, here begins. order: does not follow the one before.
    cut: the end is gone. rewritten: not what an anchor saw. tombstone, anchor, content: not as we left it."""

    seq: int
    wrong: Wrong


@dataclass(frozen=True, slots=True)
class Report:
    records: int
    pruned: int  # through which record a tombstone stands
    anchored: int  # the last record that an anchor vouches for; what follows only its HMAC does
    erased: int  # contents that are no longer there
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        return not self.findings


def append(
    db: Database,
    kind: str,
    body: Mapping[str, Any],
    *,
    content: str | None = None,
    connection: Connection | None = None,
    now: int | None = None,
) -> int:
    """One more record; when this returns it is on the disk (or will be with the transaction of `connection`, whose fate it shares).

    `body`: strings, whole numbers, booleans, None, lists and mappings of them; a float is a TypeError, since it has no one spelling.
    `content`: what was said, sealed; give it only where that was asked for.
    """
    if connection is not None:
        return _append(db, connection, kind, body, content, now_ms() if now is None else now)
    with db.write() as own:
        return _append(db, own, kind, body, content, now_ms() if now is None else now)


New: TypeAlias = tuple[str, Mapping[str, Any]] | tuple[str, Mapping[str, Any], str | None]  # kind, body and, where it is kept, the content


def append_many(db: Database, rows: Sequence[New], now: int | None = None) -> int:
    """As many records in one transaction. Returns the number of the last."""
    now, key = now_ms() if now is None else now, db.secrets.derived(PURPOSE)
    with db.write() as connection:
        seq, last = _head(connection)
        made = []
        for kind, body, *said in rows:
            kept = _keep(db, connection, seq + 1, said[0]) if said and said[0] is not None else None
            made.append(_row(key, seq + 1, last, (kind, body, now), kept))
            seq, last = seq + 1, made[-1]["hash"]
        if made:
            connection.execute(_NEW, made)
            connection.execute(_GROWN, {"grown": seq, "last": last})
    return seq


# built once: every request is recorded
_NEW = insert(audit)
_GROWN = update(audit_head).values(seq=bindparam("grown"), hash=bindparam("last"))


def records(db: Database, start: int = 1, count: int | None = None) -> Iterator[Record]:
    """In order, from `start`, `count` of them at most; a snapshot."""
    with db.read() as connection:
        for seq, record, digest, _ in _rows(connection, start, count):
            value = json.loads(record)
            yield Record(seq, value["at"], value["kind"], value["body"], bytes(digest).hex())


def content(db: Database, seq: int) -> str | None:
    """What was said; None where it was not kept or has been erased. FormatError where it is not what was kept."""
    with db.read() as connection:
        row = connection.execute(select(audit_contents.c.sealed).where(audit_contents.c.seq == seq)).first()
        return None if row is None else sealed.unseal(db, connection, "audit_contents", "sealed", str(seq), bytes(row.sealed)).decode()


def erase_content(db: Database, seq: int) -> bool:
    """What was said is gone for good; that it was said remains, and so does the chain. Whether there was anything."""
    with db.write() as connection:
        found = connection.execute(select(audit_contents.c.seq).where(audit_contents.c.seq == seq)).first() is not None
        if found:
            erase_in(db, connection, seq)
    sealed.wipe(db)
    return found


def erase_in(db: Database, connection: Connection, seq: int) -> None:
    """The same of a content that is there, as part of the caller's transaction; `sealed.wipe` afterwards leaves no byte of it."""
    _forget(connection, seq)
    _append(db, connection, ERASED, {"seq": seq}, None, now_ms())


def export(db: Database, start: int = 1, count: int | None = None) -> Iterator[str]:
    """Lines of JSON, all that `verify_audit.py` needs: the tombstones (where it starts at 1), `record`s exactly as they were hashed, `count` of
    them at most; and after the last of all the digest of each content that is kept, and the head. Contents are not among them."""
    with db.read() as connection:
        if start == 1:
            for through, digest, mac, at in connection.execute(select(*_TOMBSTONE).order_by(audit_tombstones.c.through)):
                yield _line({"tombstone": through, "hash": bytes(digest).hex(), "at": at, "mac": bytes(mac).hex()})
        given = 0
        for seq, record, digest, mac in _rows(connection, start if start > 1 else -LARGEST, count):  # whatever stands before the first, too
            given += 1
            yield _line({"seq": seq, "record": record, "hash": bytes(digest).hex(), "mac": bytes(mac).hex()})
        if given == count:
            return
        for seq, kept in _parts(connection, audit_contents.c.seq, audit_contents.c.sealed):
            yield _line({"content": seq, "sha256": hashlib.sha256(kept).hexdigest()})
        for seq, digest in _parts(connection, audit_head.c.seq, audit_head.c.hash):
            yield _line({"head": seq, "hash": digest.hex()})


_TOMBSTONE = (audit_tombstones.c.through, audit_tombstones.c.hash, audit_tombstones.c.mac, audit_tombstones.c.at)


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


# ── what vouches for it from outside


def anchor(db: Database, path: Path, now: int | None = None) -> Anchor:
    """Adds a line to the file at `path`: how long the chain is and its last hash. The file belongs where whoever may write the database
    may not: another machine, a medium that is written once, paper. Raises SpaceError."""
    with db.read() as connection:
        head = connection.execute(select(audit_head)).first()
    seq, digest, at = (head.seq, bytes(head.hash).hex(), now_ms() if now is None else now) if head else (0, START.hex(), now or now_ms())
    made = Anchor(seq, digest, at, _anchor_mac(db, seq, digest, at).hex())
    line = _canonical({name: getattr(made, name) for name in Anchor.__dataclass_fields__}) + "\n"
    with told(path), path.open("a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    return made


def read_anchors(path: Path) -> list[Anchor]:
    """Raises MissingError, FormatError."""
    asked = Words(f"アンカー {path} を読もうとしました。", f"Reading the anchors {path}.")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        values = [json.loads(line) for line in lines]
        found = [Anchor(**value) for value in values]
        if not all(type(one.seq) is type(one.at) is int and type(one.hash) is type(one.mac) is str for one in found):
            raise TypeError
    except FileNotFoundError as error:
        raise MissingError(
            asked,
            found=Words("そのファイルはありません。", "It is not there."),
            todo=Words("tsuzuri audit anchor で作れます。", "tsuzuri audit anchor makes one."),
        ) from error
    except (ValueError, TypeError) as error:
        raise FormatError(
            asked,
            found=Words("アンカーとして読めない行があります。", "A line of it is no anchor."),
            todo=Words("書き換えられていない控えで確かめてください。", "Verify against a copy that nobody has touched."),
        ) from error
    return found


# ── retention


def prune(db: Database, before: int, now: int | None = None) -> int:
    """Takes away the records older than `before` (ms), contents included; a signed tombstone stands for them. Returns how many."""
    now = now_ms() if now is None else now
    with db.write() as connection:
        through, digest, count = 0, START, 0
        for seq, record, found, _ in _rows(connection, 1):
            if json.loads(record)["at"] >= before:
                break
            through, digest, count = seq, bytes(found), count + 1
        if not count:
            return 0
        mac = _tombstone_mac(db, through, digest, now)
        connection.execute(insert(audit_tombstones).values(through=through, hash=digest, at=now, mac=mac))
        for seq in connection.execute(select(audit_contents.c.seq).where(audit_contents.c.seq <= through)).scalars().all():
            _forget(connection, seq)
        connection.execute(delete(audit).where(audit.c.seq <= through))
        _append(db, connection, "audit.pruned", {"through": through, "records": count}, None, now)
    sealed.wipe(db)
    return count


# ── verification


def verify(db: Database, anchors: Sequence[Anchor] = ()) -> Report:
    """Reads everything once. Whatever was flipped, swapped, deleted or inserted is found; a cut end and a rewritten whole are found as
    far as an anchor reaches, and beyond that unless whoever did it had the pepper, too."""
    wanted: dict[int, set[str]] = {}
    for one in anchors:
        if _anchor_ok(db, one):
            wanted.setdefault(one.seq, set()).add(one.hash)
    with db.read() as connection:
        pruned, start, findings = _tombstones(db, connection)
        chain = _Chain(pruned, start, db.secrets.derived(PURPOSE), findings)
        for number, record, digest, mac in _parts(connection, audit.c.seq, audit.c.record, audit.c.hash, audit.c.mac):
            chain.read(number, record, digest, mac)
            if number in wanted and wanted[number] != {digest.hex()}:
                findings.append(Finding(number, "rewritten"))
        erased = _compare_contents(connection, chain)
        heads = list(_parts(connection, audit_head.c.seq, audit_head.c.hash))
    if heads != ([(chain.seq, chain.last)] if chain.seq else []):
        findings.append(Finding(chain.seq + 1, "cut"))
    if pruned in wanted and wanted[pruned] != {start.hex()}:
        findings.append(Finding(pruned, "rewritten"))
    findings += [Finding(chain.seq + 1, "cut") for at in wanted if at > chain.seq]
    findings += [Finding(one.seq, "anchor") for one in anchors if not _anchor_ok(db, one)]
    ordered = tuple(dict.fromkeys(sorted(findings, key=lambda one: (one.seq, one.wrong))))
    return Report(chain.count, pruned, max((at for at in wanted if at <= chain.seq), default=0), erased, ordered)


class _Chain:
    """One record after the other; what is wrong goes to `findings`."""

    def __init__(self, seq: int, last: bytes, key: bytes, findings: list[Finding]) -> None:
        self.seq, self.last, self.count = seq, last, 0
        self.contents: dict[int, str] = {}  # number -> hash of what was kept with it
        self.erased: set[int] = set()
        self.findings = findings
        self._mac = _keyed(key)

    def read(self, number: int, record: bytes, digest: bytes, mac: bytes) -> None:
        """The end of a canonical record is known to the byte, so it need not be parsed: a third of the time."""
        if number != self.seq + 1:
            self.findings.append(Finding(self.seq + 1, "missing"))
        elif not record.endswith(b',"prev":"%b","seq":%d,"v":%d}' % (self.last.hex().encode(), number, VERSION)):
            self.findings.append(Finding(number, "order"))
        if hashlib.sha256(record).digest() != digest:
            self.findings.append(Finding(number, "changed"))
        if not hmac.compare_digest(self._mac(digest), mac):
            self.findings.append(Finding(number, "forged"))
        if record.startswith(WITH_CONTENT):
            self.contents[number] = record[len(SEALED) + 5 :][:64].decode("latin-1")
        elif OF_ERASURE in record:
            self.erased |= _erasure(record)
        self.seq, self.last = number, digest
        self.count += 1


def _keyed(key: bytes) -> Callable[[bytes], bytes]:
    """HMAC-SHA-256 (RFC 2104) with the two blocks of the key hashed once: less than half the time of `hmac.digest`, a third of a verification."""
    block = key.ljust(64, b"\0")
    inner, outer = (hashlib.sha256(bytes(byte ^ pad for byte in block)) for pad in (0x36, 0x5C))

    def mac(data: bytes) -> bytes:
        first, second = inner.copy(), outer.copy()
        first.update(data)
        second.update(first.digest())
        return second.digest()

    return mac


def _compare_contents(connection: Connection, chain: _Chain) -> int:
    """Those that are there are those that were kept and not erased. Returns how many were erased."""
    there = {number: hashlib.sha256(kept).hexdigest() for number, kept in _parts(connection, audit_contents.c.seq, audit_contents.c.sealed)}
    for number in chain.contents.keys() | there.keys():
        if there.get(number) != (None if number in chain.erased else chain.contents.get(number)):
            chain.findings.append(Finding(number, "content"))
    return len(chain.erased & chain.contents.keys())


def _tombstones(db: Database, connection: Connection) -> tuple[int, bytes, list[Finding]]:
    through, last, wrong = 0, START, []
    table = audit_tombstones.c
    for number, digest, mac, at in _parts(connection, table.through, table.hash, table.mac, table.at):
        if not hmac.compare_digest(_tombstone_mac(db, number, digest, at), mac):
            wrong.append(Finding(number, "tombstone"))
        through, last = number, digest
    return through, last, wrong


def _erasure(record: bytes) -> set[int]:
    """Whose content the record says was erased; a body may hold the same words and say nothing."""
    try:
        value = json.loads(record)
        return {int(value["body"]["seq"])} if value["kind"] == ERASED else set()
    except (ValueError, TypeError, KeyError):
        return set()  # it was changed, and that is found by its hash


def _parts(connection: Connection, number: Column[int], *columns: Column[Any]) -> Iterator[Any]:
    """Rows in order, text and binary columns as the bytes they are: what was written behind our back need be neither UTF-8 nor binary."""
    query = select(number, *map(_raw, columns)).order_by(number).execution_options(yield_per=BATCH)
    with connection.execute(query) as result:
        for part in result.partitions():
            yield from part


def _raw(column: Column[Any]) -> ColumnElement[Any]:
    if isinstance(column.type, Text):
        return _Bytes(column)
    return cast(column, LargeBinary) if isinstance(column.type, LargeBinary) else column


class _Bytes(FunctionElement[bytes]):
    """The bytes of a text."""

    type = LargeBinary()
    inherit_cache = True


@compiles(_Bytes, "sqlite")
def _bytes_sqlite(element: _Bytes, compiler: Any, **options: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **options)} AS BLOB)"


@compiles(_Bytes, "postgresql")
def _bytes_postgresql(element: _Bytes, compiler: Any, **options: Any) -> str:
    return f"convert_to({compiler.process(element.clauses, **options)}, 'UTF8')"


def _rows(connection: Connection, start: int, count: int | None = None) -> Iterator[tuple[int, str, bytes, bytes]]:
    query = select(audit.c.seq, audit.c.record, audit.c.hash, audit.c.mac).where(audit.c.seq >= start).order_by(audit.c.seq).limit(count)
    with connection.execute(query.execution_options(yield_per=BATCH)) as result:  # closed, too, when whoever reads stops halfway
        for part in result.partitions():
            yield from part


# ── writing


def _append(db: Database, connection: Connection, kind: str, body: Mapping[str, Any], said: str | None, now: int) -> int:
    seq, last = _head(connection)
    sealed_hash = None if said is None else _keep(db, connection, seq + 1, said)
    row = _row(db.secrets.derived(PURPOSE), seq + 1, last, (kind, body, now), sealed_hash)
    connection.execute(insert(audit).values(**row))
    connection.execute(update(audit_head).values(seq=seq + 1, hash=row["hash"]))
    return seq + 1


def _keep(db: Database, connection: Connection, seq: int, said: str) -> str:
    """Sealed, beside the chain; returns the hash that goes into it."""
    kept = sealed.seal(db, connection, "audit_contents", "sealed", str(seq), said.encode("utf-8", "replace"))
    connection.execute(insert(audit_contents).values(seq=seq, sealed=kept))
    return hashlib.sha256(kept).hexdigest()


_HEAD = select(audit_head).with_for_update()


def _head(connection: Connection) -> tuple[int, bytes]:
    """Number and hash of the last record, locked: whoever else appends waits."""
    either = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    head = connection.execute(_HEAD).first()
    if head is None:
        connection.execute(either(audit_head).values(id=1, seq=0, hash=START).on_conflict_do_nothing())
        head = connection.execute(_HEAD).one()
    return int(head.seq), bytes(head.hash)


def _row(key: bytes, seq: int, last: bytes, what: tuple[str, Mapping[str, Any], int], sealed_hash: str | None) -> dict[str, Any]:
    kind, body, at = what
    value: dict[str, Any] = {"at": at, "body": _plain(body), "kind": kind, "prev": last.hex(), "seq": seq, "v": VERSION}
    if sealed_hash is not None:
        value[SEALED] = sealed_hash
    record = _canonical(value)
    data = record.encode()
    if len(data) > LARGEST:
        raise ConfigError(
            Words("監査の記録を書こうとしました。", "Writing an audit record."),
            found=Words("記録が 64 KiB を超えています。", "It has more than 64 KiB."),
            todo=Words("何が起きたかだけを記録してください。", "Record what happened only."),
        )
    digest = hashlib.sha256(data).digest()
    return {"seq": seq, "record": record, "hash": digest, "mac": hmac.digest(key, digest, "sha256")}


def _canonical(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


_UNKEPT = re.compile("[\0\ud800-\udfff]")


def _plain(value: Any) -> Any:
    """As it will be read back; lone surrogates, which UTF-8 cannot spell, and zeros, which PostgreSQL cannot keep, become a mark."""
    if isinstance(value, str):
        return _UNKEPT.sub("�", value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, Mapping):
        return {_plain(str(name)): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    raise TypeError(f"{type(value).__name__} in an audit record")


def _forget(connection: Connection, seq: int) -> None:
    sealed.forget(connection, "audit_contents", str(seq))
    connection.execute(delete(audit_contents).where(audit_contents.c.seq == seq))


def _anchor_mac(db: Database, seq: int, digest: str, at: int) -> bytes:
    return hmac.digest(db.secrets.derived("audit anchor"), f"{seq} {digest} {at}".encode(), "sha256")


def _anchor_ok(db: Database, one: Anchor) -> bool:
    return hmac.compare_digest(_anchor_mac(db, one.seq, one.hash, one.at).hex(), one.mac)


def _tombstone_mac(db: Database, through: int, digest: bytes, at: int) -> bytes:
    return hmac.digest(db.secrets.derived("audit tombstone"), f"{through} {digest.hex()} {at}".encode(), "sha256")
