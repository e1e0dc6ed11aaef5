"""Language models from counting to today, on the same text, for the same work of the processor, of about the same size: bits per byte.

In: `sample/pretrain` and recipes/tiny.yaml. Out: `results/history.json`, and a table. Every model but the n-gram is trained by the
one loop with AdamW, on the same rows in the same order, from random weights, for as many steps as fit into `--seconds` of processor
time, all cores together; all are scored by `evals/windows.py` on the same documents. Time of the processor and not of the clock: a
busy machine makes the run longer (`wall`) and gives no family fewer steps. Steps are timed for all families before any is trained.
The learning rate of each family is the best of a few that were tried with a quarter of the time; all tries are in the record.

    python benchmarks/history.py                       one seed, ten minutes on two cores that do nothing else
    python benchmarks/history.py --only rnn,gru        these anew; the record keeps the rest, where it was asked for alike
    python benchmarks/history.py --seconds 10 --out …  a trial
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import _protocol
import torch
from time_to_bits import Work, prepare, read_recipe

from tsuzuri import device
from tsuzuri.config import build
from tsuzuri.evals.bits import Bits
from tsuzuri.evals.windows import bits_per_byte
from tsuzuri.model import weights
from tsuzuri.model.families import ngram
from tsuzuri.recipe.stages.pretrain import ModelSettings
from tsuzuri.train import loop
from tsuzuri.train.optim import Optimizer

TIMED = 8  # steps


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of about three million numbers, and learning rates to try."""

    name: str
    model: dict[str, Any]
    rates: tuple[float, ...]


ENTRIES = (
    Entry("hmm", {"family": "hmm", "num_states": 512}, (0.03, 0.1)),
    Entry("rnn", {"family": "rnn", "hidden_size": 320, "num_hidden_layers": 2}, (1e-3, 3e-3)),
    Entry("gru", {"family": "gru", "hidden_size": 256, "num_hidden_layers": 2}, (3e-3, 8e-3)),
    Entry("lstm", {"family": "lstm", "hidden_size": 256, "num_hidden_layers": 2}, (3e-3, 8e-3)),
    Entry(
        "transformer",
        {"family": "llama", "hidden_size": 192, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 512},
        (3e-3, 8e-3),
    ),
    Entry("mamba2", {"family": "mamba2", "hidden_size": 192, "num_hidden_layers": 5}, (3e-3, 8e-3)),
    Entry(
        "bamba",
        {"family": "bamba", "hidden_size": 192, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 384},
        (3e-3, 8e-3),
    ),
)


def main() -> None:
    parser = _protocol.arguments(__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="of the processor, in training, for each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--held-bytes", type=int, default=300_000, help="of the documents scored")
    parser.add_argument("--only", default="", help="names, with commas between")
    options = parser.parse_args()
    order = ["ngram", *(entry.name for entry in ENTRIES)]
    named = options.only.split(",") if options.only else order
    if unknown := {*named} - {*order}:
        parser.error(f"no such model: {', '.join(sorted(unknown))}")
    threads = device.threads()
    with tempfile.TemporaryDirectory() as name:
        work = prepare(read_recipe(None), Path(name), 0, options.held_bytes)
        chosen = [entry for entry in ENTRIES if entry.name in named]
        paces = {entry.name: pace(work, entry) for entry in chosen}
        sys.stdout.write("processor seconds of a step: " + ", ".join(f"{name} {one:.3f}" for name, one in paces.items()) + "\n")
        sys.stdout.flush()
        rows = [counted(work)] if "ngram" in named else []
        rows += [trained(work, entry, options.seconds, paces[entry.name], options.seed, Path(name)) for entry in chosen]
    asked = {"seconds": options.seconds, "seed": options.seed, "held_bytes": options.held_bytes, "threads": threads}
    every = {row["name"]: row for row in [*before(options.out / "history.json", asked), *rows]}
    record = {"options": asked, "rows": [every[name] for name in order if name in every]}
    sys.stdout.write(f"{_protocol.write('history', record, options.out)}\n")


def before(path: Path, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of an earlier record, where the same was asked for."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"options": None}
    return found["rows"] if found["options"] == asked else []


def counted(work: Work) -> dict[str, Any]:
    begun, clock = time.process_time(), time.perf_counter()
    texts = [work.documents.document(index) for index in range(len(work.documents))]
    model = ngram.fit(ngram.Settings(), texts, work.shape.vocab_size, work.boundary)
    seconds, wall = time.process_time() - begun, time.perf_counter() - clock
    return told(
        {"name": "ngram", "parameters": model.size, "seconds": seconds, "wall": wall, "steps": None, "tokens": work.documents.tokens},
        model,
        work,
    )


def trained(work: Work, entry: Entry, seconds: float, pace: float, seed: int, place: Path) -> dict[str, Any]:
    """The best learning rate of a quarter of the time, then the whole time with it."""
    tries = {}
    for rate in entry.rates:
        _, model = once(work, entry, round(seconds / 4 / pace), rate, seed, place / f"{entry.name}-{rate}")
        tries[rate] = bits_per_byte(model, work.held, work.boundary).bits_per_byte
    rate = min(tries, key=lambda rate: tries[rate])
    row, model = once(work, entry, round(seconds / pace), rate, seed, place / entry.name)
    return told(
        {**row, "seconds_of_a_step": pace, "seconds": row["steps"] * pace, "tries": {str(rate): bits for rate, bits in tries.items()}},
        model,
        work,
    )


def once(work: Work, entry: Entry, steps: int, rate: float, seed: int, place: Path) -> tuple[dict[str, Any], Any]:
    shape, settings = shaped(work, entry), replace(plain(work), steps=max(1, steps), learning_rate=rate, seed=seed)
    model = weights.build(weights.family(entry.model["family"]), shape).initialise(seed)
    outcome = loop.train(model, work.objective, settings, place, recipe={}, family=entry.model["family"])
    row = {"name": entry.name, "model": entry.model, "learning_rate": rate, "steps": outcome.steps, "tokens": outcome.tokens}
    return row | {"wall": outcome.seconds, "parameters": sum(weight.numel() for weight in model.parameters())}, model


def shaped(work: Work, entry: Entry) -> Any:
    family = weights.family(entry.model["family"])
    return build(getattr(family, "Settings", ModelSettings), entry.model).shape(work.shape.vocab_size, work.settings.length)


def plain(work: Work) -> Any:
    return replace(work.settings, optimizer="adamw", evaluate_every=0, checkpoint_every=0)


def pace(work: Work, entry: Entry) -> float:
    """Seconds of the processor for a step: the median of a few real ones on a model that is then thrown away."""
    settings = plain(work)
    model = weights.build(weights.family(entry.model["family"]), shaped(work, entry)).initialise(0)
    model = model.requires_grad_(True).to(device.dtype(settings.precision))
    optimizer, found = Optimizer(model, settings), []
    for number in range(TIMED):
        begun = time.process_time()
        batch = work.objective.batch(list(range(number * settings.batch, (number + 1) * settings.batch)))
        (work.objective.loss(model, batch) / batch.trained).backward()
        optimizer.step(0.0)
        found.append(time.process_time() - begun)
    return statistics.median(found[1:])


@torch.inference_mode()
def told(row: dict[str, Any], model: Any, work: Work) -> dict[str, Any]:
    bits: Bits = bits_per_byte(model, work.held, work.boundary)
    low, high = bits.interval or (bits.bits_per_byte, bits.bits_per_byte)
    steps = "–" if row["steps"] is None else f"{row['steps']:,}"
    sys.stdout.write(
        f"| {row['name']} | {row['parameters'] / 1e6:.1f} M | {row['seconds']:.0f} s | {steps} | {row['tokens'] / 1e6:.2f} M "
        f"| {bits.bits_per_byte:.3f} | {low:.3f} – {high:.3f} |\n"
    )
    sys.stdout.flush()
    return {**row, "bits": {key: value for key, value in asdict(bits).items() if key not in ("nats", "sizes")}}


if __name__ == "__main__":
    main()
