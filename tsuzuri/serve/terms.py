"""The terms on which a service serves: what it costs, what is looked for, what is kept, and how much at once. It knows no file and no flag."""

from __future__ import annotations

from dataclasses import dataclass, field

from tsuzuri.serve.books import Cost
from tsuzuri.serve.guarding import NOTHING, Guard
from tsuzuri.serve.keeping import DAYS
from tsuzuri.serve.proxies import Proxies
from tsuzuri.serve.watch.settings import Watch

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class Terms:
    cost: Cost | None = None  # None: nothing has a price
    guard: Guard = NOTHING
    hosts: tuple[str, ...] = LOOPBACK  # names in a Host header that mean this server; "*": any
    at_once: int = 64  # requests under way in the whole server
    deadline: float = 600.0  # seconds that one answer may take
    keep: int = DAYS  # days for which an answer is stored that a client asks to have stored; 0: none is
    keep_content: bool = False  # what is said is kept with the audit, sealed
    keep_ms: int | None = None  # how long records are kept; None: for ever
    proxies: Proxies = Proxies()
    watts: float | None = None  # what the machine draws under load, for where no counter tells it
    watch: Watch = field(default_factory=Watch)  # what is written down, compared and told of it
    shared_limits: bool = False  # several servers count together on SQLite, too; on PostgreSQL they always do
