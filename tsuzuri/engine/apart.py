"""Whether a constraint compiles, tried in a process of its own before it is compiled here: what strangers write may be made to harm.

In: a grammar of llguidance, its limits. Out: what is wrong with it, or None. A try that takes too much time or memory, or brings its
process down, is refused, and so is the same once more without a try; others do not notice. JSON goes over pipes, and nothing else.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from tsuzuri.beside import Lost, Process, Processes
from tsuzuri.errors import BusyError, Words

WORKERS = 2  # a slow one does not hold up another
SECONDS = 1.0  # of computing; what the bounds let through takes 0.4 at most
WALL = 10.0  # of waiting, on a machine that is busy
MEMORY = 1 << 30  # bytes of address space
WAITING = 5.0  # seconds for a worker to be free
REMEMBERED = 1024  # refusals, by their hash
CHILD = Path(__file__).with_name("compiling.py")
TOO_MUCH = Words("計算に時間かメモリがかかりすぎます。", "it takes too much time or memory.")


class Apart(Processes):
    """Safe to call from several threads. `close` ends its processes; they end by themselves with the one that started them."""

    def __init__(self, *, seconds: float = SECONDS, wall: float = WALL, memory: int = MEMORY, workers: int = WORKERS) -> None:
        super().__init__(lambda: Process(str(CHILD), str(memory)), workers)
        self._seconds, self._wall = seconds, wall
        self._refused: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    def wrong(self, program: str, limits: Mapping[str, object]) -> Words | None:
        """What is wrong with a grammar. Raises BusyError where many are being tried."""
        key = hashlib.sha256(program.encode()).digest()
        with self._lock:
            if key in self._refused:
                self._refused.move_to_end(key)
                return TOO_MUCH
        try:
            with self.taken(WAITING) as process:
                if not process.ready():
                    raise _busy(Words("準備のためのプロセスが始まりません。", "The process for it does not start."))
                found: str | None = process.ask({"program": program, "limits": dict(limits), "seconds": self._seconds}, self._wall)["wrong"]
        except TimeoutError:
            raise _busy(Words("ほかの制約の準備が続いています。", "Others are being prepared.")) from None
        except Lost:
            self._refuse(key)
            return TOO_MUCH
        return None if found is None else Words(found, found)

    def _refuse(self, key: bytes) -> None:
        with self._lock:
            self._refused[key] = None
            while len(self._refused) > REMEMBERED:
                self._refused.popitem(last=False)


def _busy(found: Words) -> BusyError:
    asked = Words("出力の制約を準備しようとしました。", "Preparing a constraint of the output.")
    return BusyError(asked, found=found, todo=Words("少し待ってから、もう一度頼んでください。", "Wait a moment and ask again."))
