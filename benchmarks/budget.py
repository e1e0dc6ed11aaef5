"""A thousand calls at once on money for a part of them: how many are taken, and what is spent.

In: real processes of `tsuzuri serve` before a slow model, one on SQLite and, where PostgreSQL is installed, two that share one. Out:
`results/budget.json`: of 1,000 HTTP calls under way together exactly as many succeed as the budget pays for, and nothing is overspent.
A server that is busy says so, and its client asks again until it has an answer or the money is spent.

    python benchmarks/budget.py                        about a minute on two cores
    python benchmarks/budget.py --calls 40 --out /tmp  a trial
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import _protocol
import httpx2
from restarts import ASKED, PIECE, PRICES, ended, free_port, start, upstream

sys.path.append(str(_protocol.ROOT / "tests"))
import postgresql

from tsuzuri.store import audit, database, keys, ledger

EACH = 5  # pieces of an answer, a micro-yen each


async def run(place: Path, address: str | Path, calls: int, paid: int, servers: int, seed: int) -> dict[str, Any]:
    (place / "prices.yaml").write_text(PRICES, encoding="utf-8")
    with database.open(address, place / "secrets") as db:
        key, secret = keys.create(db, "thousand", scopes=("chat",), concurrent=64)
        ledger.set_limit(db, f"key:{key.id}", paid * EACH + EACH - 1)  # the rest does not pay for one more
    ports = [free_port() for _ in range(servers)]
    chance, begun = random.Random(seed), time.monotonic()
    ends: Counter[str] = Counter()
    with upstream(place) as far:
        running = [await start(place, address, far, port) for port in ports]
        limits = httpx2.Limits(max_connections=calls, max_keepalive_connections=0)  # one that is kept may be closed as it is used
        try:
            async with httpx2.AsyncClient(
                timeout=300, limits=limits, trust_env=False, headers={"authorization": f"Bearer {secret}"}
            ) as client:

                async def call(number: int) -> None:
                    body = {**ASKED, "max_tokens": EACH, "stream": number % 2 == 0}
                    while True:
                        found = await client.post(f"http://127.0.0.1:{ports[number % servers]}/v1/chat/completions", json=body)
                        if found.status_code == 200 and found.text.count(PIECE) == EACH:
                            ends["taken"] += 1
                            return
                        if "insufficient_quota" in found.text:
                            ends["refused"] += 1
                            return
                        if found.status_code not in (200, 429, 502, 503):
                            raise RuntimeError(found.text)
                        lost = found.status_code in (200, 502)  # a stream that waited long has begun before its error
                        ends["the model was not reached" if lost else "asked again"] += 1
                        await asyncio.sleep(0.2 + chance.random())

                await asyncio.gather(*[call(number) for number in range(calls)])
        finally:
            for process in running:
                process.send_signal(signal.SIGTERM)
            for process in running:
                await ended(process)
    with database.open(address, place / "secrets") as db:
        balance, wrong, sound = ledger.balance(db, f"key:{key.id}"), ledger.verify(db), audit.verify(db).sound
    faults = {
        "calls taken beside the number paid for": abs(ends["taken"] - paid),
        "calls without an answer": calls - ends["taken"] - ends["refused"],
        "micro-yen overspent": max(0, balance.spent + balance.held - paid * EACH),
        "micro-yen spent for nothing": abs(balance.spent - ends["taken"] * EACH) + balance.held,
        "entries that do not add up": len(wrong),
        "faults in the audit's chain": int(not sound),
    }
    return {"calls": calls, "paid": paid, "servers": servers, "seconds": time.monotonic() - begun, "ends": dict(ends), "faults": faults}


def trial(address: str | Path | None, calls: int, paid: int, servers: int = 1, seed: int = 0) -> dict[str, Any]:
    """In a place of its own. `address`: of a database on PostgreSQL; None: an SQLite in the place."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        return asyncio.run(run(place, address or place / "data", calls, paid, servers, seed))


def main() -> None:
    parser = _protocol.arguments(__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=1000)
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    with postgresql.cluster() if postgresql.programs() else nullcontext() as cluster:
        plan: list[tuple[str, str | None, int]] = [("SQLite", None, 1)]
        plan += [("PostgreSQL", postgresql.fresh(cluster), 2)] if cluster else []
        for name, address, servers in plan:
            rows[name] = found = trial(address, options.calls, options.calls * 3 // 10, servers)
            print(f"{name}: {found['ends']} in {found['seconds']:.1f} s; {found['faults']}")
    print(_protocol.write("budget", {"trial": options.calls < 1000, "rows": rows}, options.out))
    if any(count for row in rows.values() for count in row["faults"].values()):
        sys.exit("there are faults")


if __name__ == "__main__":
    main()
