"""What was made for several tenants, kept within one bound: who asks for much pushes out their own, never what others use.

In: values by tenant and key, each with a size. Out: a value that is kept for that tenant; nobody finds what was made for another. And a
turn for each tenant, so that one makes one thing at a time however many they ask for. It knows nothing of what it keeps.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(slots=True)
class _Turn:
    lock: threading.Lock = field(default_factory=threading.Lock)
    wanted: int = 0  # by so many threads


class Shares(Generic[K, V]):
    """Safe to call from several threads."""

    def __init__(self, room: int) -> None:
        """`room`: of all sizes together."""
        self._room = room
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, OrderedDict[K, tuple[V, int]]] = OrderedDict()  # both as they were used last
        self._turns: dict[str, _Turn] = {}

    def get(self, tenant: str, key: K) -> V | None:
        with self._lock:
            mine = self._kept.get(tenant)
            if mine is None or key not in mine:
                return None
            self._kept.move_to_end(tenant)
            mine.move_to_end(key)
            return mine[key][0]

    def put(self, tenant: str, key: K, value: V, size: int) -> None:
        """Until all has room, whoever holds the most loses what they used longest ago."""
        with self._lock:
            mine = self._kept.setdefault(tenant, OrderedDict())
            self._kept.move_to_end(tenant)
            mine[key] = value, size
            mine.move_to_end(key)
            while sum(map(_held, self._kept.values())) > self._room:
                most = max(self._kept, key=lambda name: _held(self._kept[name]))
                self._kept[most].popitem(last=False)
                if not self._kept[most]:
                    del self._kept[most]

    def keys(self, tenant: str) -> list[K]:
        with self._lock:
            return list(self._kept.get(tenant, ()))

    @contextmanager
    def turn(self, tenant: str, timeout: float | None = None) -> Iterator[bool]:
        """One at a time of each tenant. Whether it is theirs: False where that took more than `timeout` seconds."""
        with self._lock:
            turn = self._turns.setdefault(tenant, _Turn())
            turn.wanted += 1
        mine = turn.lock.acquire(timeout=-1 if timeout is None else timeout)
        try:
            yield mine
        finally:
            if mine:
                turn.lock.release()
            with self._lock:
                turn.wanted -= 1
                if not turn.wanted:
                    del self._turns[tenant]


def _held(kept: OrderedDict[K, tuple[V, int]]) -> int:
    return sum(size for _, size in kept.values())
