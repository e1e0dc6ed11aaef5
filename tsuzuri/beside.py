"""Processes beside this one, which are asked over pipes: our own file, run by our own interpreter, that knows no secrets.

In: a question that goes into JSON. Out: its answer, or `Lost`. A line of JSON each way, and nothing else; what a process says first is that it is
ready. One is asked by one thread at a time (`Processes`). They end when they are told to, and by themselves with the one that started them.
"""

from __future__ import annotations

import json
import os
import queue
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

START = 30.0  # seconds for a process to begin
PASSED_ON = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV")  # of the environment


def bare(*more: str) -> dict[str, str]:
    """The environment of a process of ours: what it takes to run, and no secrets."""
    return {name: os.environ[name] for name in (*PASSED_ON, *more) if name in os.environ}


class Lost(Exception):
    """The process is gone: it took too much, or was ended."""


class Process:
    def __init__(self, *command: str) -> None:
        """`command`: a file of ours, and what it is told. Raises OSError where no process can be had."""
        self._process = subprocess.Popen(  # noqa: S603  our own file, by our own interpreter
            [sys.executable, "-P", *command],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=bare(),
            start_new_session=True,  # Ctrl-C is for the server
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        os.set_blocking(self._in.fileno(), False)  # one that hangs does not read, either
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

    def ask(self, question: object, seconds: float) -> Any:
        """The answer. Raises Lost, and the process is ended, where it does not come in time."""
        try:
            until = time.monotonic() + seconds
            self._send(_packed(question), until)
            return json.loads(self._line(until))
        except (OSError, ValueError) as error:
            self.end()
            raise Lost from error

    def _send(self, line: bytes, until: float) -> None:
        left = memoryview(line)
        while left:
            _wait(self._in.fileno(), select.POLLOUT, until)
            left = left[os.write(self._in.fileno(), left) :]

    def _line(self, until: float) -> bytes:
        held = bytearray()
        while not held.endswith(b"\n"):
            _wait(self._out.fileno(), select.POLLIN, until)
            piece = os.read(self._out.fileno(), 1 << 16)
            if not piece:
                raise BrokenPipeError
            held += piece
        return bytes(held)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._in, self._out):
            pipe.close()


def _packed(question: object) -> bytes:
    """A line. Half a surrogate pair stays half of one, and two beside each other stay two: `json.loads` reads the bytes back so."""
    return json.dumps(question, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def _wait(pipe: int, event: int, until: float) -> None:
    """Raises TimeoutError."""
    waiting = select.poll()  # a server has more files open than `select` can count
    waiting.register(pipe, event)
    if not waiting.poll(max(0.0, until - time.monotonic()) * 1000):
        raise TimeoutError


class Processes:
    """So many at most, each started when it is needed. Safe to call from several threads."""

    def __init__(self, start: Callable[[], Process], count: int) -> None:
        self._start = start
        self._free: queue.LifoQueue[Process | None] = queue.LifoQueue()
        for _ in range(count):
            self._free.put(None)
        self._closed = False

    def warm(self) -> None:
        """Starts one now, so that nobody waits for it. Raises OSError."""
        with self.taken(0):
            pass

    @contextmanager
    def taken(self, seconds: float) -> Iterator[Process]:
        """One for this thread alone. Raises TimeoutError where none is free in time, OSError where none can be started."""
        try:
            found = self._free.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None
        try:
            if found is None or not found.alive:
                if found is not None:
                    found.end()
                found = None
                found = self._start()
            yield found
        finally:
            self._free.put(found if found is not None and found.alive else None)
            if self._closed:
                self.close()

    def close(self) -> None:
        self._closed = True
        while True:
            try:
                found = self._free.get_nowait()
            except queue.Empty:
                return
            if found is not None:
                found.end()
