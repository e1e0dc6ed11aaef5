"""What quantisation and pruning cost a trained model: perplexity and greedy agreement on held-out text, as stored and narrowed.

In: a model directory and a text it has not seen. Out: `results/quantization.json` and a table. Every row is the same model changed in one
way and compared with itself in float32, position by position: bits per byte, perplexity of a token, KL divergence from what the model
said before, and how often the most probable token is the same one (agreement), also where the first is ahead of the second by more
than MARGIN nats: a small model is often undecided, and a tie falls either way at the least change. "native" is computed by the compiled
kernels, whose activations are in 8 bits too where the weights are; "plain" by PyTorch alone. It measures quality, not time.

    python benchmarks/quantization.py                     after `make tiny`: of its model, before it learned conversations
    python benchmarks/quantization.py --model DIR --text FILE
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _protocol
import torch
from torch import Tensor

from tsuzuri.chat.local import LocalModel
from tsuzuri.model import compiled, weights
from tsuzuri.model.adapt import awq, prune, quantize
from tsuzuri.model.past import Causal
from tsuzuri.recipe.stages.sft import newest_model
from tsuzuri.text.corpus import read as corpus

SAMPLES = 16  # windows of text that calibration reads; none of them is scored
MARGIN = 0.1  # nats
TARGETS = {"q8_0": {"agreement": 0.99, "perplexity": 0.005}, "q4_0": {"perplexity": 0.03}, "q4_0 calibrated": {"perplexity": 0.03}}
Change = Callable[[Any, list[Tensor]], object]


def quantised(form: str, *, calibrated: bool = False) -> Change:
    def change(model: Any, samples: list[Tensor]) -> None:
        if calibrated:
            awq.scale(model, form, samples)
        quantize.quantize(model, form)

    return change


def pruned(plan: prune.Plan, *, calibrated: bool = False) -> Change:
    return lambda model, samples: prune.prune(model, plan, prune.norms_of(model, samples) if calibrated else None)


QUANTISED = {
    "q8_0": quantised("q8_0"),
    "nf4": quantised("nf4"),
    "q4_0": quantised("q4_0"),
    "q4_0 calibrated": quantised("q4_0", calibrated=True),
}
PRUNED = {
    "30 %": pruned(prune.Plan(0.3)),
    "50 %": pruned(prune.Plan(0.5)),
    "50 % by row": pruned(prune.Plan(0.5, scope="row")),
    "50 % of all": pruned(prune.Plan(0.5, scope="model")),
    "50 % calibrated": pruned(prune.Plan(0.5), calibrated=True),
    "2:4": pruned(prune.Plan(pattern="2:4")),
    "2:4 calibrated": pruned(prune.Plan(pattern="2:4"), calibrated=True),
}


def main() -> None:
    parser = _protocol.arguments(__doc__.partition("\n")[0])
    parser.add_argument(
        "--model", type=Path, help="unless given the newest of runs/tiny/pretrain: the held-out text is of the kind it read"
    )
    parser.add_argument("--text", type=Path, default=Path("runs/tiny/corpus/text/validation.jsonl.zst"))
    parser.add_argument("--tokens", type=int, default=30_000, help="of held-out text that are scored")
    options = parser.parse_args()
    directory = options.model or newest_model(Path("runs/tiny/pretrain"))
    os.environ["TSUZURI_NATIVE"] = "off"
    plain = LocalModel(directory, dtype="float32")
    ids, count = windows(plain, options.text, options.tokens + SAMPLES * plain.context_length)
    samples, held = [torch.tensor(row) for row in ids[:SAMPLES]], [torch.tensor(row) for row in ids[SAMPLES:]]
    size = count * sum(map(len, held)) / sum(map(len, ids))  # bytes of what is scored
    measure = Measure(plain.model, held, size)
    rows: dict[str, Any] = {
        "as stored": {"plain": measure(plain.model), "native": of_native(plain.model, measure), "bytes": bytes_of(plain.model)}
    }
    rows["bfloat16"] = {"plain": measure(weights.load(directory, dtype=torch.bfloat16))}
    for name, change in QUANTISED.items():
        model = weights.load(directory, dtype=torch.float32)
        change(model, samples)
        rows[name] = {"plain": measure(model), "native": of_native(model, measure), "bytes": bytes_of(model)}
    for name, change in PRUNED.items():
        model = weights.load(directory, dtype=torch.float32)
        record = change(model, samples)
        assert isinstance(record, prune.Record)
        found = {"plain": measure(model), "native": of_native(model, measure), "bytes": bytes_of(model)}
        rows[name] = {**found, "share": record.sparsity, "share_of_all": record.of_all}
    met = {name: {what: reached(rows[name], what, bound) for what, bound in wanted.items()} for name, wanted in TARGETS.items()}
    for name, row in rows.items():
        for how in ("plain", "native"):
            if row.get(how):
                print(f"{name:16} {how:6} " + "  ".join(f"{key} {value:.4f}" for key, value in row[how].items()))
    print(met)
    record = {
        "rows": rows, "pruned": [*PRUNED], "targets": TARGETS, "met": met, "margin": MARGIN, "parameters": quantize.count(plain.model),
        "tokens": measure.count, "scored_bytes": size, "undecided": measure.undecided,
    }  # fmt: skip
    print(_protocol.write("quantization", record, options.out))


def reached(row: dict[str, Any], what: str, bound: float) -> bool:
    """Whether the target holds, however it is computed."""
    found = [row[how][what] for how in ("plain", "native") if row.get(how)]
    return all(value >= bound if what == "agreement" else value <= bound for value in found)


@dataclass(frozen=True, slots=True)
class Said:
    """What the model as it is says at each position of one window."""

    logs: Tensor  # (T, V) natural-log probabilities
    nats: Tensor  # (T,) of the token that comes
    decided: Tensor  # (T,) whether the most probable token is ahead of the next by more than MARGIN


class Measure:
    """Called with a model, it tells how that differs from `model`."""

    def __init__(self, model: Any, held: Sequence[Tensor], size: float) -> None:
        self.held, self.size = held, size
        self.whole = [self._said(model, row) for row in held]
        self.count = sum(len(said.nats) for said in self.whole)
        self.undecided = 1 - float(torch.cat([said.decided for said in self.whole]).float().mean())

    @torch.inference_mode()
    def __call__(self, model: Any) -> dict[str, float]:
        nats, more, same, apart = [], [], [], []
        for row, whole in zip(self.held, self.whole, strict=True):
            logs = read(model, row)
            nats.append(-logs.gather(-1, row[1:, None])[:, 0])
            more.append((nats[-1] - whole.nats).double())
            same.append(logs.argmax(-1) == whole.logs.argmax(-1))
            apart.append((whole.logs.exp() * (whole.logs - logs)).sum(-1).double())
        agreed, decided = torch.cat(same).float(), torch.cat([said.decided for said in self.whole])
        windows = torch.stack([each.mean() for each in more])
        return {
            "bits_per_byte": float(torch.cat(nats).double().sum()) / math.log(2) / self.size,
            "perplexity": math.exp(float(torch.cat(more).mean())) - 1,  # as a share more
            "perplexity_error": float(windows.std() / len(windows) ** 0.5),  # standard, over windows
            "kl": float(torch.cat(apart).mean()),  # nats a token
            "agreement": float(agreed.mean()),
            "agreement_decided": float(agreed[decided].mean()),
        }

    @torch.inference_mode()
    def _said(self, model: Any, row: Tensor) -> Said:
        logs = read(model, row)
        top = logs.topk(2, -1).values
        return Said(logs, -logs.gather(-1, row[1:, None])[:, 0], top[:, 0] - top[:, 1] > MARGIN)


def read(model: Any, row: Tensor) -> Tensor:
    """(T + 1,) ids -> (T, V) natural-log probabilities of what follows each but the last"""
    logits: Tensor = model(row[:-1], Causal(torch.arange(len(row) - 1)))
    return logits.float().log_softmax(-1)


def of_native(model: Any, measure: Measure) -> dict[str, float] | None:
    """None where the kernels lack a part or the form."""
    del os.environ["TSUZURI_NATIVE"]
    try:
        native = compiled.made(model, 2)
    finally:
        os.environ["TSUZURI_NATIVE"] = "off"
    return None if native is None else measure(native)


def windows(model: LocalModel, text: Path, tokens: int) -> tuple[list[list[int]], int]:
    """Ids in windows of the context, each with the boundary before it, and the bytes they stand for."""
    ids: list[int] = []
    size, step = 0, model.context_length - 1
    for document in corpus.read([text]):
        ids += model.tokenizer.encode(document.text)
        size += len(document.text.encode())
        if len(ids) >= tokens:
            break
    boundary = model.tokenizer.special["<|endoftext|>"]
    return [[boundary, *ids[at : at + step]] for at in range(0, len(ids), step)], size


def bytes_of(model: torch.nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))


if __name__ == "__main__":
    main()
