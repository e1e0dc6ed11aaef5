"""What a request of a model of our own drew: the machine's counter where it tells (RAPL), else configured watts, and that is an estimate.

In: when requests begin and end. Out: millijoules of each, and how they are known. What is drawn while several are under way is theirs in equal
parts, what is drawn while none is is nobody's; all that runs on the machine meanwhile is counted in. A counter of processors knows no GPU:
where there is one, nothing is called measured. Used from one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

POWERCAP = Path("/sys/class/powercap")
ZONE = re.compile(r"intel-rapl:\d+")  # AMD's are called so, too; parts of a zone (cores, memory) have one more number
GPU = (Path("/proc/driver/nvidia/version"), Path("/dev/kfd"))
TICK = 60.0  # seconds: counters begin anew after some minutes of much power
LOG = logging.getLogger("tsuzuri.serve")
How = Literal["measured", "estimated"]


@dataclass(frozen=True, slots=True)
class Drawn:
    millijoules: int
    how: How


@dataclass(slots=True)
class Package:
    """A processor's counter in microjoules. `span`: after how many it begins anew."""

    place: Path
    span: int
    last: int = 0

    def since(self) -> int:
        """Microjoules since it was asked last. Raises OSError, ValueError."""
        now = int(self.place.read_text())
        drawn, self.last = (now - self.last) % self.span, now
        return drawn


def packages(powercap: Path = POWERCAP, gpu: Sequence[Path] = GPU) -> list[Package]:
    """Those that may be read here; none where one of them may not, or where more than processors compute: half of it is no measure."""
    if any(place.exists() for place in gpu):
        return []
    found = []
    try:
        for zone in sorted(powercap.iterdir()) if powercap.is_dir() else []:
            if ZONE.fullmatch(zone.name) and (zone / "name").read_text().startswith("package"):
                span = int((zone / "max_energy_range_uj").read_text()) + 1
                found.append(Package(zone / "energy_uj", span, int((zone / "energy_uj").read_text())))
    except (OSError, ValueError):
        return []
    return found


class Share:
    """What one request drew so far."""

    def __init__(self, how: How | None) -> None:
        self.microjoules, self.how = 0.0, how

    @property
    def drawn(self) -> Drawn | None:
        return None if self.how is None else Drawn(round(self.microjoules / 1000), self.how)


class Energy:
    def __init__(self, watts: float | None = None, counters: Sequence[Package] | None = None) -> None:
        """`watts`: taken under load, for where no counter tells; None: nothing is known there."""
        self._counters = list(packages() if counters is None else counters)
        self._watts = watts
        self._open: list[Share] = []
        self._last = time.monotonic()

    @property
    def how(self) -> How | None:
        return "measured" if self._counters else None if self._watts is None else "estimated"

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Of what is drawn while the block lasts."""
        self._divide()
        made = Share(self.how)
        self._open.append(made)
        try:
            yield made
        finally:
            self._divide()
            self._open.remove(made)

    async def ticking(self) -> None:
        """Looks at the counters now and then; it ends when it is cancelled."""
        while True:
            await asyncio.sleep(TICK)
            self._divide()

    def _divide(self) -> None:
        """What was drawn since the last time goes to those under way."""
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        try:
            drawn = float(sum(each.since() for each in self._counters))
        except (OSError, ValueError) as error:
            LOG.error("the counter of energy cannot be read any more: %s", type(error).__name__)
            self._counters, drawn = [], 0.0
            for share in self._open:
                share.how = None
        if not self._counters:
            drawn = (self._watts or 0.0) * seconds * 1e6
        for share in self._open:
            share.microjoules += drawn / len(self._open)
