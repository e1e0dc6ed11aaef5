"""Wall time to a fixed bits-per-byte on held-out Japanese: our loop as recipes/tiny.yaml sets it, against plain AdamW.

In: `sample/pretrain` and the recipe. Out: `results/time_to_bits.json` with every curve, and a table.
The baseline is transformers' Llama of the same shape under torch's AdamW, cosine schedule, bfloat16 autocast where the
processor computes in it, its learning rate the best of a small grid over the whole run. Both see the same rows in the same order, with the same tokenizer, and are
scored on the same documents by `evals/windows.py`. What ours does before its first step is on its clock. The target is what the baseline reaches at the end of its run; ours
runs with schedules for a share of its steps. Only steps are on the clock: no scoring, no saving, no tuning.

    python benchmarks/time_to_bits.py                          one seed, at most 20 minutes on two cores
    python benchmarks/time_to_bits.py --seeds 3                the learning rate is chosen on the first
    python benchmarks/time_to_bits.py --steps 8 --size 1 …     a trial
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import _protocol
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tsuzuri import device
from tsuzuri.config import read_yaml
from tsuzuri.evals.windows import bits_per_byte
from tsuzuri.model.families import llama
from tsuzuri.model.past import Causal
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.recipe import recipe as recipes
from tsuzuri.recipe.recipe import HEAD, Recipe
from tsuzuri.recipe.stages.pretrain import Head, from_pairs
from tsuzuri.text import fast, shards
from tsuzuri.text.corpus.build import build
from tsuzuri.text.corpus.read import read
from tsuzuri.train import bigram, loop
from tsuzuri.train.data import IGNORED, order
from tsuzuri.train.objectives import pretrain
from tsuzuri.train.optim import OptimSettings
from tsuzuri.train.watch import Journal

RECIPE = _protocol.ROOT / "recipes" / "tiny.yaml"
STAGES = ("corpus", "tokenizer", "pretrain")
BOUNDARY = "<|endoftext|>"
LOGITS = 1e-4  # the largest difference in float32 that still counts as the same


@dataclass(slots=True)
class Curve:
    """One run: after which steps it was scored, how long those steps had taken, and the score."""

    who: str
    seed: int
    steps: int  # of the whole schedule
    learning_rate: float
    at: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    bits: list[float] = field(default_factory=list)  # per byte

    def add(self, step: int, seconds: float, bits: float) -> None:
        self.at.append(step), self.seconds.append(seconds), self.bits.append(bits)

    def reached(self, target: float) -> tuple[int, float] | None:
        """The step and the seconds at which it was first scored at `target` or better; None if never."""
        return next(((s, t) for s, t, b in zip(self.at, self.seconds, self.bits, strict=True) if b <= target), None)

    def told(self) -> str:
        return f"{self.who} seed {self.seed}, {self.steps} steps: {self.bits[-1]:.4f} bits per byte in {self.seconds[-1]:.0f} s"


@dataclass(frozen=True, slots=True)
class Work:
    """What both sides share."""

    settings: Any  # of the recipe's stage pretrain
    shape: Shape
    objective: pretrain.Objective
    documents: Head  # of the objective
    held: Head
    boundary: int
    every: int  # steps between scores

    def score(self, model: Transformer) -> float:
        return bits_per_byte(model, self.held, self.boundary).bits_per_byte


def main() -> None:
    parser = _protocol.arguments(__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=240, help="of the baseline")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--horizons", default="0.25,0.35,0.5", help="our schedules, as shares of the baseline's steps")
    parser.add_argument("--rates", default="1e-3,2e-3,4e-3", help="the baseline's learning rates")
    parser.add_argument("--every", type=int, default=20, help="steps between scores")
    parser.add_argument("--held-bytes", type=int, default=100_000, help="of the documents scored")
    parser.add_argument("--size", type=int, default=None, help="the recipe's dial; another one makes a trial")
    options = parser.parse_args()
    horizons, rates = (sorted(float(x) for x in text.split(",")) for text in (options.horizons, options.rates))
    threads = device.threads()
    recipe = read_recipe(options.size)
    curves: list[Curve] = []
    with tempfile.TemporaryDirectory() as name:
        work = prepare(recipe, Path(name), options.every, options.held_bytes)
        difference = agree(work)
        for seed in range(1, options.seeds + 1):
            sides = [
                lambda seed=seed, rates=rates: tuned(work, seed, options.steps, rates),
                lambda seed=seed: [ours(work, seed, max(1, round(h * options.steps)), Path(name)) for h in horizons],
            ]
            for side in sides if seed % 2 else reversed(sides):  # who runs first alternates with the seed
                curves += side()
            rates = [best(curves, 1).learning_rate]
    seeds = [compare(curves, seed) for seed in range(1, options.seeds + 1)]
    record = {
        "options": {k: v for k, v in vars(options).items() if k != "out"},
        "threads": threads,
        "equality": difference,
        "pretrain": recipe.values["pretrain"],
    }
    record |= {"seeds": seeds, "summary": summary(seeds), "curves": [asdict(curve) for curve in curves]}
    print(_protocol.write("time_to_bits", record, options.out))


# ── the two sides


def ours(work: Work, seed: int, steps: int, directory: Path) -> Curve:
    """The product's own loop; its journal has the seconds of every step and the scores."""
    settings = replace(work.settings, seed=seed, steps=steps, evaluate_every=work.every, checkpoint_every=0)
    model = Transformer(work.shape).initialise(seed)
    place = directory / f"ours-{seed}-{steps}"

    def start(model: Transformer) -> None:
        if from_pairs(settings, work.shape):
            bigram.fit(model, bigram.count(work.documents, work.boundary, work.shape.vocab_size))

    scores = {"evaluate": lambda model, _: {"bits": work.score(model)}}
    outcome = loop.train(model, work.objective, settings, place, recipe={}, start=start, **scores)
    curve = Curve("ours", seed, steps, settings.learning_rate)
    lines = Journal(place / "metrics.jsonl", resumed_at=steps).read()
    total = outcome.seconds - sum(float(line["seconds"]) for line in lines)  # type: ignore[arg-type]  # of the start
    for line in lines:
        total += float(line["seconds"])  # type: ignore[arg-type]
        if "bits" in line:
            curve.add(int(line["step"]), total, float(line["bits"]))  # type: ignore[call-overload]
    curve.add(steps, total, work.score(model))
    print(curve.told(), flush=True)
    return curve


def tuned(work: Work, seed: int, steps: int, rates: list[float]) -> list[Curve]:
    """The baseline at each learning rate, and at twice or half of one that is best at the edge, until none is."""
    curves = [baseline(work, seed, steps, rate) for rate in rates]
    while len(rates) > 1 and (edge := best(curves, seed).learning_rate) in (rates[0], rates[-1]):
        further = 2 * edge if edge == rates[-1] else edge / 2
        curves.append(baseline(work, seed, steps, further))
        rates = sorted([*rates, further])
    return curves


def baseline(work: Work, seed: int, steps: int, rate: float) -> Curve:
    """The loop most people would write: autocast, AdamW, cosine to a tenth, clipped gradients. Documents in a row are kept
    apart by their positions, from which transformers makes the mask."""
    model = peer(work.shape, seed)
    groups = [
        {"params": [w for w in model.parameters() if w.dim() > 1], "weight_decay": 0.1},
        {"params": [w for w in model.parameters() if w.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)
    schedule = OptimSettings(schedule="cosine", warmup=0.05, final=0.1)
    rows, count = work.objective.rows, work.settings.batch
    narrow = device.dtype("auto") == torch.bfloat16
    curve = Curve(f"baseline {rate:g}", seed, steps, rate)
    total = 0.0
    for step in range(steps):
        begun = time.perf_counter()
        batch = work.objective.batch(order(rows, seed, step * count, count))
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            labels = {"labels": batch.targets, "shift_labels": batch.targets}
            loss = model(input_ids=batch.tokens, position_ids=batch.positions, use_cache=False, **labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule.factor(step, steps)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total += time.perf_counter() - begun
        if (step + 1) % work.every == 0 or step + 1 == steps:
            curve.add(step + 1, total, work.score(translated(model, work.shape)))
    print(curve.told(), flush=True)
    return curve


def peer(shape: Shape, seed: int) -> LlamaForCausalLM:
    """transformers' Llama of our shape, filled its own way."""
    torch.manual_seed(seed)
    config = {k: v for k, v in llama.config(shape).items() if k not in ("architectures", "model_type")}
    return LlamaForCausalLM._from_config(LlamaConfig(**config), attn_implementation="sdpa").train()


def translated(model: LlamaForCausalLM, shape: Shape) -> Transformer:
    """The same weights in our names, in their own float32: scored by the same code, at no loss to the baseline."""
    state = model.state_dict()
    found = Transformer(shape, device="meta")
    found.load_state_dict({ours: state[theirs] for ours, theirs in llama.names(shape).items()}, assign=True)
    return found


# ── before and after


def read_recipe(size: int | None) -> Recipe:
    """The recipe's stages up to pre-training."""
    values = read_yaml(RECIPE) | ({} if size is None else {"size": size})
    return recipes.resolve({k: v for k, v in values.items() if k in (*HEAD, *STAGES)} | {"stages": list(STAGES)})


def prepare(recipe: Recipe, directory: Path, every: int, held_bytes: int) -> Work:
    """Sample text -> corpus, tokenizer and shards, as the recipe's first stages make them."""
    settings, size = recipe.sections["pretrain"], recipe.sections["tokenizer"].vocab_size
    inputs = [str(_protocol.ROOT / name) for name in recipe.sections["corpus"].inputs]
    build(replace(recipe.sections["corpus"], inputs=inputs), directory / "text", print)
    files = {part: directory / "text" / f"{part}.jsonl.zst" for part in ("train", "validation")}
    tokenizer = fast.train(recipe.sections["tokenizer"].kind, (document.text for document in read([files["train"]])), size)
    for part, file in files.items():
        shards.write(directory / part, read([file]), tokenizer)
    train, held = (shards.Shards(directory / part) for part in ("train", "validation"))
    boundary = tokenizer.special[BOUNDARY]
    documents = Head(train, settings.train_tokens)
    objective = pretrain.Objective(pretrain.Settings(settings.length), documents, boundary)
    shape = settings.model.shape(tokenizer.vocab_size, settings.length)
    scored = Head(held, None, held_bytes)
    print(
        f"{objective.rows:,} rows of {settings.length} to train on, {len(scored)} documents of {int(scored.byte_lengths.sum()):,} bytes to score"
    )
    return Work(settings, shape, objective, documents, scored, boundary, every)


@torch.inference_mode()
def agree(work: Work) -> dict[str, float]:
    """The same weights on the same packed rows: the largest difference of a logit that is trained. Ends the run if it is one."""
    model, batch = peer(work.shape, 0), work.objective.batch(list(range(work.objective.rows))[-4:])
    assert batch.documents is not None, "the last rows are the packed ones"
    kept = batch.targets != IGNORED
    theirs = model(input_ids=batch.tokens, position_ids=batch.positions, use_cache=False).logits[kept]
    mine = translated(model, work.shape)(batch.tokens, Causal(batch.positions, batch.documents))[kept]
    found = {"logits": float((mine - theirs).abs().max()), "largest_logit": float(theirs.abs().max())}
    print("max |Δlogit| {logits:.1e} of {largest_logit:.2f}".format(**found))
    if found["logits"] > LOGITS:
        raise SystemExit("not the same computation: no timing")
    return found


def best(curves: list[Curve], seed: int) -> Curve:
    """The baseline run that ends best."""
    return min((c for c in curves if c.seed == seed and c.who.startswith("baseline")), key=lambda curve: curve.bits[-1])


def compare(curves: list[Curve], seed: int) -> dict[str, Any]:
    """The target, and for each of our schedules when it was reached; `ratio` is that of the quickest."""
    peer = best(curves, seed)
    target, seconds = peer.bits[-1], peer.seconds[-1]
    mine = [c for c in curves if c.seed == seed and c.who == "ours"]
    found: dict[str, Any] = {"seed": seed, "target": target, "learning_rate": peer.learning_rate, "baseline_seconds": seconds}
    found["baseline_steps"], found["ours"] = peer.steps, []
    for curve in mine:
        moment = curve.reached(target)
        row = {"schedule": curve.steps, "bits": curve.bits[-1], "reached_step": moment and moment[0], "seconds": moment and moment[1]}
        found["ours"].append(row | {"ratio": moment and seconds / moment[1]})
    ratios = [row["ratio"] for row in found["ours"] if row["ratio"]]
    found["ratio"] = max(ratios) if ratios else None  # None: ours never reached it
    steps = [c.seconds[-1] / c.steps for c in (peer, mine[-1])]
    found["step_ratio"] = steps[0] / steps[1]  # how much of it is plain speed
    return found


def summary(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    for row in seeds:
        told = f"× {row['ratio']:.2f} (of which speed × {row['step_ratio']:.2f})" if row["ratio"] else "not reached"
        print(f"seed {row['seed']}: target {row['target']:.4f} in {row['baseline_seconds']:.0f} s at {row['learning_rate']:g}; ours {told}")
    ratios = [row["ratio"] for row in seeds]
    if None in ratios:
        return {"ratio": None}
    return {"ratio": _protocol.ratio(ratios, [1.0] * len(ratios))}


if __name__ == "__main__":
    main()
