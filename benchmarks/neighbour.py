"""What one busy neighbour costs: training steps beside a process that computes without end, by OpenMP wait policy.

In: the shape of recipes/tiny.yaml. Out: `results/neighbour.json` and a table: steps a second alone and beside the neighbour,
with the policy the package sets (passive) and with PyTorch's own (a spinning barrier), alternating. The claim: what the
package sets keeps most of the speed where the default loses it (`tsuzuri/__init__.py`).

    python benchmarks/neighbour.py              about five minutes
    python benchmarks/neighbour.py --rounds 1   a trial
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

import _protocol

SECONDS = 4.0  # of steps in each sample
FIRST = {
    "passive": "import tsuzuri",  # sets the policy, before the runtime has read it
    "default": "import torch; torch.ones(2048, 2048) @ torch.ones(2048, 2048); import tsuzuri",  # the runtime has read its own
}
STEPS = f"""
import time
import torch
from tsuzuri import device
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.train.data import Batch
from tsuzuri.train.loss import next_token
from tsuzuri.train.optim import Optimizer, OptimSettings

device.threads()
shape = Shape(vocab_size=4096, hidden_size=192, num_hidden_layers=3, num_attention_heads=3, intermediate_size=512, max_position_embeddings=256)
model = Transformer(shape).initialise(0).requires_grad_(True).to(device.dtype("auto"))
optimizer = Optimizer(model, OptimSettings())
ids = torch.randint(4096, (2, 257))
batch = Batch(ids[:, :-1], ids[:, 1:], torch.arange(256).expand(2, -1), None)
for part in ("warm-up", "counted"):
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < (1 if part == "warm-up" else {SECONDS}):
        (next_token(model, batch) / batch.trained).backward()
        optimizer.step(0.0)  # all of the work, at a learning rate of nothing
        done += 1
print(done / (time.perf_counter() - begun))
"""


def steps(policy: str, busy: bool) -> float:
    """Steps a second in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"{FIRST[policy]}\n{STEPS}"],
            env=environment,
            cwd=_protocol.ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        if neighbour:
            neighbour.kill()
            neighbour.wait()
    return float(done.stdout)


def main() -> None:
    options = _protocol.arguments(__doc__.partition("\n")[0]).parse_args()
    found: dict[str, dict[str, list[float]]] = {name: {"alone": [], "beside": []} for name in FIRST}
    for turn in range(options.rounds):
        for name in FIRST if turn % 2 == 0 else reversed(FIRST):
            for where in ("alone", "beside"):
                found[name][where].append(steps(name, where == "beside"))
    kept = {name: _protocol.ratio(samples["beside"], samples["alone"]) for name, samples in found.items()}
    for name, samples in found.items():
        print(f"{name}: alone {statistics.median(samples['alone']):.2f} steps/s; beside a neighbour × {_protocol.said(kept[name])}")
    record = {"rounds": options.rounds, "trial": options.rounds < _protocol.ROUNDS, "steps_per_second": found, "kept": kept}
    print(_protocol.write("neighbour", record, options.out))


if __name__ == "__main__":
    main()
