"""The hostile corpus of the tests against a running server: what each refusal takes, and what a bystander feels of it.

In: every row of tests/serve/hostile.py, a tiny model in a server of its own process, one bystander who asks short questions all the time.
Out: `results/hostile.json`: milliseconds of each refusal (of the server's processor, without the network; the median of five), those
beyond the bound of the tests, the bystander's p99 in calm and under attack in turns (A B B A …), for an answer of two tokens (the server's own
work alone) and for one of usual length, the server's memory before and after, and the same of a bystander whose answers are held to a known
form while others have forms compiled. Bystander, attacker and server are processes of their own; attacker and bystander ask again at once.

    python benchmarks/hostile.py                       about eight minutes on two cores, alone
    python benchmarks/hostile.py --rounds 1 --out /tmp a trial
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _protocol
import httpx2
from _protocol import said
from restarts import free_port

sys.path.append(str(_protocol.ROOT / "tests"))
import toy
from serve import hostile

from tsuzuri.serve.app import Service
from tsuzuri.serve.models import Pool, from_directory
from tsuzuri.store import database, keys

ASKED = 150  # questions of the bystander in one sample
USUAL = 64  # tokens of an answer of usual length: this model takes about a millisecond for each, as one of 20 M does in 8 bits
COMPILING = 4  # who have forms compiled at once


def main() -> None:
    parser = _protocol.arguments(__doc__.partition("\n")[0])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        toy.make(place / "tiny")
        record = {"rounds": options.rounds, "trial": options.rounds < _protocol.ROUNDS, "requests": len(hostile.TINY) + len(hostile.ODD)}
        record |= {"yardstick_seconds": hostile.yardstick(), **costs(place)}
        record |= beside(place, options.rounds) | forms(place, options.rounds)
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


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[bytes]
    url: str
    calm: str  # the key of one that means well
    hostile: str  # and of one that does not

    def client(self, secret: str) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, headers={"authorization": f"Bearer {secret}"}, timeout=60, trust_env=False)


@contextlib.contextmanager
def serving(place: Path) -> Iterator[Server]:
    """A server of its own."""
    data = Path(tempfile.mkdtemp(dir=place))
    with database.open(data / "data", data / "data.secrets") as db:
        calm, bad = [keys.create(db, name, scopes=keys.SCOPES, concurrent=64)[1] for name in ("calm", "hostile")]
    port = free_port()
    line = [sys.executable, "-m", "tsuzuri", "serve", "--model", str(place / "tiny"), "--port", str(port), "--data-dir", str(data / "data")]
    process = subprocess.Popen([*line, "--threads", "1"], stdout=subprocess.DEVNULL)
    server = Server(process, f"http://127.0.0.1:{port}", calm, bad)
    try:
        for _ in range(600):
            try:
                httpx2.get(f"{server.url}/health", trust_env=False)
                break
            except httpx2.HTTPError:
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(60)


class Attackers:
    """A process whose threads do `one` again and again while it is `on`: what it takes to ask is not the bystander's time."""

    def __init__(self, server: Server, one: Callable[[httpx2.Client], None], count: int = 1) -> None:
        own = multiprocessing.get_context("fork")
        self.on, self._sent = own.Event(), own.Value("q", 0)
        self._server, self._one, self._count = server, one, count
        self._process = own.Process(target=self._run, daemon=True)

    @property
    def sent(self) -> int:
        return int(self._sent.value)

    def __enter__(self) -> Attackers:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def _run(self) -> None:
        threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(self._count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _ask(self) -> None:
        with self._server.client(self._server.hostile) as client:
            while self.on.wait():
                self._one(client)
                with self._sent.get_lock():
                    self._sent.value += 1


def p99(client: httpx2.Client, question: dict[str, Any], attackers: Attackers, hostile_too: bool) -> float:
    """Seconds of the bystander's question."""
    attackers.on.set() if hostile_too else attackers.on.clear()
    time.sleep(0.3)
    found = []
    for _ in range(ASKED):
        begun = time.perf_counter()
        client.post("/v1/chat/completions", json=question).raise_for_status()
        found.append(time.perf_counter() - begun)
    attackers.on.clear()
    return sorted(found)[len(found) * 99 // 100]


def beside(place: Path, count: int) -> dict[str, Any]:
    """The bystander's p99 in calm and under attack, and the memory of the server."""
    raws = [hostile.request(sent) for _, sent, _ in hostile.TINY]  # written before: it costs the attacker nothing
    rows = itertools.cycle(raws)

    def one(client: httpx2.Client) -> None:
        raw = next(rows)
        with contextlib.suppress(httpx2.HTTPError):
            client.request(raw.method, raw.path, content=raw.body, headers={"content-type": "application/json", **raw.headers})

    usual = {**hostile.SANE, "max_tokens": USUAL, "min_tokens": USUAL}
    found: dict[str, Any] = {}
    with serving(place) as server, server.client(server.calm) as calm, Attackers(server, one) as attackers:
        for name, question in (("bystander", hostile.SANE), ("usual", usual)):
            ask = functools.partial(p99, calm, question, attackers)
            ask(False)
            attackers.on.set()
            while attackers.sent < len(raws):  # one round of all, so that what the server holds for good is there
                time.sleep(0.1)
            ask(True)
            before = _protocol.memory(server.process.pid)
            begun = attackers.sent
            samples = _protocol.rounds(functools.partial(ask, True), functools.partial(ask, False), count)
            sent, ratio = attackers.sent - begun, _protocol.ratio(*samples)
            time.sleep(2)
            memories = [before, _protocol.memory(server.process.pid)]
            calmly, hostilely = (1000 * statistics.median(each) for each in reversed(samples))
            print(f"a bystander's p99 ({name}): {calmly:.1f} → {hostilely:.1f} ms, × {said(ratio)}; {sent} hostile requests meanwhile")
            print(f"memory: {memories[0] >> 20} MiB before, {memories[1] >> 20} MiB after")
            found[name] = {
                "tokens": question["max_tokens"],
                "hostile_seconds": samples[0],
                "calm_seconds": samples[1],
                "ratio": ratio,
                "hostile_requests": sent,
                "memory_bytes": memories,
            }
    return {**found, "exit_code": server.process.returncode}


def forms(place: Path, count: int) -> dict[str, Any]:
    """The p99 of a bystander whose form is known, in calm and while others have forms compiled that take long, each a new one."""
    numbers = itertools.count(19997, -2)

    def one(client: httpx2.Client) -> None:
        client.post("/v1/chat/completions", json=held({"type": "integer", "multipleOf": next(numbers)}, 1)).raise_for_status()

    known = {"type": "object", "properties": {"色": {"enum": ["赤", "青"]}, "数": {"type": "integer"}}, "required": ["色", "数"]}
    with serving(place) as server, server.client(server.calm) as calm, Attackers(server, one, COMPILING) as attackers:
        ask = functools.partial(p99, calm, held({**known, "additionalProperties": False}, 24), attackers)
        ask(False)
        samples = _protocol.rounds(lambda: ask(True), lambda: ask(False), count)
    ratio = _protocol.ratio(*samples)
    calmly = 1000 * statistics.median(samples[1])
    print(f"a known form beside {COMPILING} that are compiled: p99 × {said(ratio)} of the calm {calmly:.1f} ms; {attackers.sent} compiled")
    return {"forms": {"compiling_seconds": samples[0], "calm_seconds": samples[1], "ratio": ratio, "compiled": attackers.sent}}


def held(schema: dict[str, Any], length: int) -> dict[str, Any]:
    """A question whose answer is held to a schema."""
    form = {"type": "json_schema", "json_schema": {"name": "form", "schema": schema}}
    return {**hostile.SANE, "max_tokens": length, "response_format": form}


if __name__ == "__main__":
    main()
