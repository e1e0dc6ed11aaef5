"""Stretches of a text and a label for each token: BIO and BILOU, both ways.

    文字   東 京 都 の 大 阪      spans (0, 3, 地名), (4, 6, 地名)
    BIO    B  I  I  O  B  I
    BILOU  B  I  L  O  B  L      and U for a stretch of one token

In: stretches of characters and where each token lies in the text. Out: labels of tokens; and back (Ramshaw & Marcus 1995;
Ratinov & Roth 2009). A stretch that begins or ends inside a token cannot be said in tokens: it is named, not moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tsuzuri.errors import InputError, Words

Scheme: TypeAlias = Literal["BIO", "BILOU"]
OUTSIDE = "O"


@dataclass(frozen=True, slots=True, order=True)
class Span:
    start: int  # characters
    stop: int
    label: str


def labels(kinds: Sequence[str], scheme: Scheme = "BIO") -> tuple[str, ...]:
    """O, then every kind with each letter of the scheme."""
    return (OUTSIDE, *(f"{letter}-{kind}" for kind in kinds for letter in scheme if letter != OUTSIDE))


def encode(spans: Sequence[Span], offsets: Sequence[tuple[int, int]], scheme: Scheme = "BIO") -> list[str]:
    """A label for each token, whose characters `offsets` gives. Raises InputError for stretches that overlap or cut a token."""
    found = [OUTSIDE] * len(offsets)
    for span in sorted(spans):
        inside = [i for i, (start, stop) in enumerate(offsets) if start < span.stop and stop > span.start]
        if not inside or offsets[inside[0]][0] != span.start or offsets[inside[-1]][1] != span.stop:
            raise _wrong(span, Words("トークンの切れ目と合いません。", "It does not begin and end where tokens do."))
        if any(found[i] != OUTSIDE for i in inside):
            raise _wrong(span, Words("別の区間と重なっています。", "It overlaps another one."))
        for i in inside:
            found[i] = f"I-{span.label}"
        found[inside[0]] = f"B-{span.label}"
        if scheme == "BILOU":
            found[inside[-1]] = f"{'U' if len(inside) == 1 else 'L'}-{span.label}"
    return found


def decode(tags: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[Span]:
    """The stretches that labels mark, of either scheme; an I or L after nothing of its kind begins a stretch, as conlleval counts."""
    found: list[Span] = []
    before = OUTSIDE
    for tag, (start, stop) in zip(tags, offsets, strict=True):
        letter, _, kind = tag.partition("-")
        if letter in "IL" and before[:1] in ("B", "I") and before[2:] == kind:
            found[-1] = Span(found[-1].start, stop, kind)
        elif letter != OUTSIDE:
            found.append(Span(start, stop, kind))
        before = tag
    return found


def _wrong(span: Span, found: Words) -> InputError:
    return InputError(
        Words(
            f"区間 {span.start}–{span.stop}（{span.label}）をトークンの札にしようとしました。",
            f"Turning the stretch {span.start}–{span.stop} ({span.label}) into labels of tokens.",
        ),
        found=found,
        todo=Words("区間か、トークナイザを直してください。", "Correct the stretch, or use a tokenizer that cuts there."),
    )
