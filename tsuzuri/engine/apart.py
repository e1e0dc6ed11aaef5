"""Whether a constraint compiles, tried in a process of its own before it is compiled here: what strangers write may be made to harm.

In: a grammar of llguidance, its limits. Out: what is wrong with it, or None. A try that takes too much time or memory, or brings its
process down, is refused, and so is the same once more without a try; others do not notice. JSON goes over pipes, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from tsuzuri.errors import BusyError, Words

WORKERS = 2  # a slow one does not hold up another
SECONDS = 1.0  # of computing; what the bounds let through takes 0.4 at most
START = 30.0  # seconds for a process to begin
WALL = 10.0  # of waiting, on a machine that is busy
MEMORY = 1 << 30  # bytes of address space
WAITING = 5.0  # seconds for a worker to be free
REMEMBERED = 1024  # refusals, by their hash
CHILD = Path(__file__).with_name("compiling.py")
PASSED_ON = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV")  # of the environment: no secrets
TOO_MUCH = Words("計算に時間かメモリがかかりすぎます。", "it takes too much time or memory.")


class Apart:
    """Safe to call from several threads. `close` ends its processes; they end by themselves with the one that started them."""

    def __init__(self, *, seconds: float = SECONDS, wall: float = WALL, memory: int = MEMORY, workers: int = WORKERS) -> None:
        self._seconds, self._wall, self._memory = seconds, wall, memory
        self._free: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(workers):
            self._free.put(None)
        self._refused: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = False

    def warm(self) -> None:
        """Starts a process now, so that nobody waits for it."""
        worker = self._free.get()
        self._free.put(worker or _Worker(self._memory))

    def wrong(self, program: str, limits: Mapping[str, object]) -> Words | None:
        """What is wrong with a grammar. Raises BusyError where many are being tried."""
        key = hashlib.sha256(program.encode()).digest()
        with self._lock:
            if key in self._refused:
                self._refused.move_to_end(key)
                return TOO_MUCH
        worker = self._taken()
        try:
            if worker is None or not worker.alive:
                if worker is not None:
                    worker.end()
                worker = _Worker(self._memory)
            if not worker.ready():
                raise _busy(Words("準備のためのプロセスが始まりません。", "The process for it does not start."))
            found = worker.ask({"program": program, "limits": dict(limits), "seconds": self._seconds}, self._wall)
        except _Lost:
            self._refuse(key)
            return TOO_MUCH
        finally:
            self._free.put(worker if worker is not None and worker.alive and not self._closed else None)
            if worker is not None and self._closed:
                worker.end()
        return None if found is None else Words(found, found)

    def close(self) -> None:
        self._closed = True
        while True:
            try:
                worker = self._free.get_nowait()
            except queue.Empty:
                return
            if worker is not None:
                worker.end()

    def _taken(self) -> _Worker | None:
        try:
            return self._free.get(timeout=WAITING)
        except queue.Empty:
            raise _busy(Words("ほかの制約の準備が続いています。", "Others are being prepared.")) from None

    def _refuse(self, key: bytes) -> None:
        with self._lock:
            self._refused[key] = None
            while len(self._refused) > REMEMBERED:
                self._refused.popitem(last=False)


def _busy(found: Words) -> BusyError:
    asked = Words("出力の制約を準備しようとしました。", "Preparing a constraint of the output.")
    return BusyError(asked, found=found, todo=Words("少し待ってから、もう一度頼んでください。", "Wait a moment and ask again."))


class _Lost(Exception):
    """The process is gone: it took too much."""


class _Worker:
    def __init__(self, memory: int) -> None:
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        self._process = subprocess.Popen(  # noqa: S603  our own file, by our own interpreter
            [sys.executable, "-P", str(CHILD), str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the server
        )

        self._begun = False

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ready(self) -> bool:
        """Whether it has begun; waits for that once."""
        if not self._begun:
            try:
                self._begun = bool(self._line(time.monotonic() + START))
            except OSError:
                self.end()
        return self._begun

    def ask(self, question: Mapping[str, object], wall: float) -> str | None:
        """Raises _Lost."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._line(time.monotonic() + wall)
            found: str | None = json.loads(answer)["wrong"]
        except (OSError, ValueError) as error:
            self.end()
            raise _Lost from error
        return found

    def _line(self, until: float) -> bytes:
        """One line; nothing where it does not come in time."""
        assert self._process.stdout is not None
        pipe, held = self._process.stdout.fileno(), bytearray()
        waiting = select.poll()  # a server has more files open than `select` can count
        waiting.register(pipe, select.POLLIN)
        while not held.endswith(b"\n"):
            ready = waiting.poll(max(0.0, until - time.monotonic()) * 1000)
            piece = os.read(pipe, 1 << 16) if ready else b""
            if not piece:
                raise TimeoutError
            held += piece
        return bytes(held)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue
