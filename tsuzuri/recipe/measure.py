"""What this machine can do, measured in a moment: the matrix rate that MFU is a share of, and the power it draws.

In: a device. Out: FLOP/s and watts, each with how it was found. The bound is the machine's, not ours.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import torch

from tsuzuri import device as devices
from tsuzuri.errors import Words

ENERGY = Path("/sys/class/powercap/intel-rapl:0/energy_uj")  # microjoules since some moment, wraps around
WATTS_PER_CORE = 10.0  # assumed where nothing tells: a server core under load with its share of memory


def matrix_rate(device: torch.device, precision: str, *, size: int = 2048, rounds: int = 4) -> float:
    """FLOP/s of a size³ product in `precision`, the best of `rounds`; of a small one where the type is emulated: 2048³ take
    20 s there."""
    kind = devices.dtype(precision, device)
    size = size if devices.fit(kind, device) == kind else min(size, 256)
    a, b = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
    best = float("inf")
    for _ in range(rounds):
        begun = time.perf_counter()
        c = a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begun)
    assert c.shape == (size, size)
    return 2 * size**3 / best


class Power(NamedTuple):
    watts: float
    how: Words


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
    return Power(WATTS_PER_CORE * cores, Words(f"仮定（1 コア {WATTS_PER_CORE:.0f} W）", f"assumed ({WATTS_PER_CORE:.0f} W a core)"))


def _energy() -> int | None:
    try:
        return int(ENERGY.read_text())
    except (OSError, ValueError):
        return None
