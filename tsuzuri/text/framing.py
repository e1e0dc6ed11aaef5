"""How an encoder is given a text: [CLS] text [SEP], or a question and a context, [CLS] question [SEP] context [SEP].

In: ids of text. Out: rows of ids with their segments; a context longer than a row comes in windows that overlap, so that
nothing is cut away. It knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tsuzuri.errors import ConfigError, InputError, Words

# What others call the same four: BERT and ModernBERT, RoBERTa.
NAMES = {
    "first": ("[CLS]", "<s>", "<cls>"),
    "last": ("[SEP]", "</s>", "<sep>"),
    "mask": ("[MASK]", "<mask>"),
    "padding": ("[PAD]", "<pad>", "<|pad|>"),
}


class Special(Protocol):
    @property
    def special(self) -> Mapping[str, int]: ...


@dataclass(frozen=True, slots=True)
class Frame:
    """The ids that stand around a text, in place of a hidden token, and behind a text that is shorter than its row."""

    first: int
    last: int
    mask: int
    padding: int

    def around(self, ids: Sequence[int]) -> list[int]:
        return [self.first, *ids, self.last]


def frame(tokenizer: Special) -> Frame:
    """The frame of a tokenizer. Raises ConfigError where it has not all four."""
    found = {}
    for role, names in NAMES.items():
        there = [name for name in names if name in tokenizer.special]
        if not there:
            raise ConfigError(
                Words("エンコーダ用のトークナイザを使おうとしました。", "Using a tokenizer for an encoder."),
                found=Words(f"特殊トークン {names[0]} がありません。", f"It has no special token {names[0]}."),
                todo=Words(
                    "tokenizer.special=encoder で作り直すか、エンコーダのモデルに付いているものを使ってください。",
                    "Make one with tokenizer.special=encoder, or use the one that comes with an encoder.",
                ),
            )
        found[role] = tokenizer.special[there[0]]
    return Frame(**found)


@dataclass(frozen=True, slots=True)
class Window:
    """A question with a stretch of its context."""

    ids: list[int]
    segments: list[int]  # 0: [CLS] question [SEP], 1: what follows
    begin: int  # where in `ids` the stretch begins
    start: int  # tokens start … stop of the context
    stop: int


def windows(frame: Frame, question: Sequence[int], context: Sequence[int], length: int, stride: int) -> list[Window]:
    """Rows of at most `length` tokens that together hold the whole context, each sharing `stride` tokens with the one before.

    Raises InputError where the question leaves no room for more than what is shared.
    """
    head = [*frame.around(question)]
    room = length - len(head) - 1
    if room <= min(stride, max(0, len(context) - 1)):
        raise InputError(
            Words("質問と文章を一行に並べようとしました。", "Laying out a question with its context."),
            found=Words(
                f"質問が {len(question)} トークンで、{length} トークンの行に文章の余地がありません。",
                f"The question has {len(question)} tokens; a row of {length} has no room for the context.",
            ),
            todo=Words(
                "質問を短くするか、length を増やすか、stride を減らしてください。", "Shorten the question, raise length or lower stride."
            ),
        )
    found, start = [], 0
    while True:
        stop = min(start + room, len(context))
        ids = [*head, *context[start:stop], frame.last]
        found.append(Window(ids, [0] * len(head) + [1] * (len(ids) - len(head)), len(head), start, stop))
        if stop == len(context):
            return found
        start = stop - stride
