"""Every table on one screen. In: nothing. Out: SQLAlchemy Core tables, the same on SQLite and PostgreSQL.

Times are whole milliseconds since 1970 (UTC); money is whole micro-units of a currency (1,000,000 = 1 yen or 1 dollar);
lists are JSON text. A change here needs a file in `migrations/versions`; a test compares the two. It holds no logic.
"""

from __future__ import annotations

import time

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Dialect, ForeignKey, Index, Integer, LargeBinary, MetaData, Table
from sqlalchemy import Text as AnyText
from sqlalchemy.types import TypeDecorator


class Text(TypeDecorator[str]):
    """A zero in a text becomes a mark, in what is looked for too: PostgreSQL cannot keep it, and then there is nothing of that name."""

    impl = AnyText
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else value.replace("\0", "\ufffd")


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)
WHOLE = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers its rows by it, and takes nothing else there


def now_ms() -> int:
    """Milliseconds since 1970 (UTC), as the tables keep them."""
    return time.time_ns() // 1_000_000


facts = Table(  # of the installation: which pepper and which master key the rows were made with
    "facts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

# ── people
users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("password", Text),  # argon2id, with its salt and cost; null: nobody signs in under this name
    Column("role", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("first", Integer, unique=True),  # 1 for the first administrator: the constraint decides who that is
    Column("created_at", BigInteger, nullable=False),
)
sessions = Table(
    "sessions",
    metadata,
    Column("hash", LargeBinary, primary_key=True),  # HMAC of the token under the pepper: a stolen row signs nobody in
    Column("user_id", Text, ForeignKey("users.id"), nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False, server_default="0"),  # to the minute; who is away for long is signed out
)
attempts = Table(  # guesses at passwords since `since`: at a name, and from an address; both as an HMAC
    "attempts",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("since", BigInteger, nullable=False),
)
invitations = Table(  # the one-time token that makes the first administrator
    "invitations",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),
)

# ── keys
keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("prefix", Text, nullable=False, unique=True),  # public: the look-up goes by it
    Column("hash", LargeBinary, nullable=False),  # HMAC-SHA-256 of the whole key under the pepper
    Column("name", Text, nullable=False),
    Column("user_id", Text, ForeignKey("users.id"), index=True),
    Column("scopes", Text, nullable=False),
    Column("models", Text),  # null: all
    Column("addresses", Text, nullable=False),  # CIDR; empty: from anywhere
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("concurrent", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("last_used_at", BigInteger),  # to the minute
    Column("revoked_at", BigInteger),
    Column("replaces", Text, ForeignKey("keys.id", deferrable=True, initially="DEFERRED")),  # a backup need not put them in order
)
turns = Table(  # requests under way, and those of the last minute where a limit counts them
    "turns",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False, index=True),  # a key's id, or a user's
    Column("began_at", BigInteger, nullable=False),
    Column("lease_until", BigInteger, nullable=False),  # a place of a server that died is free from then on
    Column("ended_at", BigInteger),
    Column("tokens", BigInteger, nullable=False),  # what it came to, once it has ended
)

# ── money
limits = Table(  # what an owner may spend in a month; no row: as much as it takes, counted all the same
    "limits",
    metadata,
    Column("owner", Text, primary_key=True),  # key:ID, user:ID or all
    Column("amount", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    CheckConstraint("amount >= 0", name="amount"),
)
balances = Table(  # sums of the entries, kept in the same transaction; `ledger.verify` adds them up again
    "balances",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("month", Text, primary_key=True),  # 2026-11, in the time zone of the ledger
    Column("held", BigInteger, nullable=False),
    Column("spent", BigInteger, nullable=False),
    CheckConstraint("held >= 0", name="held"),
    CheckConstraint("spent >= 0", name="spent"),
)
reservations = Table(
    "reservations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("request_id", Text, nullable=False, unique=True),
    Column("owners", Text, nullable=False),
    Column("month", Text, nullable=False),
    Column("most", BigInteger, nullable=False),
    Column("delivered", BigInteger, nullable=False),  # so far; what is charged if nobody settles
    Column("state", Text, nullable=False),  # held, settled
    Column("created_at", BigInteger, nullable=False),
    Column("lease_until", BigInteger, nullable=False),
    Index("ix_reservations_open", "state", "lease_until"),
)
entries = Table(  # double entry: the amounts of one transfer add up to zero
    "entries",
    metadata,
    Column("id", WHOLE, primary_key=True, autoincrement=True),
    Column("reservation_id", Text, ForeignKey("reservations.id"), nullable=False, index=True),
    Column("owner", Text, nullable=False),
    Column("month", Text, nullable=False),
    Column("account", Text, nullable=False),  # free, held, spent
    Column("amount", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Index("ix_entries_owner", "owner", "month", "account"),
)

energy = Table(  # what models of our own drew for an owner in a month, in millijoules
    "energy",
    metadata,
    Column("owner", Text, primary_key=True),  # key:ID, user:ID or all
    Column("month", Text, primary_key=True),
    Column("measured", BigInteger, nullable=False),  # by the machine's counter
    Column("estimated", BigInteger, nullable=False),  # from configured watts
)

# ── what happened
audit = Table(
    "audit",
    metadata,
    Column("seq", WHOLE, primary_key=True, autoincrement=False),  # 1, 2, 3 … without a gap
    Column("record", AnyText, nullable=False),  # canonical JSON, exactly, the hash of the one before it included
    Column("hash", LargeBinary, nullable=False),  # SHA-256 of `record`
    Column("mac", LargeBinary, nullable=False),  # HMAC of `hash` under a key that is not in the database
)
audit_head = Table(  # one row, locked by whoever appends
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)
audit_tombstones = Table(  # what stood in the place of a pruned beginning
    "audit_tombstones",
    metadata,
    Column("through", WHOLE, primary_key=True, autoincrement=False),  # the last record that is gone
    Column("hash", LargeBinary, nullable=False),  # its hash: the next record names it
    Column("at", BigInteger, nullable=False),
    Column("mac", LargeBinary, nullable=False),
)
audit_contents = Table(  # only where it was asked for, and sealed; may be erased without breaking the chain
    "audit_contents",
    metadata,
    Column("seq", WHOLE, primary_key=True, autoincrement=False),
    Column("sealed", LargeBinary, nullable=False),
)

# ── answers that somebody asked to have kept
responses = Table(
    "responses",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),  # user ID or key ID: for anybody else it is not there
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    Column("size", BigInteger, nullable=False),  # bytes of `sealed`
    Column("sealed", LargeBinary, nullable=False),  # what was asked and answered
    Index("ix_responses_owner", "owner", "expires_at"),
)

# ── sealed columns
data_keys = Table(  # one for each record; without it what was sealed is noise
    "data_keys",
    metadata,
    Column("record", Text, primary_key=True),  # TABLE/ROW
    Column("wrapped", LargeBinary, nullable=False),
    Column("master", Text, nullable=False, index=True),  # which master key wraps it
)
