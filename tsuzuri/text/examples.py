"""Examples of the tasks of encoders: JSON lines, one example a line, plain or packed (.zst, .gz).

    classify   {"text": …, "label": …}
    tag        {"text": …, "spans": [{"start": 0, "stop": 3, "label": …}, …]}     characters
    extract    {"question": …, "context": …, "answer": …, "start": 12}            both null: it is not in the context
    embed      {"one": …, "other": …, "score": 3.5}                                the score may be missing

In: paths. Out: values, all of them and whole: what cannot be read is an error that names file and line. `source` and
`licence` may stand beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tsuzuri.config import build
from tsuzuri.errors import InputError, Words
from tsuzuri.text.bytelevel import utf8
from tsuzuri.text.corpus.read import objects, origin
from tsuzuri.text.spans import Span

MAX_LINE = 1 << 24  # bytes, unpacked
BESIDE = ("source", "licence")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Labelled:
    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Tagged:
    text: str
    spans: list[Span]


@dataclass(frozen=True, slots=True)
class Question:
    question: str
    context: str
    answer: str | None = None
    start: int | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    one: str
    other: str
    score: float | None = None


FORMS = {
    Labelled: '{"text": …, "label": …}',
    Tagged: '{"text": …, "spans": [{"start": …, "stop": …, "label": …}, …]}',
    Question: '{"question": …, "context": …, "answer": …, "start": …}',
    Pair: '{"one": …, "other": …}',
}


def origins(paths: Sequence[Path]) -> set[tuple[str, str]]:
    """(source, licence) of all that say so, the source without the part that names one document of it."""
    form = Words("一行に一つの JSON です。", "One JSON object a line.")
    found = (record for path in paths for _, record in objects(path, MAX_LINE, form))
    return {(origin(str(one["source"])), str(one.get("licence", ""))) for one in found if one.get("source")}


def read(kind: type[T], paths: Sequence[Path]) -> list[T]:
    """All examples of the files, in their order. Raises InputError naming file and line."""
    form = Words(f"一行に一つ {FORMS[kind]} の形で書いてください。", f"Write one {FORMS[kind]} a line.")
    found: list[T] = []
    for path in paths:
        for number, record in objects(path, MAX_LINE, form):
            value = build(kind, {key: each for key, each in record.items() if key not in BESIDE}, f"{path.name}:{number}", todo=form)
            wrong = _wrong(value)
            if wrong is not None:
                raise InputError(
                    Words(f"{path.name} の {number} 行目を読もうとしました。", f"Reading line {number} of {path.name}."),
                    found=wrong,
                    todo=form,
                )
            found.append(value)
    return found


def _wrong(value: Any) -> Words | None:
    """What is wrong with an example, or None."""
    for text in (getattr(value, name) for name in ("text", "question", "context", "one", "other") if hasattr(value, name)):
        utf8(text)
        if not text.strip():
            return Words("文章が空です。", "A text is empty.")
    if isinstance(value, Tagged) and any(not 0 <= span.start < span.stop <= len(value.text) for span in value.spans):
        return Words("区間が文章の外にあります。", "A stretch lies outside of the text.")
    if isinstance(value, Question):
        if (value.answer is None) != (value.start is None):
            return Words("answer と start は、両方を書くか両方を null にします。", "answer and start are both given, or both null.")
        if value.answer is not None and value.start is not None and not _there(value.context, value.answer, value.start):
            return Words("start の位置に answer がありません。", "The answer does not stand at start.")
    return None


def _there(context: str, answer: str, start: int) -> bool:
    return bool(answer) and start >= 0 and context[start : start + len(answer)] == answer
