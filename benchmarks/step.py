"""Where the time of one token goes: each operation of a native step by itself, against the rate at which its weights can be read.

In: the shapes of decode.py with random weights in 8 and 4 bits; a text of 128 tokens. Out: `results/step.json` and a table: microseconds
of a token and bytes a second for the embedding, the four matrices of a layer, attention and the head, their sum, and the whole step; and
what the same threads reach where there is next to nothing to compute, reading float32 weights of as many bytes (`reading`). The operations
run one by one in the order of a step, so that each finds its weights as cold as they are there; that they meet Python in between makes
their sum more than the whole.

    python benchmarks/step.py                                      a minute on two cores, alone
    python benchmarks/step.py --sizes tiny --rounds 1 --out /tmp/x  a trial
"""

from __future__ import annotations

import ctypes
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _protocol
import torch
from decode import SIZES, THREADS, random_model
from torch import Tensor

from tsuzuri.model import compiled
from tsuzuri.model.adapt import quantize
from tsuzuri.native import layout
from tsuzuri.native.program import Matrix, Pool, Program, room

AT, SECONDS = 128, 0.3  # tokens before the one that is computed; of each sample
LAYER = ("queries, keys, values", "attention", "output", "gate, up", "down")
KINDS = ("embedding", *LAYER, "head")
Times = dict[str, float]  # seconds of a token


def main() -> None:
    parser = _protocol.arguments(__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="20m,110m", help=f"of {', '.join(SIZES)}")
    parser.add_argument("--forms", default="q8_0,q4_0")
    options = parser.parse_args()
    rows = {
        f"{size} {form}": measured(size, form, options.rounds) for size in options.sizes.split(",") for form in options.forms.split(",")
    }
    record = {"rounds": options.rounds, "trial": options.rounds < _protocol.ROUNDS, "threads": THREADS, "rows": rows}
    print(_protocol.write("step", record, options.out))


def measured(size: str, form: str, count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        model = random_model(SIZES[size], Path(place))
    quantize.quantize(model, form)
    native = compiled.made(model, THREADS)
    assert native is not None, "the native library is not there"
    whole, layers = native._to_logits, SIZES[size].num_hidden_layers
    kinds = ["embedding", *LAYER * layers, "head"]
    matrices = [native._packed.head, *(each for layer in native._packed.layers for each in layer if each is not None)]
    bytes_of = dict.fromkeys((*KINDS, "whole", "reading"), 0)
    for name, matrix in zip(["head", *(LAYER[0], *LAYER[2:]) * layers], matrices, strict=True):
        for place in (name, "whole", "reading"):
            bytes_of[place] += matrix.blocks.numel()
    table = torch.tensor([native.take_pages(AT // compiled.PAGE + 1)], dtype=torch.int32)
    alone = [call(part(whole, operation), table, AT) for operation in whole._operations]
    works = {"whole": call(whole, table, AT), "reading": call(reader(native.pool, bytes_of["whole"]), table, 0)}
    samples: dict[str, list[float]] = {name: [] for name in (*KINDS, *works)}
    for _ in range(count):
        for name, seconds in (by_kind(kinds, alone) | {name: by_kind([name], [work])[name] for name, work in works.items()}).items():
            samples[name].append(seconds)
    middle = {name: statistics.median(each) for name, each in samples.items()}
    print(f"\n{size} {form}: {1 / middle['whole']:,.0f} tokens a second, {bytes_of['whole'] / 1e6:.1f} MB a token")
    for name, each in middle.items():
        rate = f"{bytes_of[name] / each / 1e9:6.1f} GB/s" if bytes_of[name] else ""
        print(f"  {name:24} {1e6 * each:8.0f} us {each / middle['whole']:6.1%} {rate}")
    ratio = _protocol.ratio(samples["reading"], samples["whole"])
    print(f"  the whole step at {_protocol.said(ratio)} of the speed of reading its weights")
    return {"seconds": samples, "median": middle, "bytes": bytes_of, "ratio": ratio}


def part(whole: Program, operation: Any) -> Program:
    """One operation of a program, on the same memory."""
    found = Program(whole.pool, whole.most)
    found._operations, found._limits, found._kept = [operation], whole._limits, [whole]
    return found


def reader(pool: Pool, size: int) -> Program:
    """Multiplies one token with a float32 matrix of `size` bytes: 16 weights a load and an addition, and nothing else to wait for."""
    columns = 256
    rows = max(16, size // (4 * columns) // 16 * 16)
    room_for = room(pool.library, rows * columns * 4).view(rows // 16, -1)
    layout.pack(room_for, torch.ones(rows, columns))
    program = Program(pool, 1)
    program.matmul(Matrix(room_for, "f32", rows, columns), torch.ones(1, columns), program.buffer(rows))
    return program


def call(program: Program, table: Tensor, at: int) -> Callable[[], None]:
    """The library's own call for one token, after the first one."""
    program.run([1], [at], [0], table, [0])
    run, address, step = program.pool.library.calls.tsuzuri_run, program._address, program._step

    def again() -> None:
        failed = run(address, ctypes.byref(step))
        assert not failed

    again.kept = program, table  # type: ignore[attr-defined]
    return again


def by_kind(kinds: list[str], works: list[Callable[[], None]]) -> Times:
    """Seconds of each kind in one pass over all works: that of which nine passes in ten are slower, so that what another program takes
    away counts little."""
    each: dict[str, list[float]] = {name: [] for name in kinds}
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(each[kinds[0]]) < 10:
        spent = dict.fromkeys(kinds, 0.0)
        for name, work in zip(kinds, works, strict=True):
            begun = time.perf_counter()
            work()
            spent[name] += time.perf_counter() - begun
        for name, seconds in spent.items():
            each[name].append(seconds)
    return {name: statistics.quantiles(samples, n=10)[0] for name, samples in each.items()}


if __name__ == "__main__":
    main()
