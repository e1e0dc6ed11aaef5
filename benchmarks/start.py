"""From nothing to the first token: a process that opens a stored model and says one token, and what of it is `import torch`.

In: the 110 M shape of decode.py with random weights, stored in 8 and 4 bits. Out: `results/start.json` and a line for each form: seconds
from the moment at which the process was asked for to the token, processor seconds, and in turns with it the seconds of a process that
imports torch and does nothing else, below which no start can come.

    python benchmarks/start.py                                        a minute, alone on the machine
    python benchmarks/start.py --sizes tiny --rounds 1 --out /tmp/x    a trial
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _protocol
from decode import SIZES, random_model

from tsuzuri.chat import template
from tsuzuri.model import weights
from tsuzuri.model.adapt import quantize
from tsuzuri.text import fast

TOKEN = """
import sys
import tsuzuri
model = tsuzuri.load(sys.argv[1])
from tsuzuri.engine.sampling import Sampling
next(model.engine.stream(model.tokenizer.encode("今日の天気は"), Sampling(temperature=0, max_tokens=1)))
"""
END = "\nimport time\nprint(time.time(), time.process_time())"


def main() -> None:
    parser = _protocol.arguments(__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="110m", help=f"of {', '.join(SIZES)}")
    options = parser.parse_args()
    rows = {f"{size} {form}": measured(size, form, options.rounds) for size in options.sizes.split(",") for form in ("q8_0", "q4_0")}
    record = {"rounds": options.rounds, "trial": options.rounds < _protocol.ROUNDS, "rows": rows}
    print(_protocol.write("start", record, options.out))


def measured(size: str, form: str, count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        store(size, form, Path(place))
        works = {"first token": TOKEN, "import torch": "import torch"}
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
        once(TOKEN, place)
        for turn in range(count):
            for name in works if turn % 2 == 0 else reversed(works):
                found[name].append(once(works[name], place))
    row: dict[str, Any] = {}
    for name, samples in found.items():
        wall, processor = (list(each) for each in zip(*samples, strict=True))
        row[name] = {"seconds": wall, "processor_seconds": processor, "median": statistics.median(wall), "minimum": min(wall)}
        spent = statistics.median(processor)
        print(f"{size} {form}, {name}: {row[name]['median']:.2f} s ({min(wall):.2f} - {max(wall):.2f}), of the processor {spent:.2f}")
    return row


def store(size: str, form: str, place: Path) -> None:
    model = random_model(SIZES[size], place)
    quantize.quantize(model, form)
    weights.save(model, place)
    fast.train("bpe", ["今日の天気は晴れのち曇り、ところにより一時雨でしょう。"] * 4, 300).save(place)
    template.save(place)


def once(work: str, place: str) -> tuple[float, float]:
    """Wall seconds from before the process was there, and its processor seconds."""
    path = os.pathsep.join(part for part in (str(_protocol.ROOT), os.environ.get("PYTHONPATH")) if part)
    begun = time.time()
    command = [sys.executable, "-c", work + END, place]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    ended, processor = map(float, done.stdout.split())
    return ended - begun, processor


if __name__ == "__main__":
    main()
