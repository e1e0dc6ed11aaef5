"""What the stages that teach an encoder a task have in common: the body, the training, and scores beside those of rivals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tsuzuri import device
from tsuzuri.chat import conversations
from tsuzuri.chat.labels import Encoder
from tsuzuri.errors import Words
from tsuzuri.evals.encoders import Score
from tsuzuri.model import weights
from tsuzuri.recipe.measure import matrix_rate
from tsuzuri.recipe.run import Context
from tsuzuri.recipe.stages.sft import CHARACTERS_PER_TOKEN, newest_model
from tsuzuri.text import fast
from tsuzuri.train import loop

NEEDS = ("tokenizer", "masked")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(loop.LoopSettings):
    inputs: list[str]  # files of examples to learn from (`text/examples.py`)
    test: list[str]  # files of examples that are only measured on
    length: int = 128  # tokens a row
    seed: int = 2

    def __post_init__(self) -> None:
        loop.LoopSettings.__post_init__(self)
        loop.positive(self, "length")


def check(settings: Settings, before: Mapping[str, Any]) -> None:
    """A row is no longer than what the model reads."""
    masked = before["masked"]
    most = masked.model.max_position_embeddings or masked.length
    if settings.length > most:
        raise loop.wrong(
            Words(
                f"length が {settings.length} です。モデルが読めるのは {most} までです。",
                f"length is {settings.length}; the model reads {most}.",
            )
        )


def inputs(settings: Settings) -> list[Path]:
    return conversations.files([*settings.inputs, *settings.test])


def read(names: Sequence[str]) -> list[Path]:
    return conversations.files(names)


def tokens(texts: Sequence[str]) -> float:
    """About how many a text has with its frame, on average, for the plan: there is no tokenizer yet."""
    return sum(map(len, texts)) / max(1, len(texts)) / CHARACTERS_PER_TOKEN + 2


@dataclass(frozen=True, slots=True)
class Start:
    """What a task begins with."""

    tokenizer: fast.FastTokenizer
    body: weights.Body


def start(context: Context, head: str, labels: tuple[str, ...], seed: int, **choices: Any) -> Start:
    """The pre-trained body under the head of the task; which weights are new, and which were left aside, is said.
    `choices`: what else of the shape is the task's own."""
    tokenizer = fast.load(context.before("tokenizer") / "files")
    body = weights.load_body(newest_model(context.before("masked")), head=head, labels=labels, seed=seed, **choices)
    body.model.to(device.choose(context.recipe.head.device))
    context.watch.notice(
        Words(
            f"新しい重み：{'、'.join(body.new) or 'なし'}。使わない重み：{'、'.join(body.left) or 'なし'}。",
            f"New weights: {', '.join(body.new) or 'none'}. Left aside: {', '.join(body.left) or 'none'}.",
        )
    )
    return Start(tokenizer, body)


def train(
    started: Start, objective: Any, settings: Settings, context: Context, score: Callable[[Encoder], Score], rivals: Mapping[str, Score]
) -> dict[str, Any]:
    """Trains, then measures on the test part. `rivals`: what does without a network, on the same items."""
    model, tokenizer = started.body.model, started.tokenizer
    outcome = loop.train(
        model,
        objective,
        settings,
        context.directory,
        recipe=context.recipe.values,
        family=context.recipe.sections["masked"].model.family,
        write_extras=tokenizer.save,
        matrix_rate=matrix_rate(next(model.parameters()).device, settings.precision),
        watch=context.watch,
    )
    model.to(torch.float32)
    found = score(Encoder(model.requires_grad_(False), tokenizer, context.recipe.head.name))
    said = {name: f"{each.value:.3f} ({each.interval[0]:.3f}–{each.interval[1]:.3f})" for name, each in {"": found, **rivals}.items()}
    context.watch.notice(
        Words(
            f"このモデル {said.pop('')}；{'、'.join(f'{name} {value}' for name, value in said.items())}（{found.items} 件、95 % 区間）",
            f"This model {' '.join(v for k, v in [('', f'{found.value:.3f}')])}; {', '.join(f'{name} {value}' for name, value in said.items())}"
            f" ({found.items} items, 95 %)",
        )
    )
    own = {"new_weights": list(started.body.new), "left_weights": list(started.body.left)}
    scores = {"score": asdict(found), "rivals": {name: asdict(each) for name, each in rivals.items()}}
    return {**asdict(outcome), "train_seconds": outcome.seconds, "rows": objective.rows, "seed": settings.seed, **own, **scores}
