"""エンコーダに、名前などの区間を見つけることを学習させます。 / Teach an encoder to find names and the like in texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tsuzuri.chat.labels import Encoder
from tsuzuri.errors import InputError, Words
from tsuzuri.evals import encoders
from tsuzuri.recipe.run import Context
from tsuzuri.recipe.stages import _task
from tsuzuri.text import examples, fast, framing, spans
from tsuzuri.train.objectives import tag

NEEDS, check, inputs = _task.NEEDS, _task.check, _task.inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(_task.Settings):
    scheme: spans.Scheme = "BIO"
    skip_cut: bool = False  # leave out, counted, texts in which a stretch ends inside a token; else they stop the run


def expected_rows(settings: Settings) -> int:
    return len(examples.read(examples.Tagged, _task.read(settings.inputs)))


def expected_length(settings: Settings) -> float:
    return _task.tokens([one.text for one in examples.read(examples.Tagged, _task.read(settings.inputs))])


def run(settings: Settings, context: Context) -> dict[str, Any]:
    learned, test = (examples.read(examples.Tagged, _task.read(names)) for names in (settings.inputs, settings.test))
    kinds = sorted({span.label for one in learned for span in one.spans})
    labels = spans.labels(kinds, settings.scheme)
    started = _task.start(settings, context, "tag", labels)
    tokenizer = started.tokenizer
    some, skipped = rows(learned, tokenizer, labels, settings)
    if skipped:
        context.watch.notice(
            Words(
                f"区間がトークンの途中で切れる文章 {skipped} 件を除きました。",
                f"Left out {skipped} texts in which a stretch ends inside a token.",
            )
        )
    objective = tag.Objective(tag.Settings(settings.length), some, framing.frame(tokenizer))
    texts, right = [one.text for one in test], [one.spans for one in test]

    def score(encoder: Encoder) -> encoders.Score:
        said = [[spans.Span(found.start, found.stop, found.label) for found in row] for row in encoder.tag(texts)]
        by_kind.update({kind: encoders.entity_f1(_of(kind, right), _of(kind, said)).value for kind in kinds})
        return encoders.entity_f1(right, said)

    by_kind: dict[str, float] = {}
    rivals = {str(Words("学習例の辞書", "a dictionary of the examples")): encoders.entity_f1(right, encoders.dictionary(learned, texts))}
    found = _task.train(started, objective, settings, context, score, rivals)
    return found | {"labels": list(labels), "metric": "entity F1", "by_kind": by_kind, "skipped": skipped}


def _of(kind: str, rows: list[list[spans.Span]]) -> list[list[spans.Span]]:
    return [[span for span in row if span.label == kind] for row in rows]


def rows(
    learned: list[examples.Tagged], tokenizer: fast.FastTokenizer, labels: tuple[str, ...], settings: Settings
) -> tuple[list[tag.Example], int]:
    """Examples as ids and numbers of labels, and how many were left out."""
    found, skipped = [], 0
    for one in learned:
        ids, offsets = tokenizer.spans(one.text)
        try:
            tags = spans.encode(one.spans, offsets, settings.scheme)
        except InputError:
            if not settings.skip_cut:
                raise
            skipped += 1
            continue
        found.append(tag.Example(ids, [labels.index(each) for each in tags]))
    return found, skipped
