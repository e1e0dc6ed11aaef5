"""The hostile corpus of the tests against a running server: what each refusal takes, and what a bystander feels of it.

In: every row of tests/serve/hostile.py, a tiny model in a server of its own process, one bystander who asks short questions all the time.
Out: `results/hostile.json`: milliseconds of each refusal (of the server's processor, without the network; the median of five), those
beyond the bound of the tests, the bystander's p99 in calm and under attack in turns (A B B A …), and the server's memory before and after.

    python benchmarks/hostile.py                       about four minutes on two cores, alone
    python benchmarks/hostile.py --rounds 1 --out /tmp a trial
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import _protocol
import httpx2
from _protocol import said
from restarts import free_port

sys.path.append(str(_protocol.ROOT / "tests"))
import contextlib

import toy
from serve import hostile

from tsuzuri.serve.app import Service
from tsuzuri.serve.models import Pool, from_directory
from tsuzuri.store import database, keys

ASKED = 150  # questions of the bystander in one sample


def main() -> None:
    parser = _protocol.arguments(__doc__.partition("\n")[0])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        toy.make(place / "tiny")
        record = {"rounds": options.rounds, "trial": options.rounds < _protocol.ROUNDS, "requests": len(hostile.TINY) + len(hostile.ODD)}
        record |= {"yardstick_seconds": hostile.yardstick(), **costs(place)}
        record |= beside(place, options.rounds)
    print(_protocol.write("hostile", record, options.out))


def costs(place: Path) -> dict[str, Any]:
    """Of each row that is refused."""
    rows: list[dict[str, Any]] = []
    with database.open(place / "costs", place / "costs.secrets") as db:
        _, secret = keys.create(db, "quick", scopes=keys.SCOPES, concurrent=64)
        service = Service(Pool([from_directory(place / "tiny")]), db)

        async def all_of() -> None:
            await hostile.answered(service, secret, {})
            for what, sent, _ in hostile.TINY:
                tries = [await hostile.answered(service, secret, sent) for _ in range(5)]
                if tries[0].status >= 400:
                    took = statistics.median(each.seconds for each in tries)
                    rows.append({"what": what, "bytes": len(hostile.request(sent).body), "ms": 1000 * took})
            await service.books.flush()

        asyncio.run(all_of())
        service.pool.close()
    took = sorted(row["ms"] for row in rows)
    late = [row for row in rows if row["ms"] > 1000 * hostile.bound(row["bytes"])]
    found = {"rows": len(rows), "p50_ms": took[len(took) // 2], "p99_ms": took[len(took) * 99 // 100], "most_ms": took[-1]}
    print(
        f"{len(rows)} refusals: p50 {found['p50_ms']:.1f} ms, p99 {found['p99_ms']:.1f}, most {found['most_ms']:.1f}; beyond the bound: {late}"
    )
    return {"refused": {**found, "beyond_the_bound": late, "each": rows}}


def beside(place: Path, count: int) -> dict[str, Any]:
    """The bystander's p99 in calm and under attack, and the memory of the server."""
    with database.open(place / "data", place / "data.secrets") as db:
        secrets = [keys.create(db, name, scopes=keys.SCOPES, concurrent=64)[1] for name in ("calm", "hostile")]
    port = free_port()
    line = [
        sys.executable,
        "-m",
        "tsuzuri",
        "serve",
        "--model",
        str(place / "tiny"),
        "--port",
        str(port),
        "--data-dir",
        str(place / "data"),
    ]
    server = subprocess.Popen([*line, "--threads", "1"], stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    attacking, over = threading.Event(), threading.Event()
    sent = 0

    def attack() -> None:
        nonlocal sent
        with httpx2.Client(base_url=url, headers={"authorization": f"Bearer {secrets[1]}"}, timeout=60, trust_env=False) as client:
            while not over.is_set():
                for _, each, _ in hostile.TINY:
                    if not attacking.wait(0.1) or over.is_set():
                        break
                    raw = hostile.request(each)
                    headers = {"content-type": "application/json", **raw.headers}
                    with contextlib.suppress(httpx2.HTTPError):
                        client.request(raw.method, raw.path, content=raw.body, headers=headers)
                    sent += 1

    def ask(client: httpx2.Client) -> float:
        begun = time.perf_counter()
        client.post("/v1/chat/completions", json=hostile.SANE).raise_for_status()
        return time.perf_counter() - begun

    def p99(hostile_too: bool) -> float:
        attacking.set() if hostile_too else attacking.clear()
        time.sleep(0.3)
        found = sorted(ask(client) for _ in range(ASKED))
        attacking.clear()
        return found[len(found) * 99 // 100]

    try:
        for _ in range(600):
            try:
                httpx2.get(f"{url}/health", trust_env=False)
                break
            except httpx2.HTTPError:
                time.sleep(0.1)
        with httpx2.Client(base_url=url, headers={"authorization": f"Bearer {secrets[0]}"}, timeout=60, trust_env=False) as client:
            attacker = threading.Thread(target=attack)
            attacker.start()
            p99(False)
            attacking.set()
            while sent < len(hostile.TINY):  # one round of all, so that what the server holds for good is there
                time.sleep(0.1)
            p99(True)
            before = memory(server.pid)
            samples = _protocol.rounds(lambda: p99(True), lambda: p99(False), count)
            over.set()
            attacker.join()
            time.sleep(2)
            after = memory(server.pid)
    finally:
        over.set()
        server.terminate()
        code = server.wait(60)
    ratio = _protocol.ratio(*samples)
    print(f"a bystander's p99: × {said(ratio)} of the calm {1000 * statistics.median(samples[1]):.1f} ms; {sent} hostile requests")
    print(f"memory: {before >> 20} MiB before, {after >> 20} MiB after; the server ended with {code}")
    bystander = {"hostile_seconds": samples[0], "calm_seconds": samples[1], "ratio": ratio, "hostile_requests": sent}
    return {"bystander": bystander, "memory_bytes": [before, after], "exit_code": code}


def memory(process: int) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
