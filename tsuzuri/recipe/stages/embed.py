"""エンコーダに、意味の近い文章を近くに置くことを学習させます。 / Teach an encoder to place texts of like meaning close together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tsuzuri.chat.labels import Encoder
from tsuzuri.errors import InputError, Words
from tsuzuri.evals import encoders
from tsuzuri.recipe.run import Context
from tsuzuri.recipe.stages import _task
from tsuzuri.text import examples, framing
from tsuzuri.train import loop
from tsuzuri.train.objectives import embed

AMONG = 100  # texts of which one is to be found
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
    without = sum(one.score is None for one in test)
    if without not in (0, len(test)) or (settings.scored and (without or any(one.score is None for one in learned))):
        raise InputError(
            Words("文章の対を読みました。", "Reading pairs of texts."),
            found=Words("score のない対があります。", "A pair has no score."),
            todo=Words(
                "score をすべてに書くか、scored=false にしてください（test では、どの対にも書かないこともできます）。",
                "Write all scores, or give scored=false (none of test may have one, too).",
            ),
        )
    started = _task.start(settings, context, "embed", ())
    tokenizer = started.tokenizer
    some = [embed.Example(tokenizer.encode(one.one), tokenizer.encode(one.other), one.score or 0.0) for one in learned]
    own = embed.Settings(settings.length, settings.group, settings.temperature, settings.scored, settings.seed)
    objective = embed.Objective(own, some, framing.frame(tokenizer))
    measure = closeness(learned, test) if not without else retrieval(learned, test)
    rivals = measure.rivals | {
        str(Words("この課題を学ぶ前", "before it learned this")): measure.score(Encoder(started.body.model, tokenizer)),
    }
    return _task.train(started, objective, settings, context, measure.score, rivals) | {"metric": measure.metric}


@dataclass(frozen=True, slots=True)
class Measure:
    metric: str
    score: Callable[[Encoder], encoders.Score]
    rivals: dict[str, encoders.Score]


def closeness(learned: Sequence[examples.Pair], test: Sequence[examples.Pair]) -> Measure:
    """How far the order of the cosines is that of the scores."""
    right = [one.score or 0.0 for one in test]
    rare = encoders.rarity([text for one in learned for text in (one.one, one.other)])

    def score(encoder: Encoder) -> encoders.Score:
        ones, others = _vectors(encoder, test)
        return encoders.spearman(right, (ones * others).sum(-1).tolist())

    rivals = {
        str(said): encoders.spearman(right, [encoders.cosine(one, length, weights) for one in test])
        for said, length, weights in (
            (Words("文字の余弦", "cosine of characters"), 1, None),
            (Words("文字二つ組の余弦", "cosine of character bigrams"), 2, None),
            (Words("珍しさで重みを付けた文字の余弦", "cosine of characters weighted by rarity"), 1, rare),
        )
    }
    return Measure("Spearman", score, rivals)


def retrieval(learned: Sequence[examples.Pair], test: Sequence[examples.Pair]) -> Measure:
    """How often the nearest of AMONG seconds is the own one."""

    def score(encoder: Encoder) -> encoders.Score:
        ones, others = (each.numpy() for each in _vectors(encoder, test))
        return encoders.retrieved(lambda item, candidates: (others[candidates] @ ones[item]).tolist(), len(test), AMONG)

    def counted(longest: int) -> encoders.Score:
        suits = encoders.Okapi([one.other for one in learned], longest)
        return encoders.retrieved(
            lambda item, candidates: suits(test[item].one, [test[number].other for number in candidates]), len(test), AMONG
        )

    rivals = {
        str(Words("文字の BM25", "BM25 of characters")): counted(1),
        str(Words("文字と文字二つ組の BM25", "BM25 of characters and pairs of them")): counted(2),
    }
    return Measure("found first", score, rivals)


def _vectors(encoder: Encoder, test: Sequence[examples.Pair]) -> tuple[Tensor, Tensor]:
    return encoder.embed([one.one for one in test]), encoder.embed([one.other for one in test])
