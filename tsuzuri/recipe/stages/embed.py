"""エンコーダに、意味の近い文章を近くに置くことを学習させます。 / Teach an encoder to place texts of like meaning close together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tsuzuri.chat.labels import Encoder
from tsuzuri.errors import InputError, Words
from tsuzuri.evals import encoders
from tsuzuri.recipe.run import Context
from tsuzuri.recipe.stages import _task
from tsuzuri.text import examples, framing
from tsuzuri.train import loop
from tsuzuri.train.objectives import embed

NEEDS, check, inputs = _task.NEEDS, _task.check, _task.inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(_task.Settings):
    group: int = 16  # pairs that are compared with one another; a row of the loop is a group
    temperature: float = 0.05
    scored: bool = False  # the pairs have scores, and their order is what is learned (CoSENT); else which belong together (InfoNCE)

    def __post_init__(self) -> None:
        _task.Settings.__post_init__(self)
        loop.positive(self, "group", "temperature")


def expected_rows(settings: Settings) -> int:
    return math.ceil(len(examples.read(examples.Pair, _task.read(settings.inputs))) / settings.group)


def expected_length(settings: Settings) -> float:
    """A row is a group: both texts of all its pairs."""
    read = examples.read(examples.Pair, _task.read(settings.inputs))
    return 2 * settings.group * _task.tokens([text for one in read for text in (one.one, one.other)])


def run(settings: Settings, context: Context) -> dict[str, Any]:
    learned, test = (examples.read(examples.Pair, _task.read(names)) for names in (settings.inputs, settings.test))
    needed = [*test, *(learned if settings.scored else [])]
    if any(one.score is None for one in needed):
        raise InputError(
            Words("文章の対を読みました。", "Reading pairs of texts."),
            found=Words("score のない対があります。", "A pair has no score."),
            todo=Words(
                "score を書くか、scored=false にしてください（test には要ります）。",
                "Write scores, or give scored=false (test needs them).",
            ),
        )
    started = _task.start(context, "embed", (), settings.seed)
    tokenizer = started.tokenizer
    some = [embed.Example(tokenizer.encode(one.one), tokenizer.encode(one.other), one.score or 0.0) for one in learned]
    own = embed.Settings(settings.length, settings.group, settings.temperature, settings.scored, settings.seed)
    objective = embed.Objective(own, some, framing.frame(tokenizer))
    right = [one.score or 0.0 for one in test]

    def cosines(encoder: Encoder) -> encoders.Score:
        ones, others = (encoder.embed([getattr(one, side) for one in test]) for side in ("one", "other"))
        return encoders.spearman(right, (ones * others).sum(-1).tolist())

    rivals = {
        str(said): encoders.spearman(right, [encoders.cosine(one, length) for one in test])
        for said, length in (
            (Words("文字の余弦", "cosine of characters"), 1),
            (Words("文字二つ組の余弦", "cosine of character bigrams"), 2),
        )
    } | {
        str(Words("この課題を学ぶ前", "before it learned this")): cosines(Encoder(started.body.model, tokenizer)),
    }
    return _task.train(started, objective, settings, context, cosines, rivals) | {"metric": "Spearman"}
