"""One door: transactions, permissions, versions of the schema, secrets; SQLite's one writer; both databases alike."""

from __future__ import annotations

import ast
import os
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from place import ROOT
from sqlalchemy import CheckConstraint, func, insert, inspect, select, text, update

from tsuzuri import store
from tsuzuri.errors import ConfigError, FormatError, MissingError, RemoteError, TsuzuriError
from tsuzuri.folder import names
from tsuzuri.store import audit, database, keys, ledger, users
from tsuzuri.store.database import Database
from tsuzuri.store.tables import facts, metadata

DUMP = ROOT / "tests" / "data" / "store-v0001.sql"


def put(db: Database, name: str) -> None:
    with db.write() as connection:
        connection.execute(insert(facts).values(name=name, value="x"))


def there(db: Database) -> set[str]:
    with db.read() as connection:
        return set(connection.execute(select(facts.c.name)).scalars()) - {"pepper"}


# ── transactions


def test_what_is_written_is_there_and_what_failed_is_not(db: Database) -> None:
    put(db, "a")
    with pytest.raises(RuntimeError, match="halfway"), db.write() as connection:
        connection.execute(insert(facts).values(name="b", value="x"))
        raise RuntimeError("halfway")
    assert there(db) == {"a"}
    put(db, "c")
    assert there(db) == {"a", "c"}


def test_a_reader_sees_one_moment_and_cannot_write(db: Database) -> None:
    with db.read() as connection:
        before = connection.execute(select(func.count()).select_from(facts)).scalar()
        put(db, "a")
        assert connection.execute(select(func.count()).select_from(facts)).scalar() == before
    with pytest.raises(Exception, match=r"read-only|書き込む権限"), db.read() as connection:
        connection.execute(insert(facts).values(name="b", value="x"))
    assert there(db) == {"a"}


def test_what_is_committed_is_there_for_another_who_opens_it(db: Database, address: str | Path, secret_place: Path) -> None:
    put(db, "a")
    with database.open(address, secret_place) as other:
        assert there(other) == {"a"}
        put(other, "b")
    assert there(db) == {"a", "b"}


def test_threads_write_one_after_the_other_and_nothing_is_lost(db: Database) -> None:
    with db.write() as connection:
        connection.execute(insert(facts).values(name="count", value="0"))

    def add(_: int) -> None:
        with db.write() as connection:
            value = connection.execute(select(facts.c.value).where(facts.c.name == "count").with_for_update()).scalar_one()
            connection.execute(update(facts).where(facts.c.name == "count").values(value=str(int(value) + 1)))

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(add, range(100)))
    with db.read() as connection:
        assert connection.execute(select(facts.c.value).where(facts.c.name == "count")).scalar() == "100"


def test_a_write_inside_a_write_is_told_instead_of_waiting_for_ever(tmp_path: Path) -> None:
    with database.open(tmp_path / "data", tmp_path / "secrets") as db:
        with db.write(), pytest.raises(RuntimeError, match="inside"), db.write():
            pass
        put(db, "a")
        assert there(db) == {"a"}


# ── SQLite


def test_sqlite_is_set_up_to_lose_nothing(tmp_path: Path) -> None:
    with database.open(tmp_path / "data", tmp_path / "secrets") as db, db.write() as connection:
        found = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}


def test_nobody_else_may_read_the_files(tmp_path: Path) -> None:
    before = os.umask(0o000)
    try:
        with database.open(tmp_path / "data", tmp_path / "secrets") as db:
            put(db, "a")
            files = [*(tmp_path / "data").iterdir(), *(tmp_path / "secrets").iterdir()]
            assert {file.name for file in files} >= {database.FILE, f"{database.FILE}-wal", "pepper"}
            assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
            assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_another_process_waits_while_one_writes(tmp_path: Path) -> None:
    """The WAL-reset bug of SQLite needs two writers at one moment: a lock on a file leaves only one."""
    code = """
import sys
from pathlib import Path
from sqlalchemy import insert
from tsuzuri.store import database
from tsuzuri.store.tables import facts
with database.open(Path(sys.argv[1]), Path(sys.argv[2])) as db:
    print("open", flush=True)
    with db.write() as connection:
        print("writing", flush=True)
"""
    line = [sys.executable, "-c", code, str(tmp_path / "data"), str(tmp_path / "secrets")]
    with database.open(tmp_path / "data", tmp_path / "secrets") as db:
        with db.write():
            process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
            with pytest.raises(subprocess.TimeoutExpired) as waiting:
                process.communicate(timeout=5)
            assert not waiting.value.stdout, "SQLite's own lock would let it open, and checkpoint"
        assert process.communicate(timeout=60)[0] == "open\nwriting\n"
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("found", "locks", "refused"),
    [
        ((3, 6, 9), False, False),
        ((3, 7, 0), False, True),
        ((3, 51, 2), False, True),
        ((3, 51, 3), False, False),
        ((3, 40, 1), True, False),
    ],
)
def test_an_sqlite_that_can_lose_the_wal_is_used_only_where_a_lock_keeps_it_to_one_writer(
    found: tuple[int, int, int], locks: bool, refused: bool
) -> None:
    if not refused:
        database.check_sqlite(found, locks=locks)
        return
    with pytest.raises(ConfigError, match=r"3\.\d+\.\d+"):
        database.check_sqlite(found, locks=locks)


def test_what_is_no_database_is_told_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / database.FILE
    file.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(FormatError, match="SQLite"):
        database.open(tmp_path / "data", tmp_path / "secrets")
    assert file.read_bytes() == b"this is no database at all" * 100


def test_a_place_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TsuzuriError, match="file"):
        database.open(tmp_path / "file" / "data", tmp_path / "secrets")


# ── PostgreSQL


@pytest.mark.parametrize("address", ["mysql://x/y", "postgres ql://x", "sqlite:///x", "://"])
def test_an_address_that_is_none_is_told(address: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="postgresql://"):
        database.open(address, tmp_path / "secrets")


def test_a_server_that_is_not_there_is_told_without_the_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(RemoteError) as caught:
        database.open(f"postgresql://someone:himitsu@/x?host={tmp_path}", tmp_path / "secrets")
    assert "himitsu" not in str(caught.value)


# ── the schema


def test_the_versions_lead_to_the_tables(db: Database) -> None:
    with db.read() as connection:
        found = compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)
        assert found == []
        checks = {check["name"] for table in metadata.sorted_tables for check in inspect(connection).get_check_constraints(table.name)}
    wanted = {str(c.name) for table in metadata.sorted_tables for c in table.constraints if isinstance(c, CheckConstraint)}
    assert wanted >= {"ck_balances_held"}
    assert checks == wanted


def test_a_database_of_the_first_version_comes_up_to_date_with_everything_in_it(tmp_path: Path) -> None:
    """tests/data holds what version 1 had written, as SQL, and its pepper: all of it works in the newest version."""
    place, secrets = tmp_path / "data", tmp_path / "secrets"
    place.mkdir()
    secrets.mkdir()
    with sqlite3.connect(place / database.FILE) as raw:
        raw.executescript(DUMP.read_text(encoding="utf-8"))
    raw.close()
    (secrets / "pepper").write_text("11" * 32)
    (secrets / "master-0001").write_text("22" * 32)
    for name in ("pepper", "master-0001"):
        (secrets / name).chmod(0o600)
    with database.open(place, secrets) as db:
        with db.read() as connection:
            assert database.version(connection) == names(database.VERSIONS)[-1]
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        key = keys.find(db, first_secret())
        assert key is not None and key.name == "受付"
        assert users.sign_in(db, "山田", "朝の散歩と味噌汁と新聞紙") is not None
        assert ledger.balance(db, ledger.ALL, "2023-11").spent == 70 and ledger.verify(db) == []
        assert audit.verify(db).sound
        said = [record.seq for record in audit.records(db) if record.kind == "chat"]
        assert audit.content(db, said[0]) == "第一版で書いた文"


@pytest.mark.parametrize("start", names(database.VERSIONS))
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_every_released_schema_comes_up_to_date_on_both_databases(kind: str, start: str, another: object, tmp_path: Path) -> None:
    with database.connect(another(kind), tmp_path / "secrets") as db:  # type: ignore[operator]
        database.upgrade(db, start)
        with db.write() as connection:
            user = "INSERT INTO users (id, name, role, active, created_at) VALUES ('user_1', '山田', 'member', TRUE, 5)"
            connection.execute(text(user))
            session = "INSERT INTO sessions (hash, user_id, created_at, expires_at) VALUES (:hash, 'user_1', 7, 9)"
            connection.execute(text(session), {"hash": b"x"})
        database.upgrade(db)
        with db.read() as connection:
            assert database.version(connection) == names(database.VERSIONS)[-1]
            assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata) == []
            assert connection.execute(text("SELECT user_id, expires_at FROM sessions")).all() == [("user_1", 9)]
            assert connection.execute(text("SELECT seen_at FROM sessions")).scalar() == (7 if start < "v0003" else 0)
        database.upgrade(db)


def first_secret() -> str:
    """In the first line of the dump, as a comment: the key that its rows hold only the hash of."""
    return DUMP.read_text(encoding="utf-8").partition("\n")[0].removeprefix("-- ")


def test_a_newer_schema_is_refused_and_left_alone(db: Database, address: str | Path, secret_place: Path) -> None:
    put(db, "a")
    with db.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'v9999'"))
    with pytest.raises(FormatError, match="v9999"):
        database.open(address, secret_place)
    with db.read() as connection:
        assert database.version(connection) == "v9999"
    assert there(db) == {"a"}


def test_many_who_open_a_new_database_at_once_make_it_once(db: Database, another: object, tmp_path: Path) -> None:
    place = another(db.dialect)  # type: ignore[operator]

    def opened(_: int) -> str:
        with database.open(place, tmp_path / "more") as found:
            return found.secrets.fingerprint("pepper")

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(opened, range(4)))) == 1


# ── secrets


def test_a_pepper_that_is_gone_or_anothers_is_told_and_never_made_anew(db: Database, address: str | Path, secret_place: Path) -> None:
    file = secret_place / "pepper"
    was = file.read_text()
    file.unlink()
    with pytest.raises(MissingError, match="pepper"):
        database.open(address, secret_place)
    assert not file.exists()
    for wrong, said in (("00" * 32, "このデータベースのもの"), ("zz", "壊れて"), (was.strip()[:-1], "壊れて")):
        file.write_text(wrong)
        file.chmod(0o600)
        with pytest.raises(FormatError, match=said):
            database.open(address, secret_place)
    file.write_text(was)
    file.chmod(0o644)
    with pytest.raises(FormatError, match="chmod 600"):
        database.open(address, secret_place)
    file.chmod(0o600)
    database.open(address, secret_place).close()


def test_secrets_do_not_lie_with_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for inside in ("data", "data/secrets"):
        with pytest.raises(ConfigError, match="TSUZURI_SECRETS_DIR"):
            database.open(tmp_path / "data", tmp_path / inside)
    monkeypatch.delenv("TSUZURI_SECRETS_DIR", raising=False)
    assert database.place_of_secrets(tmp_path / "data") == tmp_path / "data.secrets"
    monkeypatch.setenv("TSUZURI_SECRETS_DIR", str(tmp_path / "elsewhere"))
    with database.open(tmp_path / "data"):
        assert (tmp_path / "elsewhere" / "pepper").is_file()


def test_where_the_data_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TSUZURI_DATABASE_URL", "TSUZURI_DATA_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert database.default_address() == tmp_path / ".local" / "share" / "tsuzuri"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert database.default_address() == tmp_path / "xdg" / "tsuzuri"
    monkeypatch.setenv("TSUZURI_DATA_DIR", str(tmp_path / "here"))
    assert database.default_address() == tmp_path / "here"
    monkeypatch.setenv("TSUZURI_DATABASE_URL", "postgresql://x/y")
    assert database.default_address() == "postgresql://x/y"


# ── the source


def test_no_statement_is_put_together_from_strings() -> None:
    """Values are parameters: no f-string, `%`, `+` or `.format` reaches `execute` or `text`."""
    for file in sorted(Path(store.__path__[0]).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or getattr(node.func, "attr", getattr(node.func, "id", "")) not in (
                "execute",
                "exec_driver_sql",
                "text",
                "executescript",
            ):
                continue
            for argument in node.args[:1]:
                built = isinstance(argument, ast.JoinedStr | ast.BinOp) or (
                    isinstance(argument, ast.Call) and getattr(argument.func, "attr", "") == "format"
                )
                assert not built, f"{file.name}:{node.lineno}"


def test_the_room_needs_no_torch() -> None:
    code = (
        "import sys; from tsuzuri.store import audit, backup, database, keys, ledger, prices, sealed, users; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout == "False\n"
