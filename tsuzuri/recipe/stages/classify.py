"""エンコーダに、文章の分類を学習させます。 / Teach an encoder to label texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from tsuzuri.chat.labels import Encoder
from tsuzuri.errors import InputError, Words
from tsuzuri.evals import encoders
from tsuzuri.model import weights
from tsuzuri.recipe.run import Context
from tsuzuri.recipe.stages import _task
from tsuzuri.text import examples, framing
from tsuzuri.train.objectives import classify

NEEDS, inputs = _task.NEEDS, _task.inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(_task.Settings):
    pooling: Literal["first", "mean"] = "first"  # what stands for a text: its first token, or the mean of all


def check(settings: Settings, before: Mapping[str, Any]) -> None:
    """Besides what all tasks ask for: the family can say how a text is summed up."""
    _task.check(settings, before)
    shape = replace(_task.shape(settings, before), head="classify", labels=("0", "1"), pooling=settings.pooling)
    weights.decoder(_task.family(settings, before)).config(shape)


def expected_rows(settings: Settings) -> int:
    return len(examples.read(examples.Labelled, _task.read(settings.inputs)))


def expected_length(settings: Settings) -> float:
    return _task.tokens([one.text for one in examples.read(examples.Labelled, _task.read(settings.inputs))])


def run(settings: Settings, context: Context) -> dict[str, Any]:
    learned, test = (examples.read(examples.Labelled, _task.read(names)) for names in (settings.inputs, settings.test))
    labels = tuple(sorted({one.label for one in learned}))
    unknown = {one.label for one in test} - {*labels}
    if unknown:
        raise InputError(
            Words("分類の例を読みました。", "Reading examples of labels."),
            found=Words(
                f"test にしかない分類があります：{'、'.join(sorted(unknown))}", f"Labels only in test: {', '.join(sorted(unknown))}"
            ),
            todo=Words("inputs にその例を加えてください。", "Add examples of them to inputs."),
        )
    started = _task.start(settings, context, "classify", labels, pooling=settings.pooling)
    tokenizer = started.tokenizer
    some = [classify.Example(tokenizer.encode(one.text), labels.index(one.label)) for one in learned]
    objective = classify.Objective(classify.Settings(settings.length), some, framing.frame(tokenizer))
    texts, right = [one.text for one in test], [one.label for one in test]

    def accuracy(said: list[str]) -> encoders.Score:
        return encoders.mean([float(one == other) for one, other in zip(right, said, strict=True)])

    def score(encoder: Encoder) -> encoders.Score:
        return accuracy([row[0].label for row in encoder.classify(texts)])

    rivals = {
        str(Words("最多の分類", "the commonest label")): accuracy(encoders.majority(learned, texts)),
        str(Words("文字 n-gram の単純ベイズ", "naive Bayes of character n-grams")): accuracy(encoders.naive_bayes(learned, texts)),
        str(Words("文字 n-gram のロジスティック回帰", "logistic regression of character n-grams")): accuracy(
            encoders.linear(learned, texts)
        ),
    }
    return _task.train(started, objective, settings, context, score, rivals) | {"labels": list(labels), "metric": "accuracy"}
