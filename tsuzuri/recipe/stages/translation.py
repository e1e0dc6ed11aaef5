"""学習していない文を訳させ、写しや引き写しに勝っているかを測ります。 / Translate held-out sentences and measure against copying."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tsuzuri.chat.local import LocalModel
from tsuzuri.evals import overlap
from tsuzuri.recipe.run import Context
from tsuzuri.recipe.stages import seq2seq
from tsuzuri.recipe.stages.sft import newest_model
from tsuzuri.train import loop

NEEDS = ("seq2seq",)
METRICS = {"chrF": (overlap.chrf, overlap.chrf_counts), "BLEU": (overlap.bleu, overlap.bleu_counts)}


@dataclass(frozen=True, slots=True)
class Settings:
    sentences: int | None = None  # of the held-out ones, the first; None: all
    shown: int = 5  # translations in the report
    seed: int = 4

    def __post_init__(self) -> None:
        loop.positive(self, "sentences", "shown")


def inputs(settings: Settings) -> list[Path]:
    return []


def run(settings: Settings, context: Context) -> dict[str, Any]:
    """Greedy translations of all held-out sentences that were not too long to train on, and what costs nothing beside them."""
    trained = context.recipe.sections["seq2seq"]
    model = LocalModel(newest_model(context.before("seq2seq")))
    held = seq2seq.held_pairs(trained)[: settings.sentences]
    sources, references = [source for source, _ in held], [target for _, target in held]
    nearest = overlap.Nearest(seq2seq.train_pairs(trained))
    systems = {
        "model": [model.generate(source, temperature=0.0, max_tokens=trained.length) for source in sources],
        "nearest": [nearest(source) for source in sources],
        "copy": sources,
    }
    found: dict[str, Any] = {"sentences": len(held)}
    for name, (metric, counts) in METRICS.items():
        counted = {system: counts(texts, references) for system, texts in systems.items()}
        found[name] = {system: asdict(overlap.score(metric, each, seed=settings.seed)) for system, each in counted.items()}
        rivals = [system for system in systems if system != "model"]
        best = max(rivals, key=lambda system: found[name][system]["score"])
        apart = overlap.difference(metric, counted["model"], counted[best], seed=settings.seed)
        found[name]["difference"] = {"to": best, **asdict(apart)}
    rows = zip(sources, systems["model"], references, strict=True)
    found["translations"] = [{"source": s, "text": t, "reference": r} for s, t, r in list(rows)[: settings.shown]]
    return found
