"""One door to the database: an address in, transactions out; the same code on SQLite and PostgreSQL.

SQLite: WAL, synchronous=FULL (what was told as written survives a power cut), foreign keys, erased pages overwritten, and exactly one
connection that writes: a lock in the process, a lock on a file between processes. Readers are read-only and see a snapshot.
PostgreSQL: a pool, READ COMMITTED; whoever needs a row to himself locks it. The schema is brought up to date on opening; one that is
newer than this program is refused. It knows no table but `facts`.
"""

from __future__ import annotations

import os
import re
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from sqlalchemy import Connection, Engine, Select, create_engine, event, exc, inspect, select, text
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import QueuePool, StaticPool

from tsuzuri.directory import told
from tsuzuri.errors import BusyError, ConfigError, FormatError, MissingError, RemoteError, SpaceError, TsuzuriError, Words
from tsuzuri.folder import names
from tsuzuri.store.secrets import PEPPER, Secrets
from tsuzuri.store.tables import facts

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

VERSIONS = "tsuzuri.store.migrations.versions"
FILE, LOCK = "tsuzuri.sqlite3", "writer.lock"
WAL_RESET = ((3, 7, 0), (3, 51, 2))  # first and last SQLite in which two writers at once can lose the end of the WAL
BUSY_MS = 30_000
READERS = 8
WAIT_S = 60  # for a free connection
Dialect = Literal["sqlite", "postgresql"]


class Database:
    """What `open` returns. Threads share it; processes open their own."""

    def __init__(self, dialect: Dialect, writer: Engine, reader: Engine, secrets: Secrets, lock: Path | None) -> None:
        self.dialect: Dialect = dialect
        self.secrets = secrets
        self._writer, self._reader = writer, reader
        self._lock = lock
        self._turn = threading.Lock()
        self._holder: int | None = None

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: committed at the end of the block, undone by an exception. On SQLite one at a time, in this process and
        every other. Not to be nested: the inner one would wait for the outer one for ever."""
        if self._lock is None:
            with _told(), self._writer.begin() as connection:
                yield connection
            return
        if self._holder == threading.get_ident():
            raise RuntimeError("a write inside a write of the same thread")
        with self._turn, _only(self._lock), _told():
            self._holder = threading.get_ident()
            try:
                with self._writer.begin() as connection:
                    yield connection
            finally:
                self._holder = None

    @property
    def near(self) -> bool:
        """Whether a row is read in microseconds and never waited for, so that an event loop may do it: SQLite's readers wait for no writer.
        Anything else is never waited for there."""
        return self._lock is not None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A snapshot: what is written meanwhile is not seen. Writing through it fails."""
        with _told(), self._reader.connect() as connection, connection.begin():
            yield connection

    def checkpoint(self) -> bool:
        """SQLite: everything in the WAL goes into the database and the WAL is emptied; False where a reader was in the way."""
        if self._lock is None:
            return True
        with self._turn, _only(self._lock), self._writer.connect() as connection:
            raw: Any = connection.connection.driver_connection
            busy, _, _ = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    def close(self) -> None:
        self._reader.dispose()
        if self._lock is None:
            self._writer.dispose()
            return
        with self._turn, _only(self._lock):  # the last one out writes the WAL back: a writer, too
            self._writer.dispose()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open(address: str | Path, secrets: Path | None = None) -> Database:
    """The database at `address`: a directory (SQLite, made when it is not there) or postgresql://…; brought up to date.

    `secrets`: the directory of the pepper and the master keys; see `place_of_secrets` for where it is unless given.
    Raises ConfigError, FormatError (damaged, newer than this program, another's secrets), MissingError, RemoteError, SpaceError.
    """
    database = connect(address, secrets)
    try:
        upgrade(database)
        check_secrets(database)
    except BaseException:
        database.close()
        raise
    return database


def connect(address: str | Path, secrets: Path | None = None) -> Database:
    """The database as it is: no schema is made or changed, no secret is read."""
    place = Secrets(secrets or place_of_secrets(address))
    if isinstance(address, str) and "://" in address:
        return _postgresql(address, place)
    return _sqlite(Path(address), place)


def default_address() -> str | Path:
    """TSUZURI_DATABASE_URL where it is set, or `default_directory`."""
    return os.environ.get("TSUZURI_DATABASE_URL") or default_directory()


def shown(address: str | Path) -> str:
    """For a person: of an address of PostgreSQL its host, port and database alone, for the rest may hold a password."""
    if not (isinstance(address, str) and "://" in address):
        return str(address)
    try:
        url = make_url(address)
    except exc.ArgumentError:
        return "?"
    return f"{url.get_backend_name()}://{url.host or ''}{f':{url.port}' if url.port else ''}/{url.database or ''}"


def default_directory() -> Path:
    """TSUZURI_DATA_DIR, or `tsuzuri` where the system keeps the data of programs."""
    given = os.environ.get("TSUZURI_DATA_DIR")
    if given:
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "tsuzuri"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "tsuzuri"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "tsuzuri"


def place_of_secrets(address: str | Path) -> Path:
    """TSUZURI_SECRETS_DIR, or beside the data directory: DATA.secrets. Never inside it, so that no copy of the data holds them."""
    given = os.environ.get("TSUZURI_SECRETS_DIR")
    if given:
        return Path(given)
    data = default_directory() if isinstance(address, str) and "://" in address else Path(address)
    data = data.absolute()
    return data.with_name(f"{data.name}.secrets")


def upgrade(database: Database, to: str | None = None) -> None:
    """Applies the versions that are missing, up to `to`, in one transaction. One that this program does not know: FormatError."""
    known = names(VERSIONS)
    to = to or known[-1]
    with database.read() as connection:
        now = version(connection)
    if now == to:
        return
    if now is not None and now not in known:
        raise FormatError(
            Words("データベースを開こうとしました。", "Opening the database."),
            found=Words(
                f"スキーマの版 {now} は、このプログラムの知る版（{known[-1]} まで）より新しいものです。",
                f"Its schema, {now}, is newer than this program knows (up to {known[-1]}).",
            ),
            todo=Words("tsuzuri を新しくしてください。何も変えていません。", "Update tsuzuri. Nothing has been changed."),
        )
    _migrate(database, to)


def _migrate(database: Database, to: str) -> None:
    from alembic import command  # noqa: PLC0415  a third of a second that a database up to date does not pay
    from alembic.config import Config  # noqa: PLC0415

    with database.write() as connection:
        if database.dialect == "postgresql":  # another process may be doing the same
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": 0x7473757A})
        config = Config()
        config.set_main_option("script_location", "tsuzuri.store:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, to)


def version(connection: Connection) -> str | None:
    """Of the schema; None where there is none yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return str(found) if found else None


def check_secrets(database: Database) -> None:
    """The pepper is the one the rows were made with; for a new database it is made. Raises MissingError, FormatError."""
    with database.read() as connection:
        expected = connection.execute(_fact(PEPPER)).scalar()
    if expected is None:
        if not database.secrets.has(PEPPER):
            database.secrets.create(PEPPER)
        row = {"name": PEPPER, "value": database.secrets.fingerprint(PEPPER)}
        either = postgresql_insert if database.dialect == "postgresql" else sqlite_insert
        with database.write() as connection:  # of many who open a new database at once one decides
            connection.execute(either(facts).values(**row).on_conflict_do_nothing())
        with database.read() as connection:
            expected = connection.execute(_fact(PEPPER)).scalar()
    if database.secrets.fingerprint(PEPPER) != expected:
        raise FormatError(
            Words("データベースを開こうとしました。", "Opening the database."),
            found=Words(
                f"{database.secrets.directory} の pepper は、このデータベースのものではありません。",
                f"The pepper in {database.secrets.directory} is not the one of this database.",
            ),
            todo=Words(
                "TSUZURI_SECRETS_DIR で、このデータベースの秘密鍵の場所を指定してください。",
                "Name the place of this database's secrets with TSUZURI_SECRETS_DIR.",
            ),
        )


def _fact(name: str) -> Select[str]:
    return select(facts.c.value).where(facts.c.name == name)


# ── SQLite


def _sqlite(directory: Path, secrets: Secrets) -> Database:
    check_sqlite(sqlite3.sqlite_version_info, locks=fcntl is not None)
    directory = directory.absolute()
    if secrets.directory.absolute().is_relative_to(directory):
        raise ConfigError(
            Words(f"{directory} のデータベースを開こうとしました。", f"Opening the database in {directory}."),
            found=Words("秘密鍵の場所がデータのディレクトリの中です。", "The place of the secrets is inside the data directory."),
            todo=Words("TSUZURI_SECRETS_DIR を、その外にしてください。", "Set TSUZURI_SECRETS_DIR to a place outside it."),
        )
    with told(directory):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in (FILE, LOCK):  # before SQLite does, so that nobody else may read them; its WAL takes the mode of the database
            os.close(os.open(directory / name, os.O_RDWR | os.O_CREAT, 0o600))
    path, lock = directory / FILE, directory / LOCK
    writer = create_engine("sqlite://", creator=lambda: _writing(path), poolclass=StaticPool)
    reader = create_engine(
        "sqlite://", creator=lambda: _reading(path), poolclass=QueuePool, pool_size=READERS, max_overflow=64, pool_timeout=WAIT_S
    )
    event.listen(writer, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    event.listen(reader, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    with _only(lock), _told():
        try:
            writer.connect().close()  # a file that is no database is told here, and the WAL is there before anyone reads
        except BaseException:
            writer.dispose()
            raise
    return Database("sqlite", writer, reader, secrets, lock)


def check_sqlite(found: tuple[int, int, int], *, locks: bool) -> None:
    """Two connections that write or checkpoint at once can lose data in SQLite 3.7.0 to 3.51.2 (its WAL-reset bug). Here there is
    only ever one: a lock on a file keeps the others out. Where the system has no such lock, such an SQLite is refused."""
    if locks or not WAL_RESET[0] <= found <= WAL_RESET[1]:
        return
    shown = ".".join(map(str, found))
    raise ConfigError(
        Words("データベースを開こうとしました。", "Opening the database."),
        found=Words(
            f"この Python の SQLite {shown} は、二つのプロセスが同時に書くとデータを失うことがあります。",
            f"SQLite {shown} of this Python can lose data when two processes write at once.",
        ),
        todo=Words(
            "SQLite 3.51.3 以上の Python を使うか、TSUZURI_DATABASE_URL で PostgreSQL を指定してください。",
            "Use a Python with SQLite 3.51.3 or newer, or name a PostgreSQL with TSUZURI_DATABASE_URL.",
        ),
    )


def _writing(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA secure_delete=ON")
    connection.execute("PRAGMA temp_store=MEMORY")
    return connection


def _reading(path: Path) -> sqlite3.Connection:
    """Read-only: it never checkpoints, not even when it is the last to close."""
    address = f"file:{quote(str(path))}?mode=ro"
    connection = sqlite3.connect(address, uri=True, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA temp_store=MEMORY")
    return connection


@contextmanager
def _only(lock: Path) -> Iterator[None]:
    """No other process writes meanwhile. The system lifts the lock of a process that dies."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


# ── PostgreSQL


def _postgresql(address: str, secrets: Secrets) -> Database:
    url = _url(address)
    try:
        import psycopg  # noqa: F401, PLC0415  optional
    except ImportError as error:
        raise MissingError(
            Words("PostgreSQL につなごうとしました。", "Connecting to PostgreSQL."),
            found=Words("psycopg が入っていません。", "psycopg is not installed."),
            todo=Words("pip install 'tsuzuri[postgres]' を実行してください。", "Run pip install 'tsuzuri[postgres]'."),
        ) from error
    engine = create_engine(
        url, pool_size=READERS, max_overflow=24, pool_timeout=WAIT_S, pool_pre_ping=True, isolation_level="READ COMMITTED"
    )
    reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return Database("postgresql", engine, reader, secrets, None)


def _url(address: str) -> URL:
    try:
        url = make_url(address)
    except (exc.ArgumentError, ValueError):
        url = None
    if url is None or not re.fullmatch(r"postgres(ql)?(\+psycopg)?", url.drivername):
        raise ConfigError(
            Words("データベースの宛先を読もうとしました。", "Reading the address of the database."),
            found=Words("postgresql:// で始まる宛先ではありません。", "It is not one that begins with postgresql://."),
            todo=Words(
                "例：postgresql://user@/tsuzuri?host=/var/run/postgresql。ディレクトリなら SQLite になります。",
                "For example postgresql://user@/tsuzuri?host=/var/run/postgresql. A directory means SQLite.",
            ),
        )
    return url.set(drivername="postgresql+psycopg")


@contextmanager
def _told() -> Iterator[None]:
    """What a person can do something about becomes ours, without SQL or address; a programmer's fault stays as it is."""
    asked = Words("データベースを使おうとしました。", "Using the database.")
    try:
        yield
    except exc.TimeoutError as error:
        raise BusyError(
            asked,
            found=Words("すべての接続が使われています。", "All connections are in use."),
            todo=Words("少し待って、もう一度試してください。", "Wait a little and try again."),
        ) from error
    except (exc.DBAPIError, sqlite3.Error) as error:
        known = _known(asked, error.orig if isinstance(error, exc.DBAPIError) else error)
        if known is None:
            raise
        raise known from error


def _known(asked: Words, error: BaseException | None) -> TsuzuriError | None:
    name = getattr(error, "sqlite_errorname", "") or type(error).__name__
    if name in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
        return _damaged()
    if name in ("SQLITE_FULL", "DiskFull"):
        return _no_room(asked)
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
        return SpaceError(
            asked,
            found=Words("書き込む権限がないか、ファイルを開けません。", "There is no permission to write, or a file cannot be opened."),
            todo=Words("データのディレクトリの権限を確かめてください。", "Check the permissions of the data directory."),
        )
    if name.startswith("SQLITE_BUSY"):
        return BusyError(
            asked,
            found=Words("別のプログラムが使っています。", "Another program is using it."),
            todo=Words("少し待って、もう一度試してください。", "Wait a little and try again."),
        )
    if name in ("OperationalError", "ConnectionTimeout", "AdminShutdown", "ConnectionFailure", "CannotConnectNow"):  # of psycopg
        return RemoteError(
            asked,
            found=Words("つながらないか、応答がありません。", "It cannot be reached or does not answer."),
            todo=Words("宛先と、データベースが動いていることを確かめてください。", "Check the address and that the database is running."),
        )
    return None


def _no_room(asked: Words) -> SpaceError:
    return SpaceError(
        asked,
        found=Words("空き容量が足りません。", "There is no space left."),
        todo=Words("空きを作ってください。書き終えたものは残っています。", "Free some space. What was written is still there."),
    )


def _damaged() -> FormatError:
    return FormatError(
        Words("データベースを開こうとしました。", "Opening the database."),
        found=Words("SQLite のデータベースではないか、壊れています。", "It is not an SQLite database, or a damaged one."),
        todo=Words("tsuzuri restore でバックアップから戻してください。", "Restore a backup with tsuzuri restore."),
    )
