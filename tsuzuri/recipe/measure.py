"""What this machine can do, measured in a moment: the matrix rate that MFU is a share of, the read rate that MBU is a share of, the
power it draws; and what other programs take of it meanwhile.

In: a device. Out: FLOP/s, bytes a second and watts, each with how it was found. The bound is the machine's, not ours.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

from tsuzuri import device as devices
from tsuzuri.errors import Words

ENERGY = Path("/sys/class/powercap/intel-rapl:0/energy_uj")  # microjoules since some moment, wraps around
STAT = Path("/proc/stat")  # Linux: since the start, hundredths of a second of all cores together
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
READ = 1 << 29  # bytes of one reading at least
WATTS_PER_CORE = 10.0  # assumed where nothing tells: a server core under load with its share of memory


def matrix_rate(device: torch.device, precision: str, *, size: int | None = None, rounds: int = 4) -> float:
    """FLOP/s of a size³ product in `precision`, the best of `rounds`: 2048³, on CUDA 8192³, which fill it; of a small one where the type
    is emulated: 2048³ take 20 s there."""
    kind = devices.dtype(precision, device)
    size = size or (8192 if device.type == "cuda" else 2048)
    size = size if devices.fit(kind, device) == kind else min(size, 256)
    a, b = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
    best = float("inf")
    for _ in range(rounds):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        begun = time.perf_counter()
        c = a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begun)
    assert c.shape == (size, size)
    return 2 * size**3 / best


def read_rate(device: torch.device, *, size: int | None = None, rounds: int = 4) -> float:
    """Bytes a second that all threads together read from memory, the best of `rounds`: a sum over more than any cache holds."""
    block = torch.ones((size or _more_than_cached()) // 4, device=device)
    best = float("inf")
    for _ in range(rounds):
        begun = time.perf_counter()
        total = float(block.sum())
        best = min(best, time.perf_counter() - begun)
    assert total > 0
    return block.numel() * 4 / best


def cache() -> int | None:
    """Bytes of the largest cache that the first core reads through; None where the system does not say."""
    sizes = []
    for place in CACHES.glob("index*/size"):
        with suppress(OSError, ValueError, KeyError, IndexError):
            text = place.read_text().strip()
            sizes.append(int(text[:-1]) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[text[-1]])
    return max(sizes, default=None)


def _more_than_cached() -> int:
    """Twice the largest cache, but no more than an eighth of the memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8 * READ
    return min(max(READ, 2 * (cache() or 0)), memory // 8) // 4 * 4


class Clock(NamedTuple):
    """One moment, for `others`."""

    wall: float  # seconds
    busy: float | None  # core seconds of all programs since the machine started; None where it is not told
    ours: float  # core seconds of this process


def clock() -> Clock:
    busy = None
    with suppress(OSError, ValueError, IndexError):
        user, nice, system, _, _, irq, soft, steal = map(int, STAT.read_text().partition("\n")[0].split()[1:9])
        busy = (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
    return Clock(time.perf_counter(), busy, time.process_time())


def others(begun: Clock, ended: Clock) -> float | None:
    """Cores that other programs (other virtual machines too, where they took some of ours) kept busy between two moments; None where
    it is not told."""
    if begun.busy is None or ended.busy is None or ended.wall <= begun.wall:
        return None
    return max(0.0, (ended.busy - begun.busy) - (ended.ours - begun.ours)) / (ended.wall - begun.wall)


class Power(NamedTuple):
    watts: float
    how: Words
    known: bool = True  # given or measured, not assumed


def power(given: float | None) -> Power:
    """Watts under load: as given, else as the processor's counter says over a short busy loop, else assumed, and said so."""
    if given is not None:
        return Power(given, Words("指定値", "as given"))
    before = _energy()
    if before is not None:
        begun = time.perf_counter()
        while time.perf_counter() - begun < 0.5:
            torch.randn(512, 512) @ torch.randn(512, 512)
        after = _energy()
        if after is not None and after > before:
            return Power((after - before) / 1e6 / (time.perf_counter() - begun), Words("計測（RAPL）", "measured (RAPL)"))
    cores = devices.cores()
    return Power(WATTS_PER_CORE * cores, Words(f"仮定（1 コア {WATTS_PER_CORE:.0f} W）", f"assumed ({WATTS_PER_CORE:.0f} W a core)"), False)


def _energy() -> int | None:
    try:
        return int(ENERGY.read_text())
    except (OSError, ValueError):
        return None
