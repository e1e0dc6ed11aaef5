"""Training speed on this machine: our step against transformers' Llama under torch's AdamW, on the same weights and batch.

In: shapes (20 M and 110 M parameters, 8 × 512 tokens a step). Out: `results/training.json` and a table: tokens a second,
ratios round by round, and the share of the measured matrix rate (MFU). Before a shape is timed, both must give the same
logits, and the same loss after two steps in float32; otherwise nothing is written. How well the steps learn is
`time_to_bits.py`'s matter.

    python benchmarks/training.py                                  both sizes, about 12 minutes on two cores
    python benchmarks/training.py --sizes tiny --rounds 1          a trial
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _protocol
import torch
from _protocol import said, timed
from torch import Tensor
from transformers import LlamaForCausalLM
from transformers.utils import logging

from tsuzuri import device
from tsuzuri.model import weights
from tsuzuri.model.past import Causal
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.recipe.measure import matrix_rate
from tsuzuri.train.data import Batch
from tsuzuri.train.loss import next_token
from tsuzuri.train.optim import Optimizer, OptimSettings


def llama(vocab_size: int, hidden_size: int, layers: int, intermediate_size: int) -> Shape:
    return Shape(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 64,
        intermediate_size=intermediate_size,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )


SIZES = {"tiny": llama(512, 128, 2, 384), "20m": llama(16384, 384, 8, 1024), "110m": llama(32768, 768, 12, 2048)}
ROWS, LENGTH = 8, 512
NARROW = device.dtype("auto") == torch.bfloat16  # where it is emulated there is nothing to time
RATE = 1e-3  # of learning; what it is does not change the work
EPSILON = 1e-8  # torch's own; with a smaller one the rounding of the smallest gradients becomes whole steps, on both sides
LOGITS, LOSS = 1e-4, 2e-5  # the largest differences in float32 that still count as the same: sums in another order


@dataclass(frozen=True, slots=True)
class Step:
    """One training step that can be repeated. `once` returns the loss in nats a token, of before the update."""

    once: Callable[[], float]


def main() -> None:
    parser = _protocol.arguments(__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="20m,110m", help=f"of {', '.join(SIZES)}")
    parser.add_argument("--fp32", default="20m", help="sizes that are also timed in float32, where a step takes four times as long")
    parser.add_argument("--compiled", action="store_true", help="also the peer under torch.compile, which needs a C++ compiler")
    options = parser.parse_args()
    threads = device.threads()
    logging.disable_progress_bar()
    record = {"rounds": options.rounds, "trial": options.rounds < _protocol.ROUNDS, "threads": threads, "batch": [ROWS, LENGTH]}
    for name in options.sizes.split(","):
        found = measure(SIZES[name], options.rounds, name in options.fp32.split(","), options.compiled)
        print(_protocol.write(f"training-{name}", {**record, "size": name, **found}, options.out))


def measure(shape: Shape, count: int, wide: bool, compiled: bool) -> dict[str, Any]:
    """Equality, then the pairs, then what stands beside them without a ratio."""
    batch = random_batch(shape.vocab_size)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        filled = random_weights(shape)
        weights.save(filled, directory)
        parameters = sum(weight.numel() for weight in filled.parameters())
        print(f"\n{parameters / 1e6:.1f} M parameters, {ROWS} × {LENGTH} tokens a step")
        equality = equal(directory, batch)
        rates = {"bfloat16": matrix_rate(torch.device("cpu"), "bfloat16"), "float32": matrix_rate(torch.device("cpu"), "float32")}
        print(f"  matrix rate: {rates['bfloat16'] / 1e9:.0f} GFLOP/s in bfloat16, {rates['float32'] / 1e9:.0f} in float32")
        pairs = {}
        if NARROW:
            peer = theirs(directory, batch, "autocast")
            pairs = {f"{name}, bfloat16": (ours(directory, batch, name, "bfloat16"), peer, "bfloat16") for name in ("adamw", "muon")}
        if wide or not NARROW:
            pairs["adamw, float32"] = (ours(directory, batch, "adamw", "float32"), theirs(directory, batch, "float32"), "float32")
        timings = {name: pair(name, *three, count, parameters, rates) for name, three in pairs.items()}
        beside = context(directory, batch, compiled, min(count, 3)) if NARROW else {}
    return {"parameters": parameters, "equality": equality, "matrix_rate": rates, "pairs": timings, "context": beside}


def pair(name: str, our: Step, peer: Step, precision: str, count: int, parameters: int, rates: dict[str, float]) -> dict[str, Any]:
    """Seconds of both, alternating; the ratio is how many times as fast ours is."""
    our.once(), peer.once()  # the first step of a model allocates its moments
    samples = _protocol.rounds(timed(our.once), timed(peer.once), count)
    ratio = _protocol.ratio(samples[1], samples[0])
    speeds = [ROWS * LENGTH / statistics.median(seconds) for seconds in samples]
    mfu = [6 * parameters * speed / rates[precision] for speed in speeds]
    print(f"  {name}: ours {speeds[0]:,.0f} tok/s (MFU {mfu[0]:.0%}), transformers {speeds[1]:,.0f} ({mfu[1]:.0%}); × {said(ratio)}")
    both = {
        who: {"seconds": s, "tokens_per_second": v, "mfu": m} for who, s, v, m in zip(("ours", "peer"), samples, speeds, mfu, strict=True)
    }
    return {**both, "ratio": ratio}


def context(directory: Path, batch: Batch, compiled: bool, count: int) -> dict[str, Any]:
    """Other settings of the peer, not alternated. Weights in bfloat16 without masters are less work: small updates are lost."""
    settings = ["bfloat16"] + ["autocast, compiled"] * compiled
    found: dict[str, Any] = {}
    for precision in settings:
        step = theirs(directory, batch, precision)
        step.once()
        seconds = [timed(step.once)() for _ in range(count)]
        found[precision] = {"seconds": seconds, "tokens_per_second": ROWS * LENGTH / statistics.median(seconds)}
        print(f"  beside: transformers, {precision}: {found[precision]['tokens_per_second']:,.0f} tok/s")
    return found


# ── the two steps


def settings(optimizer: str) -> OptimSettings:
    return OptimSettings(optimizer=optimizer, learning_rate=RATE, epsilon=EPSILON)  # type: ignore[arg-type]


def ours(directory: Path, batch: Batch, optimizer: str, precision: str) -> Step:
    """As `train/loop.py` takes it: weights in `precision`, masters in float32, gradients clipped."""
    model = weights.load(directory, dtype=device.dtype(precision)).requires_grad_(True)
    taken = Optimizer(model, settings(optimizer))

    def once() -> float:
        loss = next_token(model, batch) / batch.trained
        loss.backward()
        taken.step(1.0)
        return float(loss.detach())

    return Step(once)


def theirs(directory: Path, batch: Batch, precision: str) -> Step:
    """transformers' Llama with fused attention, torch's fused AdamW with our hyperparameters, gradients clipped.

    `precision`: float32; autocast (weights in float32, products in bfloat16); bfloat16 (weights and moments too);
    and any of them with ", compiled".
    """
    kind, _, compiled = precision.partition(", ")
    model = peer(directory, torch.bfloat16 if kind == "bfloat16" else torch.float32)
    optimizer = adamw(model)
    forward = torch.compile(model) if compiled else model

    def once() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
            loss: Tensor = forward(input_ids=batch.tokens, labels=batch.targets, shift_labels=batch.targets, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings("adamw").clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return Step(once)


def peer(directory: Path, dtype: torch.dtype) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(directory, dtype=dtype, attn_implementation="sdpa").train()


def adamw(model: torch.nn.Module) -> torch.optim.AdamW:
    """Ours in torch's words: no decay on vectors."""
    ours = settings("adamw")
    groups = [
        {"params": [w for w in model.parameters() if w.dim() > 1], "weight_decay": ours.weight_decay},
        {"params": [w for w in model.parameters() if w.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=RATE, betas=(ours.betas[0], ours.betas[1]), eps=ours.epsilon, fused=True)


# ── the same work


def equal(directory: Path, batch: Batch) -> dict[str, float]:
    """The differences between ours and theirs; ends the run where they are not the same computation."""
    with torch.inference_mode():
        logits = weights.load(directory)(batch.tokens, Causal(batch.positions))
        peers = peer(directory, torch.float32)(input_ids=batch.tokens, use_cache=False).logits
    found = {"logits": float((logits - peers).abs().max()), "largest_logit": float(peers.abs().max())}
    del logits, peers
    steps = ours(directory, batch, "adamw", "float32"), theirs(directory, batch, "float32")
    losses = [[step.once() for _ in range(3)] for step in steps]
    found |= {f"loss_after_{n}": abs(a - b) for n, (a, b) in enumerate(zip(*losses, strict=True))}
    if NARROW:
        narrow = ours(directory, batch, "adamw", "bfloat16").once(), theirs(directory, batch, "autocast").once()
        found["loss_in_bfloat16"] = abs(narrow[0] - narrow[1])
    print(
        f"  max |Δlogit| {found['logits']:.1e} of {found['largest_logit']:.1f}; |Δloss| "
        + "; ".join(
            f"{where} {found[name]:.1e}"
            for where, name in (
                ("at first", "loss_after_0"),
                ("after 1 step", "loss_after_1"),
                ("after 2", "loss_after_2"),
                ("in bfloat16", "loss_in_bfloat16"),
            )
            if name in found
        )
        + f" of {losses[0][0]:.3f}"
    )
    if found["logits"] > LOGITS or max(found[f"loss_after_{n}"] for n in range(3)) > LOSS:
        raise SystemExit("not the same computation: no timing")
    return found


def random_weights(shape: Shape) -> Transformer:
    """No matrix zero and no norm one: an exchanged weight would show."""
    model = Transformer(shape).initialise(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            drawn = torch.randn(weight.shape, generator=generator)
            weight.copy_(0.04 * drawn if weight.dim() > 1 else 1 + 0.1 * drawn)
    return model


def random_batch(vocab_size: int) -> Batch:
    ids = torch.randint(vocab_size, (ROWS, LENGTH + 1), generator=torch.Generator().manual_seed(2))
    return Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), torch.arange(LENGTH).expand(ROWS, -1), None)


if __name__ == "__main__":
    main()
