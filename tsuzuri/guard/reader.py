"""Where texts are read: short ones at once, others in a thread, and long ones in a process beside this one.

In: what reads texts, and how long they are together. Out: what it comes to, whichever way. The event loop waits for short ones alone, and no
long one holds this process's interpreter. Where the process is gone or busy for long, the text is read here: nothing fails for it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from tsuzuri.beside import Lost, Process, Processes
from tsuzuri.guard.readings import Read, Reading, here

SHORT = 64  # characters, under which a text is read (0.7 ms) in the event loop: others wait no longer for that than for a thread
LONG = 2000  # characters, from which on it is given to a process: 10 ms of reading, 0.3 ms of handing over
MOST = 8  # processes, of 30 MB each, and up to 100 while they read
THREADS = 64  # that read what is not long, or wait for a process
WAITING = 5.0  # seconds for a process to be free
WALL = 120.0  # seconds for an answer, on a machine that is busy; ten million characters take a minute
CHILD = Path(__file__).with_name("child.py")
T = TypeVar("T")


class Reader:
    """Until it is opened, and after it was closed, everything is read in this process."""

    def __init__(self) -> None:
        self._beside: _Beside | None = None

    async def __call__(self, size: int, work: Callable[[Read], T]) -> T:
        """What `work` returns; it is given what reads. `size`: characters of what it reads, at least."""
        if size < SHORT:
            return work(here)
        if self._beside is None:
            return await asyncio.to_thread(work, here)
        return await asyncio.get_running_loop().run_in_executor(self._beside.threads, work, self._beside)

    def open(self) -> None:
        """Starts a process, and does not wait for it."""
        if self._beside is None and sys.platform != "win32":  # pipes cannot be waited for there
            self._beside = _Beside()

    def close(self) -> None:
        """Ends every process: at once those that are free, the others when they have answered."""
        beside, self._beside = self._beside, None
        if beside is not None:
            beside.close()


class _Beside:
    """Reads: a `Read`, for threads that may wait."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(THREADS, "tsuzuri-reading")
        self._processes = Processes(lambda: Process(str(CHILD)), max(1, min(_cores() // 2, MOST)))
        self._turn = threading.Lock()  # of long texts that must be read here one is: ten take as long, and hold the interpreter ten times
        with suppress(OSError):
            self._processes.warm()

    def __call__(self, what: Reading[T], texts: Sequence[str], among: Sequence[str] = ()) -> Iterable[T]:
        if sum(map(len, texts)) < LONG:
            return here(what, texts, among)
        found = self._asked(what, texts, among)
        if found is not None:
            return found
        with self._turn:
            return [*here(what, texts, among)]

    def _asked(self, what: Reading[T], texts: Sequence[str], among: Sequence[str]) -> list[T] | None:
        """None where no process answers."""
        try:
            with self._processes.taken(WAITING) as process:
                if not process.ready():
                    return None
                values = process.ask({"what": what.name, "texts": texts, "among": among}, WALL)
        except (Lost, OSError):
            return None
        return [what.unpacked(value, text) for value, text in zip(values, texts, strict=True)]

    def close(self) -> None:
        self._processes.close()
        self.threads.shutdown(wait=False)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
