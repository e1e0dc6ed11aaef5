"""What a person sees of a long run, and what stays on disk: metrics as JSON lines, a progress bar, notices.

In: one `Metrics` a step. Out: `metrics.jsonl` and, in a terminal, one line that moves. It changes nothing of the run.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tsuzuri.directory import told, write_bytes
from tsuzuri.errors import Words


@dataclass(frozen=True, slots=True)
class Metrics:
    step: int  # number of steps done
    loss: float  # nats a target, of this step's batch
    gradient_norm: float
    factor: float  # of the learning rates
    tokens: int  # trained so far
    tokens_per_second: float  # of this step, padding included: it is computed like the rest
    mfu: float | None  # 6 · parameters · tokens/s over the measured matrix rate
    seconds: float  # spent in this step


class Journal:
    """`metrics.jsonl`: one JSON object a line. Resuming drops the lines after the checkpoint, so no step stands twice."""

    def __init__(self, path: Path, *, resumed_at: int = 0) -> None:
        self.path = path
        if path.is_file():
            kept = [line for line in path.read_bytes().splitlines() if _step(line) <= resumed_at]
            write_bytes(path, b"".join(line + b"\n" for line in kept))

    def add(self, record: dict[str, object]) -> None:
        """Raises SpaceError; what was written of the line is dropped when the run resumes."""
        with told(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def read(self) -> list[dict[str, object]]:
        """All records so far."""
        if not self.path.is_file():
            return []
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]


def _step(line: bytes) -> int:
    """The step of a line; a line cut off by a crash counts as never written."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return sys.maxsize


class Watch:
    """Tells nothing: for tests and for the ranks that are not the first."""

    def begin(self, steps: int, done: int) -> None:
        """The run starts, or goes on after `done` steps."""

    def step(self, metrics: Metrics, steps: int) -> None:
        """One step is done."""

    def notice(self, words: Words | str) -> None:
        """Something a person should know."""

    def end(self) -> None:
        """The run is over or was stopped."""


class Terminal(Watch):
    """One moving line on standard error: bar, loss, tokens a second, MFU, time left. Plain lines where it is no terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.moving = self.stream.isatty()
        self.last = 0.0
        self.begun = time.monotonic()
        self.done = 0

    def begin(self, steps: int, done: int) -> None:
        self.begun, self.done = time.monotonic(), done
        if done:
            self.notice(Words(f"{done} ステップ目の続きから再開します。", f"Resuming after step {done}."))

    def step(self, metrics: Metrics, steps: int) -> None:
        now, last_one = time.monotonic(), metrics.step == steps
        if not last_one and now - self.last < (0.2 if self.moving else 15):
            return
        self.last = now
        left = (now - self.begun) / max(1, metrics.step - self.done) * (steps - metrics.step)
        filled = round(20 * metrics.step / steps)
        mfu = "" if metrics.mfu is None else f"  MFU {metrics.mfu:.0%}"
        line = (
            f"{'█' * filled}{'░' * (20 - filled)} {metrics.step}/{steps}  {Words('損失', 'loss')} {metrics.loss:.3f}"
            f"  {metrics.tokens_per_second:,.0f} tok/s{mfu}  {Words('残り', 'left')} {clock(left)}"
        )
        self.stream.write(f"\r\x1b[K{line}" if self.moving else line + "\n")
        self.stream.flush()

    def notice(self, words: Words | str) -> None:
        self.stream.write(f"\r\x1b[K{words}\n" if self.moving else f"{words}\n")
        self.stream.flush()

    def end(self) -> None:
        if self.moving:
            self.stream.write("\n")


def clock(seconds: float) -> str:
    """75 -> '1:15', 3700 -> '1:01:40'"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
