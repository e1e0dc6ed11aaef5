"""エンコーダに、文章から答えを抜き出すことを学習させます。 / Teach an encoder to find answers in a context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tsuzuri.chat.labels import Encoder
from tsuzuri.errors import Words
from tsuzuri.evals import encoders
from tsuzuri.recipe.run import Context
from tsuzuri.recipe.stages import _task
from tsuzuri.text import examples, fast, framing
from tsuzuri.train import loop
from tsuzuri.train.objectives import extract

NEEDS, check, inputs = _task.NEEDS, _task.check, _task.inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(_task.Settings):
    length: int = 256
    stride: int = 64  # tokens that neighbouring windows of a long context share

    def __post_init__(self) -> None:
        _task.Settings.__post_init__(self)
        loop.positive(self, "stride")


def expected_rows(settings: Settings) -> int:
    """As if every context stood in one row."""
    return len(examples.read(examples.Question, _task.read(settings.inputs)))


def expected_length(settings: Settings) -> float:
    read = examples.read(examples.Question, _task.read(settings.inputs))
    return min(float(settings.length), _task.tokens([one.question + one.context for one in read]))


def run(settings: Settings, context: Context) -> dict[str, Any]:
    learned, test = (examples.read(examples.Question, _task.read(names)) for names in (settings.inputs, settings.test))
    started = _task.start(settings, context, "extract", ("start", "end"))
    tokenizer = started.tokenizer
    some = [example(one, tokenizer) for one in learned]
    objective = extract.Objective(extract.Settings(settings.length, settings.stride), some, framing.frame(tokenizer))
    exact: list[float] = []

    def f1(said: list[str | None]) -> encoders.Score:
        return encoders.mean([encoders.character_f1(one.answer, other) for one, other in zip(test, said, strict=True)])

    def score(encoder: Encoder) -> encoders.Score:
        said = [encoder.extract(one.question, one.context).text for one in test]
        exact.extend(float(one.answer == other) for one, other in zip(test, said, strict=True))
        return f1(said)

    usual = round(sum(len(one.answer or "") for one in learned) / max(1, len(learned)))
    rivals = {
        str(Words("質問と最も重なる文", "the sentence that shares most")): f1([encoders.overlap(one) for one in test]),
        str(Words("質問の語に近い区間", "the stretch nearest to the question's words")): f1([encoders.sliding(one, usual) for one in test]),
        str(Words("疑問詞で選ぶ規則", "a rule by the question's word")): f1([encoders.typed(one, usual) for one in test]),
    }
    found = _task.train(started, objective, settings, context, score, rivals)
    return found | {"metric": "character F1", "exact": sum(exact) / max(1, len(exact))}


def example(one: examples.Question, tokenizer: fast.FastTokenizer) -> extract.Example:
    """The answer's tokens are all that hold one of its characters: where tokens are longer, a little more than the answer."""
    ids, offsets = tokenizer.spans(one.context)
    answer = None
    if one.answer is not None and one.start is not None:
        inside = [i for i, (start, stop) in enumerate(offsets) if start < one.start + len(one.answer) and stop > one.start]
        answer = (inside[0], inside[-1] + 1)
    return extract.Example(tokenizer.encode(one.question), ids, answer)
