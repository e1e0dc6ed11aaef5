"""The service under a closed loop of clients: ours against llama-cpp-python's server, on the same weights.

In: a Llama shape of decode.py with random weights, exported by our own exporter to GGUF in 8 bits, and the same directory served by
`tsuzuri serve --quantize q8_0`. 1, 4, 16 and 64 clients ask over HTTP for streamed answers of 64 tokens to a prompt of about 64; each asks
again as soon as its answer is whole. Out: `results/load.json`: time to the first token (TTFT), time per token after it (TPOT), gaps
between tokens (ITL), tokens a second, and goodput, the answers a second that kept the limits below. Both servers run all the time, each in
a process of its own, and are asked in turns (A B B A …). Ours as it comes, guard and audit included; the peer with `interrupt_requests`
off, without which a second client ends the answer of the first.

Before anything is timed both are asked the same greedily: the same number of prompt tokens, and how far the answers agree is recorded.

    python benchmarks/load.py --peer-packages DIR                     about twenty minutes on two cores, alone
    python benchmarks/load.py --peer-packages DIR --short             about three, a trial
    python -m pip install --target DIR --no-deps fastapi annotated-doc pydantic-settings sse-starlette starlette-context \
        python-dotenv typing-inspection
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _protocol
import decode
import httpx2
from _protocol import said
from restarts import free_port

from tsuzuri.chat import template
from tsuzuri.errors import Words
from tsuzuri.recipe import hand_over
from tsuzuri.store import database, keys
from tsuzuri.text import fast

ASKED = {1: 2, 4: 2, 16: 2, 64: 1}  # clients -> answers that each asks for in one sample
WRITTEN = 64
WORDS = 50  # letters of the question; the template brings it to about 64 tokens
FIRST, EACH = 2.0, 0.1  # seconds: goodput counts answers whose first token and whose mean gap stay below
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass
class Answer:
    """When what came, in seconds since it was asked."""

    first: float = 0.0
    last: float = 0.0
    pieces: int = 0
    gaps: list[float] = field(default_factory=list)
    tries: int = 1
    length: bool = False  # it ended by its length

    @property
    def tokens(self) -> int:
        """Random weights end a text early now and then; a piece may be more than one token where these are no whole character."""
        return WRITTEN if self.length else self.pieces

    @property
    def each(self) -> float:
        return (self.last - self.first) / max(1, self.tokens - 1)


@dataclass(frozen=True)
class Peer:
    name: str
    port: int
    model: str
    key: str

    def request(self, question: str, *, stream: bool) -> bytes:
        body = {
            "model": self.model, "messages": [{"role": "user", "content": question}], "max_tokens": WRITTEN, "temperature": 0, "stream": stream,
        }  # fmt: skip
        data = json.dumps(body).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.key}\r\nConnection: close\r\n"
        return f"{head}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


# ── one answer, one sample


async def asked(peer: Peer, question: str) -> Answer:
    """An answer to its end. What is refused because too many ask is asked again, and the time goes on."""
    found, begun = Answer(), time.perf_counter()
    while not await _heard(peer, question, found, begun):
        found.tries += 1
        await asyncio.sleep(0.02)
    return found


async def _heard(peer: Peer, question: str, found: Answer, begun: float) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", peer.port)
    try:
        writer.write(peer.request(question, stream=True))
        status = (await reader.readline()).split()[1]
        if status in (b"429", b"503"):
            return False
        if status != b"200":
            raise RuntimeError((await reader.read()).decode())
        before = None
        while line := await reader.readline():
            found.length |= b'"finish_reason":"length"' in line or b'"finish_reason": "length"' in line
            if not line.startswith(b"data: {") or not _says(line):
                continue
            now = time.perf_counter() - begun
            found.pieces += 1
            if before is None:
                found.first = now
            else:
                found.gaps.append(now - before)
            before = found.last = now
    finally:
        writer.close()
    return True


def _says(line: bytes) -> bool:
    """Whether a frame has text: the two servers write a space after the colon, or none."""
    return (b'"content":"' in line and b'"content":""' not in line) or (b'"content": "' in line and b'"content": ""' not in line)


def sample(peer: Peer, clients: int, seed: int, times: int) -> dict[str, Any]:
    """Of all answers together."""

    async def client(number: int) -> list[Answer]:
        return [await asked(peer, question(seed * 10_000 + number * 100 + turn)) for turn in range(times)]

    async def all_of() -> tuple[list[Answer], float]:
        begun = time.perf_counter()
        found = await asyncio.gather(*[client(number) for number in range(clients)])
        return [answer for answers in found for answer in answers], time.perf_counter() - begun

    answers, seconds = asyncio.run(all_of())
    good = sum(answer.first <= FIRST and answer.each <= EACH for answer in answers)
    gaps = sorted(gap for answer in answers for gap in answer.gaps)
    return {
        "seconds": seconds, "answers": len(answers), "short": sum(not answer.length for answer in answers), "tries": sum(answer.tries for answer in answers),
        "ttft": statistics.median(answer.first for answer in answers), "ttft_most": max(answer.first for answer in answers),
        "tpot": statistics.median(answer.each for answer in answers), "itl_p99": gaps[len(gaps) * 99 // 100],
        "tokens_per_second": sum(answer.tokens for answer in answers) / seconds, "goodput": good / seconds,
    }  # fmt: skip


def question(seed: int) -> str:
    """Letters that no question before had: nothing is known from before."""
    return "".join(LETTERS[(seed * 7919 + i * i * 31 + seed % (i + 2) * 17) % 26] for i in range(WORDS))


# ── the two servers


def prepared(size: str, place: Path) -> None:
    """`place/weights`: the directory; `place/gguf`: the same for the peer, in 8 bits."""
    shape = decode.SIZES[size]
    (place / "weights").mkdir()
    decode.random_model(shape, place / "weights")
    full(shape.vocab_size).save(place / "weights")
    template.save(place / "weights")
    hand_over.write(place / "weights", place / "gguf", to="gguf", stored="q8_0", tolerance=10.0)


def full(vocabulary: int) -> fast.FastTokenizer:
    """A small tokenizer with pieces up to the size of the vocabulary that no text is cut into, each with a spelling of its own."""
    small = fast.train("bpe", ["the quick brown fox jumps over the lazy dog " * 4], 280)
    state = json.loads(json.dumps(small.state))
    vocab = state["model"]["vocab"]
    used = max(*vocab.values(), *(token["id"] for token in state["added_tokens"])) + 1
    vocab |= {f"word{id}": id for id in range(used, vocabulary)}
    return fast.parse(json.dumps(state), Words("トークナイザを作りました。", "Making a tokenizer."))


@contextmanager
def serving(place: Path, packages: Path | None) -> Iterator[tuple[Peer, Peer]]:
    with database.open(place / "data", place / "data.secrets") as db:
        _, secret = keys.create(db, "load", scopes=("chat",), concurrent=64)
    ours, theirs = Peer("tsuzuri", free_port(), "weights", secret), Peer("llama-cpp-python", free_port(), "weights", "none")
    line = [
        sys.executable,
        "-m",
        "tsuzuri",
        "serve",
        "--model",
        str(place / "weights"),
        "--quantize",
        "q8_0",
        "--threads",
        str(decode.THREADS),
    ]
    line += ["--port", str(ours.port), "--data-dir", str(place / "data")]
    file = next((place / "gguf").glob("*.gguf"))
    threads = ["--n_threads", str(decode.THREADS), "--n_threads_batch", str(decode.THREADS)]
    other = [
        sys.executable,
        "-m",
        "llama_cpp.server",
        "--model",
        str(file),
        "--model_alias",
        "weights",
        "--port",
        str(theirs.port),
        *threads,
    ]
    other += ["--n_ctx", "512", "--verbose", "False", "--interrupt_requests", "False"]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}  # ours sets its own
    there = {**environment, "PYTHONPATH": os.pathsep.join(filter(None, [str(packages or ""), os.environ.get("PYTHONPATH", "")]))}
    running = [
        subprocess.Popen(command, env=known, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command, known in ((line, environment), (other, there))
    ]
    try:
        for peer, process in zip((ours, theirs), running, strict=True):
            until_up(peer, process)
        yield ours, theirs
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(30)


def missing(packages: Path | None) -> bool:
    path = os.pathsep.join(filter(None, [str(packages or ""), os.environ.get("PYTHONPATH", "")]))
    line = [sys.executable, "-c", "import llama_cpp.server.app"]
    return subprocess.run(line, env={**os.environ, "PYTHONPATH": path}, capture_output=True).returncode != 0


def until_up(peer: Peer, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        if process.poll() is not None:
            sys.exit(f"{peer.name} does not start" + ("" if peer.name == "tsuzuri" else ": are its packages there? See --peer-packages"))
        try:
            httpx2.get(f"http://127.0.0.1:{peer.port}/v1/models", headers={"authorization": f"Bearer {peer.key}"}, trust_env=False)
        except httpx2.HTTPError:
            time.sleep(0.1)
        else:
            return
    sys.exit(f"{peer.name} does not answer")


def equal(peers: Sequence[Peer]) -> dict[str, Any]:
    """The same prompt tokens, or the end; and the share of the answer that is the same."""
    found = []
    for peer in peers:
        body = peer.request(question(1), stream=False).partition(b"\r\n\r\n")[2]
        headers = {"authorization": f"Bearer {peer.key}", "content-type": "application/json"}
        answer = httpx2.post(
            f"http://127.0.0.1:{peer.port}/v1/chat/completions", content=body, headers=headers, timeout=120, trust_env=False
        )
        found.append(answer.raise_for_status().json())
    read = [one["usage"]["prompt_tokens"] for one in found]
    ends = [one["choices"][0]["finish_reason"] for one in found]
    texts = [one["choices"][0]["message"]["content"] for one in found]
    same = next((i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
    if read[0] != read[1] or set(ends) != {"length"}:  # the peer's own count of what it wrote is of the text, cut again
        sys.exit(f"not the same work: {read} tokens read, ended by {ends}; nothing is timed")
    return {"prompt_tokens": read[0], "written": WRITTEN, "same_characters": same / max(map(len, texts))}


def main() -> None:
    parser = _protocol.arguments(__doc__.partition("\n")[0])
    parser.add_argument("--size", default="110m", choices=list(decode.SIZES))
    parser.add_argument("--peer-packages", type=Path, help="a directory with what llama_cpp.server needs, where it is not installed")
    parser.add_argument("--short", action="store_true", help="the 20 M model, two rounds")
    options = parser.parse_args()
    if missing(options.peer_packages):
        print("llama_cpp.server is not whole here: nothing is measured. See --peer-packages.")
        return
    size, count = ("20m", 2) if options.short else (options.size, options.rounds)
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        prepared(size, place)
        with serving(place, options.peer_packages) as (ours, theirs):
            equality = equal((ours, theirs))
            print(f"{size}: {equality}")
            for clients, times in ASKED.items():
                rows[str(clients)] = level(ours, theirs, clients, times, count)
    record = {
        "rounds": count, "trial": count < _protocol.ROUNDS, "size": size, "form": "q8_0", "threads": decode.THREADS, "equality": equality,
        "limits": {"ttft_seconds": FIRST, "tpot_seconds": EACH}, "clients": rows,
    }  # fmt: skip
    print(_protocol.write("load", record, options.out))


def level(ours: Peer, theirs: Peer, clients: int, times: int, count: int) -> dict[str, Any]:
    """All samples of one number of clients, in turns, and what they come to: ratios are how many times better ours is."""
    samples: dict[str, list[dict[str, Any]]] = {ours.name: [], theirs.name: []}
    seeds = iter(range(clients * 100, clients * 100 + 1000))

    def once(peer: Peer) -> float:
        samples[peer.name].append(sample(peer, clients, next(seeds), times))
        return float(samples[peer.name][-1]["seconds"])

    sample(ours, min(clients, 4), next(seeds), 1), sample(theirs, min(clients, 4), next(seeds), 1)
    _protocol.rounds(lambda: once(ours), lambda: once(theirs), count)
    kept: dict[str, Any] = {"samples": samples, "ratio": {}, "median": {}}
    for what, more in (("tokens_per_second", True), ("goodput", True), ("ttft", False), ("tpot", False), ("itl_p99", False)):
        a, b = ([one[what] for one in samples[peer.name]] for peer in (ours, theirs))
        kept["median"][what] = [statistics.median(a), statistics.median(b)]
        if min(*a, *b) > 0:  # nothing may keep the limits
            kept["ratio"][what] = _protocol.ratio(a, b) if more else _protocol.ratio(b, a)
    speed, first = kept["median"]["tokens_per_second"], kept["median"]["ttft"]
    print(f"  {clients} clients: {speed[0]:,.0f} tok/s, {speed[1]:,.0f} the peer, × {said(kept['ratio']['tokens_per_second'])}")
    print(f"    first token {1000 * first[0]:,.0f} ms, {1000 * first[1]:,.0f} the peer; goodput {kept['median']['goodput']}")
    return kept


if __name__ == "__main__":
    main()
