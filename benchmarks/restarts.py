"""Servers that are restarted and killed under load: what clients heard, against what the ledger and the audit say.

In: real processes of `tsuzuri serve` on fixed ports, one database (SQLite; and where it is installed PostgreSQL, with two servers), a slow
model behind them, and clients in three formats, streaming and not, that come back when a connection is refused. Out:
`results/restarts.json`.

    restarts   SIGTERM, after the next process has started on the same port; the old one finishes: every stream that began ends with a
               terminator, every process with 0, and each request is charged for what was heard of it
    kills      SIGKILL at random moments: the ledger is what was delivered, but for the one piece that was on its way, no budget is
               overspent, and the audit's chain holds

    python benchmarks/restarts.py                       about four minutes on two cores
    python benchmarks/restarts.py --times 2 --out /tmp  a trial
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _protocol
import httpx2

sys.path.append(str(_protocol.ROOT / "tests"))
import postgresql
from sqlalchemy import select

from tsuzuri.serve.app import Service
from tsuzuri.serve.models import Pool, Served
from tsuzuri.serve.server import Address, Server, listen
from tsuzuri.store import audit, database, keys, ledger
from tsuzuri.store.tables import reservations
from tsuzuri.types import Done, Event, Message, Options, Text, Usage

PIECE = "あ"
STEP = 0.02  # seconds a piece
GRACE = 0.7  # seconds that answers under way have: some have not enough
MORE = 200  # pieces that all clients hear together between two restarts, at most
POOR = 150  # pieces that one key may spend
PRICES = "models:\n  slow: [{from: 2020-01-01, input: 0, output: 1}]\n"  # a micro-yen a piece


# ── the model behind


async def slow(messages: Sequence[Message], options: Options) -> AsyncIterator[Event]:
    """As many pieces as are asked for, one each STEP."""
    count = options.sampling.max_tokens or 50
    for _ in range(count):
        await asyncio.sleep(STEP)
        yield Text(PIECE)
    yield Usage(3, count)
    yield Done("length")


@contextmanager
def upstream(place: Path) -> Iterator[tuple[str, str]]:
    """Its address and key."""
    with database.open(place / "far", place / "far.secrets") as db:
        _, secret = keys.create(db, "far", scopes=("chat",), concurrent=64)
        at = listen(Address(port=0))
        server = Server(Service(Pool([Served("slow", slow)]), db), Address(), grace=0.1)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [at]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{at.getsockname()[1]}/v1", secret
        finally:
            server.handle_exit(signal.SIGTERM, None)
            thread.join(20)


# ── clients


@dataclass(frozen=True)
class Wire:
    path: str
    ask: Callable[[int, bool], dict[str, Any]]
    piece: Callable[[dict[str, Any]], str]  # the text in a frame
    ended: Callable[[list[dict[str, Any]], str], bool]  # whether the frames and the last line are a whole stream
    whole: Callable[[dict[str, Any]], str]  # the text in an answer that came at once


ASKED = {"model": "slow", "messages": [{"role": "user", "content": "あ"}]}


def _chat_ended(frames: list[dict[str, Any]], last: str) -> bool:
    told = any("error" in frame or any(choice.get("finish_reason") for choice in frame.get("choices", ())) for frame in frames)
    return told and last == "data: [DONE]"


WIRES = {
    "chat": Wire(
        "/v1/chat/completions",
        lambda count, stream: {**ASKED, "max_tokens": count, "stream": stream},
        lambda frame: "".join(choice["delta"].get("content") or "" for choice in frame.get("choices", ())),
        _chat_ended,
        lambda body: body["choices"][0]["message"]["content"],
    ),
    "messages": Wire(
        "/v1/messages",
        lambda count, stream: {**ASKED, "max_tokens": count, "stream": stream},
        lambda frame: frame["delta"].get("text", "") if frame.get("type") == "content_block_delta" else "",
        lambda frames, _: bool(frames) and frames[-1].get("type") in ("message_stop", "error"),
        lambda body: "".join(block.get("text", "") for block in body["content"]),
    ),
    "responses": Wire(
        "/v1/responses",
        lambda count, stream: {"model": "slow", "input": "あ", "max_output_tokens": count, "stream": stream},
        lambda frame: frame["delta"] if frame.get("type") == "response.output_text.delta" else "",
        lambda frames, _: (
            bool(frames) and frames[-1].get("type") in ("response.completed", "response.incomplete", "response.failed", "error")
        ),
        lambda body: "".join(part["text"] for item in body["output"] for part in item.get("content", ())),
    ),
}


@dataclass
class Heard:
    """What a client heard of one request. `end`: whole, told (an error and its terminator), refused (never begun), cut."""

    wire: str
    stream: bool
    request: str | None = None
    pieces: int = 0
    end: str = "cut"


@dataclass
class Load:
    ports: Sequence[int]
    secret: str
    poor: str
    chance: random.Random
    heard: list[Heard] = field(default_factory=list)
    unreached: int = 0  # connections refused, or closed before anything was answered
    pieces: int = 0  # heard by all, as they stream
    quiet: asyncio.Event = field(default_factory=asyncio.Event)

    async def more(self, pieces: int) -> None:
        """Until that many have been heard again: a server that has just started answers its first request late."""
        enough = self.pieces + pieces
        async with asyncio.timeout(120):
            while self.pieces < enough:
                await asyncio.sleep(0.005)

    async def client(self, number: int, secret: str) -> None:
        """One request after the other, until it is quiet or the money is spent."""
        name = list(WIRES)[number % len(WIRES)]
        async with httpx2.AsyncClient(timeout=60, trust_env=False, headers={"authorization": f"Bearer {secret}"}) as client:
            turn = number
            while not self.quiet.is_set():
                found = Heard(name, stream=self.chance.random() < 0.6)
                port, turn = self.ports[turn % len(self.ports)], turn + 1
                try:
                    spent = await self._ask(client, f"http://127.0.0.1:{port}", found)
                except httpx2.HTTPError:
                    spent = False
                if found.request is None and found.end == "cut":
                    self.unreached += 1
                    await asyncio.sleep(0.1)
                    continue
                self.heard.append(found)
                if spent:
                    return
                if found.end == "refused":
                    await asyncio.sleep(0.05)

    async def _ask(self, client: httpx2.AsyncClient, url: str, found: Heard) -> bool:
        """Whether the money is spent."""
        wire = WIRES[found.wire]
        body = wire.ask(self.chance.randrange(5, 80), found.stream)
        async with client.stream("POST", f"{url}{wire.path}", json=body) as response:
            found.request = response.headers.get("x-request-id")
            if response.status_code != 200:
                told = await response.aread()
                found.end = "refused"
                return b"insufficient_quota" in told
            if not found.stream:
                found.pieces = len(wire.whole(json.loads(await response.aread())))
                found.end = "whole"
                return False
            frames, last = [], ""
            async for line in response.aiter_lines():
                last = line or last
                if line.startswith("data: {"):
                    frames.append(json.loads(line[6:]))
                    count = len(wire.piece(frames[-1]))
                    found.pieces, self.pieces = found.pieces + count, self.pieces + count
            if wire.ended(frames, last):
                found.end = "told" if _told(frames) else "whole"
        return False


def _told(frames: list[dict[str, Any]]) -> bool:
    return any(frame.get("error") or frame.get("type") in ("error", "response.failed") for frame in frames)


# ── servers


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


async def start(place: Path, address: str | Path, far: tuple[str, str], port: int) -> asyncio.subprocess.Process:
    """A process of `tsuzuri serve`, once it says that it serves."""
    where = {"TSUZURI_DATABASE_URL": address} if isinstance(address, str) else {"TSUZURI_DATA_DIR": str(address)}
    environment = {**os.environ, **where, "TSUZURI_SECRETS_DIR": str(place / "secrets"), "TSUZURI_REMOTE_KEY": far[1], "TSUZURI_LANG": "en"}
    line = ["-m", "tsuzuri", "serve", "--port", str(port), "--share-port", "--remote", f"slow={far[0]}", "--grace", str(GRACE)]
    line += ["--prices", str(place / "prices.yaml")]
    made = await asyncio.create_subprocess_exec(sys.executable, *line, stdout=PIPE, env=environment, cwd=place)
    assert made.stdout
    while b"Ctrl-C" not in (said := await made.stdout.readline()):
        if not said:
            raise RuntimeError("the server did not start")
    until = time.monotonic() + 60
    while not listens(made.pid):  # it has said where it will be, and still loads what its guard reads
        if made.returncode is not None or time.monotonic() > until:
            raise RuntimeError("the server does not let anybody in")
        await asyncio.sleep(0.02)
    return made


def listens(process: int) -> bool:
    """Whether a socket of this process takes connections; others may listen at the same port (Linux)."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    held = set()
    for file in Path(f"/proc/{process}/fd").iterdir():
        with suppress(OSError):  # closed since
            held.add(str(file.readlink()))
    return any(line[3] == "0A" and f"socket:[{line[9]}]" in held for line in lines)


@asynccontextmanager
async def loaded(load: Load, clients: int) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(load.client(number, load.secret)) for number in range(clients)]
    tasks.append(asyncio.create_task(load.client(0, load.poor)))
    try:
        yield
    finally:
        load.quiet.set()
        await asyncio.gather(*tasks)


async def ended(process: asyncio.subprocess.Process) -> int:
    return await asyncio.wait_for(process.wait(), 60)


async def run(place: Path, address: str | Path, how: signal.Signals, times: int, servers: int, clients: int, seed: int) -> dict[str, Any]:
    """What came of it: counts, and the faults, which are to be none."""
    (place / "prices.yaml").write_text(PRICES, encoding="utf-8")
    with database.open(address, place / "secrets") as db:
        _, secret = keys.create(db, "rich", scopes=("chat",), concurrent=64)
        key, poor = keys.create(db, "poor", scopes=("chat",), concurrent=64)
        ledger.set_limit(db, f"key:{key.id}", POOR)
    chance = random.Random(seed)
    ports = [free_port() for _ in range(servers)]
    load = Load(ports, secret, poor, chance)
    codes: list[int] = []
    seconds: list[float] = []
    with upstream(place) as far:
        running = [await start(place, address, far, port) for port in ports]
        try:
            async with loaded(load, clients):
                for turn in range(times):
                    await load.more(chance.randrange(1, MORE))
                    which = turn % servers
                    old = running[which]
                    if how == signal.SIGTERM:  # the next one is there before
                        running[which] = await start(place, address, far, ports[which])
                    begun = time.monotonic()
                    old.send_signal(how)
                    codes.append(await ended(old))
                    seconds.append(time.monotonic() - begun)
                    if how == signal.SIGKILL:
                        running[which] = await start(place, address, far, ports[which])
        finally:
            for process in running:
                process.send_signal(signal.SIGTERM)
            codes += [await ended(process) for process in running]
    with database.open(address, place / "secrets") as db:
        ledger.recover(db, now=ledger.now_ms() + 2 * ledger.LEASE_MS)
        found = compared(db, load.heard, killed=how == signal.SIGKILL)
        spent = ledger.balance(db, f"key:{key.id}")
    found["faults"] |= {
        "processes that did not end with 0": sum(code != 0 for code in codes[times if how == signal.SIGKILL else 0 :]),
        "micro-yen spent beyond a budget": max(0, spent.spent + spent.held - POOR),
    }
    return {"times": times, "servers": servers, "clients": clients, "unreached": load.unreached, "seconds_to_the_end": seconds, **found}


def compared(db: database.Database, heard: list[Heard], *, killed: bool) -> dict[str, Any]:
    """The clients' side against the books."""
    with db.read() as connection:
        charged = {row.request_id: int(row.delivered) for row in connection.execute(select(reservations))}
    known = {one.request: one for one in heard if one.request}
    written = Counter(str(record.body["request"]) for record in audit.records(db) if record.kind == "request")
    ahead = 0  # pieces in the ledger that nobody heard
    behind = wrong = 0
    for request, pieces in charged.items():
        one = known.get(request, Heard("none", stream=True))
        if pieces < one.pieces:
            behind += 1
        if one.end == "whole" and pieces != one.pieces:
            wrong += 1
        if one.end != "whole" and one.stream and pieces > one.pieces + 1:
            wrong += 1
        ahead += max(0, pieces - one.pieces)
    ends = Counter(f"{'stream' if one.stream else 'at once'}: {one.end}" for one in heard)
    faults = {
        "requests charged for less than was heard": behind + sum(one.pieces for one in heard if one.request not in charged),
        "requests charged for more than a piece beyond what was heard": wrong,
        "entries of the ledger that do not add up": len(ledger.verify(db)),
        "requests written down twice": sum(count > 1 for count in written.values()),
        "faults in the audit's chain": int(not audit.verify(db).sound),
    }
    if not killed:
        faults["streams without an end"] = sum(one.stream and one.end == "cut" for one in heard)
        faults["answers cut"] = sum(not one.stream and one.end == "cut" for one in heard)
        faults["requests that are not written down"] = sum(one.request not in written for one in heard if one.request)
    heard_pieces, charged_pieces = sum(one.pieces for one in heard), sum(charged.values())
    return {
        "requests": len(heard), "ends": dict(sorted(ends.items())), "pieces_heard": heard_pieces, "pieces_charged": charged_pieces,
        "pieces_charged_on_their_way": ahead, "faults": faults,
    }  # fmt: skip


def trial(
    address: str | Path | None, how: signal.Signals, times: int, servers: int = 1, clients: int = 12, seed: int = 0
) -> dict[str, Any]:
    """In a place of its own. `address`: of a database on PostgreSQL; None: an SQLite in the place."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        return asyncio.run(run(place, address or place / "data", how, times, servers, clients, seed))


def main() -> None:
    parser = _protocol.arguments(__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=20, help="restarts, and kills")
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    with postgresql.cluster() if postgresql.programs() else nullcontext() as cluster:
        plan = [("restarts", signal.SIGTERM, None, 1), ("kills", signal.SIGKILL, None, 1)]
        plan += [(f"{name}, PostgreSQL", how, postgresql.fresh(cluster), 2) for name, how, *_ in plan] if cluster else []
        for name, how, address, servers in plan:
            rows[name] = found = trial(address, how, options.times, servers)
            print(f"{name}: {found['requests']} requests, {found['ends']}, {found['pieces_charged_on_their_way']} pieces on their way")
            print("  " + "; ".join(f"{what}: {count}" for what, count in found["faults"].items()))
    print(_protocol.write("restarts", {"trial": options.times < 20, "rows": rows}, options.out))
    if any(count for row in rows.values() for count in row["faults"].values()):
        sys.exit("there are faults")


if __name__ == "__main__":
    main()
