"""OpenAI's moderations, by the content filter of the guard.

In: the JSON of POST /v1/moderations -> texts. In: what was found in each -> the answer. The filter's own categories stand under their
names and under those that OpenAI has for the same. What it does not tell apart is never true, and `category_applied_input_types` has
an empty list for it: it was not looked at. It finds nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.guard.checks.content import CATEGORIES
from tsuzuri.serve.refusal import Refusal
from tsuzuri.serve.wire import fields, openai_tools
from tsuzuri.serve.wire.fields import JSON, Field, invalid, used

MOST, LONGEST = 256, 1 << 16  # texts; characters of each: one is looked at while others wait for the interpreter
NAME = "content"
CURRENT = (NAME, "omni-moderation-latest", "text-moderation-latest")  # names that mean: whichever filter there is
FIELDS: tuple[Field, ...] = (
    used("model", f"フィルターの名前：{'、'.join(CURRENT)}（どれも同じもの）", f"the filter: {', '.join(CURRENT)}, all the same one"),
    used(
        "input",
        f"文章、文章の並び（{MOST} 個まで）、または text の並び（全部で一つの文章）。一つ {LONGEST} 文字まで",
        f"a text, up to {MOST} texts, or parts of text, which are one text together; each of at most {LONGEST} characters",
    ),
)
THEIRS = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm", "self-harm/instructions",
    "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip
MEANS: Mapping[str, tuple[str, ...]] = {"weapons": ("illicit", "illicit/violent"), "illegal": ("illicit",)}  # where the names differ


@dataclass(frozen=True, slots=True)
class Wanted:
    texts: tuple[str, ...]


def read(request: JSON) -> Wanted:
    """Raises Refusal."""
    fields.check(request, FIELDS)
    name = fields.string(request, "model", most=256)
    if name is not None and name not in CURRENT:
        words = Words(f"あるフィルターは {NAME} だけです。", f"The only filter is {NAME}.")
        raise Refusal(404, words, param="model", code="model_not_found")
    return Wanted(_texts(request.get("input")))


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (_short(value, "input"),)
    found = fields.several(value, "input", least=1, most=MOST)
    if all(isinstance(one, str) for one in found):
        return tuple(_short(one, f"input[{i}]") for i, one in enumerate(found))
    return (_short(openai_tools.text(found, "input"), "input"),)


def _short(text: str, place: str) -> str:
    if len(text) > LONGEST:
        raise invalid(place, Words(f"{LONGEST} 文字までです。", f"It takes at most {LONGEST} characters."))
    return text


def names(category: str) -> tuple[str, ...]:
    """Under which names a category of the filter stands in the answer."""
    spelt = category.replace("_", "-")
    return (spelt,) if spelt in THEIRS else (category, *MEANS.get(category, ()))


def whole(answer_id: str, found: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """`found`: for each text, how sure the filter is of each category that it found."""
    return {"id": answer_id, "model": NAME, "results": [_result(one) for one in found]}


def _result(found: Mapping[str, float]) -> dict[str, Any]:
    looked_at = [name for category in CATEGORIES for name in names(category)]
    scores = dict.fromkeys([*THEIRS, *looked_at], 0.0)
    for category, sure in found.items():
        scores |= {name: max(sure, scores[name]) for name in names(category)}
    return {
        "flagged": bool(found),
        "categories": {name: score > 0 for name, score in scores.items()},
        "category_scores": scores,
        "category_applied_input_types": {name: ["text"] if name in looked_at else [] for name in scores},
    }
