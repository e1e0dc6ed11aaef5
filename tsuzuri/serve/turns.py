"""Where requests under way and of the last minute are counted: in this process, or where every server sees it.

In: an owner's limits. Out: a `Turn`. `InProcess` is for one server and costs microseconds; `Shared` keeps rows in the database, so that
several servers let in exactly as many together as one would alone. What is decided is decided by `store.turns.Seen.turn` in both.
It knows no keys and no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from tsuzuri.errors import TsuzuriError
from tsuzuri.store import turns
from tsuzuri.store.database import Database
from tsuzuri.store.turns import LEASE_MS, MINUTE, Limits, Seen, Turn

LOG = logging.getLogger("tsuzuri.serve")


class Turns(Protocol):
    async def take(self, limits: Limits) -> Turn: ...
    async def end(self, turn: Turn, tokens: int) -> None: ...  # once for each turn that was not refused
    async def keeping(self) -> None: ...  # beside the server, until it is cancelled


def of(db: Database) -> Turns:
    """SQLite is the database of one server; PostgreSQL may be that of many."""
    return Shared(db) if db.dialect == "postgresql" else InProcess()


@dataclass(slots=True)
class _Owner:
    under_way: int = 0
    began: deque[int] = field(default_factory=deque)
    ended: deque[tuple[int, int]] = field(default_factory=deque)  # when, tokens
    used: int = 0  # their sum

    def seen(self, now: int) -> Seen:
        while self.began and self.began[0] <= now - MINUTE:
            self.began.popleft()
        while self.ended and self.ended[0][0] <= now - MINUTE:
            self.used -= self.ended.popleft()[1]
        first = self.began[0] if self.began else None
        return Seen(self.under_way, len(self.began), self.used, first, self.ended[0][0] if self.ended else None)


class InProcess:
    def __init__(self, clock: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000) -> None:
        self._clock = clock
        self._owners: defaultdict[str, _Owner] = defaultdict(_Owner)

    async def take(self, limits: Limits) -> Turn:
        now, owner = self._clock(), self._owners[limits.owner]
        made = owner.seen(now).turn(limits, now)
        if made.refused is None:
            owner.under_way += 1
            if limits.a_minute:
                owner.began.append(now)
        return made

    async def end(self, turn: Turn, tokens: int) -> None:
        owner = self._owners[turn.limits.owner]
        owner.under_way -= 1
        if turn.limits.a_minute and tokens:
            owner.ended.append((self._clock(), tokens))
            owner.used += tokens

    async def keeping(self) -> None:
        """Forgets owners of whom nothing counts."""
        while True:
            await asyncio.sleep(MINUTE / 1000)
            now = self._clock()
            for name in [name for name, owner in self._owners.items() if owner.seen(now) == Seen(0, 0, 0, None, None)]:
                del self._owners[name]


class Shared:
    """Two transactions a request, neither of which waits for the disk."""

    def __init__(self, db: Database, lease_ms: int = LEASE_MS) -> None:
        self._db, self._lease = db, lease_ms
        self._held: set[str] = set()
        self._ending: defaultdict[str, set[asyncio.Task[None]]] = defaultdict(set)

    async def take(self, limits: Limits) -> Turn:
        """A client that had its answer may come again before its place is given back: that is waited for, as it is not its fault."""
        if limits.owner in self._ending:
            await asyncio.wait(set(self._ending[limits.owner]))
        made = await asyncio.to_thread(turns.take, self._db, limits, lease_ms=self._lease)
        if made.refused is None:
            self._held.add(made.id)
        return made

    async def end(self, turn: Turn, tokens: int) -> None:
        owner = turn.limits.owner
        task = asyncio.create_task(self._end(turn, tokens))
        self._ending[owner].add(task)
        try:
            await asyncio.shield(task)
        finally:
            task.add_done_callback(lambda _: self._ended(owner, task))

    async def _end(self, turn: Turn, tokens: int) -> None:
        try:
            await asyncio.to_thread(turns.end, self._db, turn, tokens)
        except (TsuzuriError, OSError) as error:  # its lease ends it
            LOG.error("a place cannot be given back: %s", type(error).__name__)
        self._held.discard(turn.id)

    def _ended(self, owner: str, task: asyncio.Task[None]) -> None:
        self._ending[owner].discard(task)
        if not self._ending[owner]:
            del self._ending[owner]

    async def keeping(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3000)
            try:
                await asyncio.to_thread(turns.renew, self._db, tuple(self._held), lease_ms=self._lease)
            except (TsuzuriError, OSError) as error:
                LOG.error("places cannot be kept: %s", type(error).__name__)
