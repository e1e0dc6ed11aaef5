"""Many at once on this machine: 16 streams, a shared beginning, and a busy neighbour.

In: the Llama shapes of decode.py with random weights in 8 and 4 bits, through the whole Python engine. Out:
`results/serving-KIND.json` (as decode.py says) and a table. What is compared, in turns within one run:

    streams     16 requests at once (64 tokens read, 128 written) against the same 16 one after another by llama.cpp
    prefix      the first token of a prompt of which 90 % was read before, against one of which nothing was; and of one of which
                nothing was, with the cache against without
    neighbour   writing beside another busy process, against alone

Before anything is timed, the streams' tokens are compared with those of the same engine one by one.

    python benchmarks/serving.py                          about ten minutes on two cores, alone
    python benchmarks/serving.py --sizes tiny --rounds 1  a trial
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import _protocol
import decode
import torch
from _protocol import said

from tsuzuri.engine.batch import BatchEngine
from tsuzuri.engine.engine import LocalEngine
from tsuzuri.engine.sampling import Sampling
from tsuzuri.model import compiled, weights
from tsuzuri.model.adapt import quantize

STREAMS, READ, WRITTEN, LONG, SHARED = 16, 64, 128, 480, 432


def main() -> None:
    parser = _protocol.arguments(__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="20m,110m", help=f"of {', '.join(decode.SIZES)}")
    parser.add_argument("--forms", default="q8_0,q4_0")
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    for size in options.sizes.split(","):
        for form in options.forms.split(","):
            with tempfile.TemporaryDirectory() as place:
                rows[f"{size} {form}"] = measured(size, form, Path(place), options.rounds)
    record = {"rounds": options.rounds, "trial": options.rounds < _protocol.ROUNDS, "threads": decode.THREADS, "rows": rows}
    print(_protocol.write(f"serving-{decode.KIND}", record, options.out))


def measured(size: str, form: str, place: Path, count: int) -> dict[str, Any]:
    shape = decode.SIZES[size]
    plain = decode.random_model(shape, place)
    decode.write_gguf(plain, form, place / f"{form}.gguf")
    model = weights.load(place)
    quantize.quantize(model, form)
    native = compiled.made(model, decode.THREADS)
    assert native is not None, "the native library is not there"
    one = LocalEngine(native, (), shape.max_position_embeddings)
    print(f"{size} {form}")
    return {"streams": streams(one, place, form, count), **prefix(one, count), "neighbour": neighbour(one, count)}


def prompts(vocabulary: int, seed: int, length: int = READ) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocabulary, (STREAMS, length), generator=generator).tolist()


def run(batch: BatchEngine, asked: list[list[int]], sampling: Sampling) -> list[list[int]]:
    waiting = [batch.stream(ids, sampling) for ids in asked]
    while batch.step():
        pass
    return [[token.id for token in stream] for stream in waiting]


def streams(one: LocalEngine, place: Path, form: str, count: int) -> dict[str, Any]:
    sampling = Sampling(temperature=0, max_tokens=WRITTEN, ignore_eos=True)
    pages = STREAMS * -(-(READ + WRITTEN) // 32)
    asked = prompts(one.vocab_size, 0)
    alone = [[token.id for token in one.stream(ids, sampling)] for ids in asked[:4]]
    if run(BatchEngine(one, pages), asked, sampling)[:4] != alone:
        sys.exit("the streams are not what they are one by one: nothing is timed")
    peer = decode.Worker("llama.cpp", place, form)
    seeds = iter(range(1, 10_000))

    def ours() -> float:
        fresh = prompts(one.vocab_size, next(seeds))
        begun = time.perf_counter()
        run(BatchEngine(one, pages), fresh, sampling)
        return time.perf_counter() - begun

    def theirs() -> float:
        """One of the sixteen, read and written; sixteen in a row take sixteen times as long."""
        return STREAMS * float(peer.ask("whole"))

    ours(), theirs()
    samples = _protocol.rounds(ours, theirs, count)
    peer.close()
    ratio = _protocol.ratio(samples[1], samples[0])
    speeds = [STREAMS * WRITTEN / statistics.median(seconds) for seconds in samples]
    print(f"  {STREAMS} streams: {speeds[0]:,.0f} tok/s, llama.cpp one by one {speeds[1]:,.0f}; × {said(ratio)}")
    return {"ours_seconds": samples[0], "peer_seconds": samples[1], "tokens_per_second": speeds, "ratio": ratio}


def prefix(one: LocalEngine, count: int) -> dict[str, Any]:
    """Seconds to the first token."""
    batch, sampling = BatchEngine(one, 1024), Sampling(temperature=0, max_tokens=1)
    seeds = iter(range(20_000, 40_000))
    shared = prompts(one.vocab_size, 19_999, SHARED)[0]
    run(batch, [[*shared, 1]], sampling)

    def first(ids: list[int], without: bool = False) -> float:
        with unremembered() if without else nothing():
            begun = time.perf_counter()
            stream = batch.stream(ids, sampling)
            while batch.step():
                pass
            next(stream)
            return time.perf_counter() - begun

    def fresh(length: int) -> list[int]:
        return prompts(one.vocab_size, next(seeds), length)[0]

    def known() -> float:
        return first([*shared, *fresh(LONG - SHARED)])

    def unknown() -> float:
        return first(fresh(LONG))

    def without() -> float:
        return first(fresh(LONG), without=True)

    known(), unknown(), without()
    shared_samples = _protocol.rounds(known, unknown, count)
    faster = _protocol.ratio(shared_samples[1], shared_samples[0])
    cost_samples = _protocol.rounds(unknown, without, 5 * count)  # a hundredth is looked for
    cost = _protocol.ratio(cost_samples[0], cost_samples[1])
    milliseconds = [1000 * statistics.median(samples) for samples in shared_samples]
    print(f"  first token: {milliseconds[0]:.1f} ms with {SHARED} of {LONG} known, {milliseconds[1]:.1f} with none; × {said(faster)}")
    print(f"  the cache where nothing is known costs × {said(cost)}")
    return {
        "prefix": {"known_seconds": shared_samples[0], "unknown_seconds": shared_samples[1], "ratio": faster},
        "prefix_cost": {"with_seconds": cost_samples[0], "without_seconds": cost_samples[1], "ratio": cost},
    }


@contextmanager
def unremembered() -> Any:
    kept = BatchEngine._begin, BatchEngine._remember, BatchEngine._computed_by_another
    BatchEngine._begin = BatchEngine._remember = lambda *_: None  # type: ignore[method-assign]
    BatchEngine._computed_by_another = lambda *_: False  # type: ignore[method-assign]
    try:
        yield
    finally:
        BatchEngine._begin, BatchEngine._remember, BatchEngine._computed_by_another = kept  # type: ignore[method-assign]


@contextmanager
def nothing() -> Any:
    yield


def neighbour(one: LocalEngine, count: int) -> dict[str, Any]:
    """Seconds for 128 tokens alone, and beside a process that never rests."""
    sampling = Sampling(temperature=0, max_tokens=WRITTEN, ignore_eos=True)
    ids = prompts(one.vocab_size, 5)[0]

    def write() -> float:
        begun = time.perf_counter()
        for _ in one.stream(ids, sampling):
            pass
        return time.perf_counter() - begun

    def beside() -> float:
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            time.sleep(0.3)
            return write()
        finally:
            busy.kill()
            busy.wait()

    write()
    samples = _protocol.rounds(write, beside, count)
    ratio = _protocol.ratio(samples[0], samples[1])
    print(f"  beside a busy process: {said(ratio)} of the speed alone")
    return {"alone_seconds": samples[0], "beside_seconds": samples[1], "ratio": ratio}


if __name__ == "__main__":
    main()
