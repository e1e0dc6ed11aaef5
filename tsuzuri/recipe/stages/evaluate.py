"""検証用の文章で、5-gram と xz に勝っているかを測り、文章も書かせてみます。 / Bits per byte against a 5-gram model and xz, and samples."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from tsuzuri.chat.local import LocalModel
from tsuzuri.evals import baselines
from tsuzuri.evals.bits import Bits, difference
from tsuzuri.recipe.run import Context
from tsuzuri.recipe.stages.sft import newest_model
from tsuzuri.text import fast
from tsuzuri.text.corpus.read import read
from tsuzuri.train import loop

NEEDS = ("corpus", "tokenizer", "pretrain")
PROMPTS = ("今日の天気は", "吾輩は", "この法律は、", "情報通信")
QUESTIONS = ("こんにちは。", "あなたは誰ですか。", "何ができますか。")


@dataclass(frozen=True, slots=True)
class Settings:
    order: int = 5  # of the n-gram model
    xz_prior: bool = True  # also xz that has read the training text: slower, and harder to beat
    sample_tokens: int = 48
    seed: int = 3

    def __post_init__(self) -> None:
        loop.positive(self, "order", "sample_tokens")


def inputs(settings: Settings) -> list[Path]:
    return []


def run(settings: Settings, context: Context) -> dict[str, Any]:
    """The network's own figure is that of pre-training: conversations come after it and are no prose."""
    text = context.before("corpus") / "text"
    tokenizer = fast.load(context.before("tokenizer") / "files")
    network = context.results["pretrain"]
    count = network["read_documents"]
    train = [document.text for document in islice(read([text / "train.jsonl.zst"]), count)]
    assert sum(len(one.encode()) for one in train) == network["read_bytes"], "the rivals read what the network has read"
    held = [document.text for document in read([text / "validation.jsonl.zst"])]
    grams = baselines.n_grams(train, held, tokenizer, order=settings.order, seed=settings.seed)
    rows = {found.name: asdict(found.bits) | {"fit_seconds": found.seconds} for found in grams.values()}
    rows["xz"] = asdict(baselines.xz(baselines.joined(held)).bits)
    if settings.xz_prior:
        rows["xz, having read the training text"] = asdict(baselines.xz(baselines.joined(held), baselines.joined(train)).bits)
    best = min(row["bits_per_byte"] for row in rows.values())
    own = Bits(**{**network["bits"], **{key: tuple(network["bits"][key]) for key in ("nats", "sizes")}})
    closest = baselines.strongest(grams)
    return {
        "network": network["bits"],
        "baselines": rows,
        "best_baseline": best,
        "difference": {"to": closest.name, **asdict(difference(own, closest.bits, seed=settings.seed))},
        "beats_all": own.bits_per_byte < best,
        "samples": _samples(newest_model(context.before("pretrain")), settings, PROMPTS, chat=False),
        "answers": _answers(context, settings),
    }


def _answers(context: Context, settings: Settings) -> list[dict[str, str]]:
    if "sft" not in context.results:
        return []
    return _samples(newest_model(context.before("sft")), settings, QUESTIONS, chat=True)


def _samples(directory: Path, settings: Settings, prompts: tuple[str, ...], *, chat: bool) -> list[dict[str, str]]:
    """What the model goes on to say; greedy, so that a person can get the same again."""
    torch.manual_seed(settings.seed)
    model = LocalModel(directory)
    speak = model.chat if chat else model.generate
    return [{"prompt": prompt, "text": speak(prompt, temperature=0.0, max_tokens=settings.sample_tokens)} for prompt in prompts]
