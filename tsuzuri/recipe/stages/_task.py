"""What the stages that teach an encoder a task have in common: the body, the training, and scores beside those of rivals.

The body is what the stage `masked` made, or a finished encoder, `start`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tsuzuri import device
from tsuzuri.chat import conversations
from tsuzuri.chat.labels import Encoder
from tsuzuri.errors import MissingError, Words
from tsuzuri.evals.encoders import Score
from tsuzuri.model import weights
from tsuzuri.model.transformer import Shape
from tsuzuri.recipe.measure import matrix_rate
from tsuzuri.recipe.run import Context
from tsuzuri.recipe.stages import masked
from tsuzuri.recipe.stages.sft import CHARACTERS_PER_TOKEN, newest_model
from tsuzuri.text import fast
from tsuzuri.train import loop

NEEDS = ()
BEGINNING = ("tokenizer", "masked")  # the stages that make a body
FILES = ("config.json", weights.WEIGHTS, fast.FILE)  # of an encoder to start from


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(loop.LoopSettings):
    inputs: list[str]  # files of examples to learn from (`text/examples.py`)
    test: list[str]  # files of examples that are only measured on
    start: str | None = None  # directory of an encoder that guesses hidden tokens; None: the one that the stage masked made
    length: int = 128  # tokens a row
    seed: int = 2

    def __post_init__(self) -> None:
        loop.LoopSettings.__post_init__(self)
        loop.positive(self, "length")


def check(settings: Settings, before: Mapping[str, Any]) -> None:
    """There is one body, and a row is no longer than what it reads."""
    there = [name for name in BEGINNING if name in before]
    if settings.start is None and len(there) < len(BEGINNING):
        raise loop.wrong(
            Words(
                "この課題の前に、段階 tokenizer と masked が要ります。または start に、学習済みのエンコーダを指定してください。",
                "The task needs the stages tokenizer and masked before it, or an encoder that was trained before in start.",
            )
        )
    if settings.start is not None and there:
        raise loop.wrong(
            Words(
                f"start が指定されていますが、段階 {there[0]} もあります。どちらかを消してください。",
                f"start is given, and there is the stage {there[0]} as well: leave one of them out.",
            )
        )
    most = shape(settings, before).max_position_embeddings
    if settings.length > most:
        raise loop.wrong(
            Words(
                f"length が {settings.length} です。モデルが読めるのは {most} までです。",
                f"length is {settings.length}; the model reads {most}.",
            )
        )


def shape(settings: Settings, before: Mapping[str, Any]) -> Shape:
    """Of the body, as it guesses hidden tokens."""
    if settings.start is None:
        return masked.shape_of(before["masked"], before["tokenizer"].vocab_size, fast.ENCODER.index("[PAD]"))
    found = weights.shape_of(Path(settings.start))
    if not isinstance(found, Shape) or found.causal or found.head != "masked":
        raise loop.wrong(
            Words(
                f"start の {settings.start} は、隠した語を当てるエンコーダではありません。",
                f"start, {settings.start}, is no encoder that guesses hidden tokens.",
            )
        )
    return found


def family(settings: Settings, before: Mapping[str, Any]) -> str:
    """The name of the body's family."""
    if settings.start is None:
        return str(before["masked"].model.family)
    return str(weights.family_of(Path(settings.start)).MODEL_TYPE)


def inputs(settings: Settings) -> list[Path]:
    """The examples, and the encoder to start from."""
    begin = [] if settings.start is None else [Path(settings.start) / name for name in FILES]
    absent = [path for path in begin if not path.is_file()]
    if absent:
        raise MissingError(
            Words(f"エンコーダ {settings.start} から始めようとしました。", f"Starting from the encoder {settings.start}."),
            found=Words(f"{absent[0].name} がありません。", f"It has no {absent[0].name}."),
            todo=Words("tsuzuri run が書き出した model のフォルダを指定してください。", "Name the folder model that tsuzuri run wrote."),
        )
    return [*conversations.files([*settings.inputs, *settings.test]), *begin]


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


def start(settings: Settings, context: Context, head: str, labels: tuple[str, ...], **choices: Any) -> Start:
    """The body under the head of the task; which weights are new, and which were left aside, is said.
    `choices`: what else of the shape is the task's own."""
    begin = None if settings.start is None else Path(settings.start)
    tokenizer = fast.load(begin or context.before("tokenizer") / "files")
    body = weights.load_body(begin or newest_model(context.before("masked")), head=head, labels=labels, seed=settings.seed, **choices)
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
        family=family(settings, context.recipe.sections),
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
    own = {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "new_weights": list(started.body.new),
        "left_weights": list(started.body.left),
    }
    scores = {"score": asdict(found), "rivals": {name: asdict(each) for name, each in rivals.items()}}
    return {**asdict(outcome), "train_seconds": outcome.seconds, "rows": objective.rows, "seed": settings.seed, **own, **scores}
