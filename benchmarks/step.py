"""Where the time of one token goes: each kind of operation of a native step, timed alone, against the rate at which memory is read.

In: the shapes of decode.py with random weights in 8 and 4 bits; a text of 128 tokens. Out: `results/step.json` and a table: microseconds
of a token and bytes a second for the embedding, the four matrices of a layer, attention and the head, their sum and the whole step; and
what the same threads reach where there is next to nothing to compute, reading float32 weights of as many bytes (`reading`). A kind runs
in all layers one after the other, as in a step, so that the weights of a layer are as cold as they are there.

    python benchmarks/step.py                                      a minute on two cores, alone
    python benchmarks/step.py --sizes tiny --rounds 1 --out /tmp/x  a trial
"""

from __future__ import annotations

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
from tsuzuri.native.program import ATTEND, EMBED, Matrix, Pool, Program

AT, SECONDS = 128, 0.3  # tokens before the one that is computed; of each sample
KINDS = ("embedding", "queries, keys, values", "attention", "output", "gate, up", "down", "head")


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
    whole = native._to_logits
    operations = whole._operations
    last = len(operations) - 1
    kinds = [KINDS[0 if op.kind == EMBED else 6 if number == last else 2 if op.kind == ATTEND else (number - 1) % 5 + 1] for number, op in enumerate(operations)]  # fmt: skip
    table = torch.tensor([native.take_pages(AT // compiled.PAGE + 1)], dtype=torch.int32)
    parts = {name: part(whole, [op for op, kind in zip(operations, kinds, strict=True) if kind == name]) for name in KINDS}
    bytes_of = dict.fromkeys(KINDS, 0)
    matrices = [native._packed.head, *(each for layer in native._packed.layers for each in layer)]
    names = ["head", *(name for _ in native._packed.layers for name in ("queries, keys, values", "output", "gate, up", "down"))]
    for name, matrix in zip(names, matrices, strict=True):
        bytes_of[name] += matrix.blocks.numel()
    reader = reading(native.pool, sum(bytes_of.values()), model.shape.hidden_size)
    works = {**{name: step(program, table) for name, program in parts.items()}, "whole": step(whole, table), "reading": reader}
    samples: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(count):
        for name in works if turn % 2 == 0 else reversed(works):
            samples[name].append(seconds(works[name]))
    middle = {name: statistics.median(each) for name, each in samples.items()}
    bytes_of["whole"] = bytes_of["reading"] = sum(bytes_of.values())
    print(f"\n{size} {form}: {1 / middle['whole']:,.0f} tokens a second, {bytes_of['whole'] / 1e6:.1f} MB a token")
    for name, each in middle.items():
        rate = f"{bytes_of[name] / each / 1e9:6.1f} GB/s" if bytes_of.get(name) else ""
        print(f"  {name:24} {1e6 * each:8.0f} us {each / middle['whole']:6.1%} {rate}")
    ratio = _protocol.ratio(samples["reading"], samples["whole"])
    print(f"  the whole step at {_protocol.said(ratio)} of the speed of reading its weights")
    return {"seconds": samples, "median": middle, "bytes": bytes_of, "ratio": ratio}


def part(whole: Program, operations: list[Any]) -> Program:
    """Those operations of a program alone, on the same memory."""
    found = Program(whole.pool, whole.most)
    found._operations, found._limits, found._kept = operations, whole._limits, [whole]
    return found


def reading(pool: Pool, size: int, columns: int) -> Callable[[], None]:
    """Multiplies one token with a float32 matrix of `size` bytes: 16 weights a load and an addition, and nothing else to wait for."""
    rows = max(16, size // (4 * columns) // 16 * 16)
    matrix = Matrix(layout.packed(torch.ones(rows, columns)), "f32", rows, columns)
    program = Program(pool, 1)
    program.matmul(matrix, torch.ones(1, columns), program.buffer(rows))
    return step(program, torch.zeros(1, 1, dtype=torch.int32), at=0)


def step(program: Program, table: Tensor, at: int = AT) -> Callable[[], None]:
    return lambda: program.run([1], [at], [0], table, [0])


def seconds(work: Callable[[], None]) -> float:
    """Of one call, over many."""
    work()
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < SECONDS:
        work()
        done += 1
    return (time.perf_counter() - begun) / done


if __name__ == "__main__":
    main()
