"""What it costs a request to be counted: in the process, and in the database that several servers share.

In: nothing; PostgreSQL's address in TSUZURI_DATABASE_URL where it is to be measured (an empty database of its own), else SQLite. Out:
`results/turns.json` and a line: microseconds for a turn to be taken and given back, with a limit for requests and one for tokens and so many
requests already counted in the minute, one after the other.

    python benchmarks/turns.py              half a minute
    python benchmarks/turns.py --rounds 1   a trial
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

import _protocol

from tsuzuri.serve.turns import InProcess, Shared, Turns
from tsuzuri.store import database
from tsuzuri.store.turns import Limits

TIMES = 200
BEFORE = (0, 1000)  # requests in the minute


async def micros(turns: Turns, name: str) -> float:
    """Of one turn."""
    limits = Limits(name, 64, requests=1 << 40, tokens=1 << 40)
    start = time.perf_counter()
    for _ in range(TIMES):
        await turns.end(await turns.take(limits), 100)
    return 1e6 * (time.perf_counter() - start) / TIMES


async def measured(turns: Turns, rounds: int) -> dict[str, list[float]]:
    found = {}
    for before in BEFORE:
        samples = []
        for turn in range(rounds):
            name = f"{before}-{turn}"
            for _ in range(before // TIMES):
                await micros(turns, name)
            samples.append(await micros(turns, name))
        found[f"{before} in the minute"] = samples
    return found


def main() -> None:
    options = _protocol.arguments(__doc__ or "").parse_args()
    with tempfile.TemporaryDirectory() as place:
        address = os.environ.get("TSUZURI_DATABASE_URL") or Path(place) / "data"
        with database.open(address, Path(place) / "secrets") as db:
            ways: dict[str, Turns] = {"in process": InProcess(), db.dialect: Shared(db)}
            found = {name: asyncio.run(measured(way, options.rounds)) for name, way in ways.items()}
    _protocol.write("turns", {"rounds": options.rounds, "times": TIMES, "microseconds": found}, options.out)
    for name, rows in found.items():
        print(f"{name}: " + ", ".join(f"{statistics.median(samples):.0f} us with {before}" for before, samples in rows.items()))


if __name__ == "__main__":
    main()
