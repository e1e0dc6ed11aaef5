"""What the tests of processes of ours share: whether one is still there."""

from __future__ import annotations

import time
from pathlib import Path


def alive(process: int) -> bool:
    """One that has ended and was not waited for yet is not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ends(process: int, seconds: float) -> bool:
    """Whether it does, within so many seconds."""
    end = time.monotonic() + seconds
    while alive(process) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(process)
