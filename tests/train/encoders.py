"""Small encoders and what each objective trains them on: for the tests of the objectives and of the laws they keep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tsuzuri.model.families import modernbert
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.text.framing import Frame
from tsuzuri.train.objectives import classify, embed, extract, masked, tag

FRAME = Frame(first=0, mask=1, last=2, padding=3)
SHAPE = Shape(
    **{
        **modernbert.USUAL, "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
        "max_position_embeddings": 64,
    }
)  # fmt: skip


class Documents:
    """Token documents of very different lengths, in which each token says what the next one is: 4 5 6 7 …"""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.texts = [4 + (random.integers(56) + np.arange(length)) % 56 for length in random.integers(3, 70, 12)]
        self.lengths = np.array([len(text) for text in self.texts])

    def document(self, index: int) -> np.ndarray:
        return self.texts[index]


def ids(random: np.random.Generator, low: int = 4, high: int = 20) -> list[int]:
    return random.integers(4, 60, random.integers(low, high)).tolist()


def objective(name: str) -> Any:
    """With something to learn in it, and texts of different lengths."""
    random = np.random.default_rng(3)
    texts = [ids(random) for _ in range(24)]
    match name:
        case "masked":
            return masked.Objective(masked.Settings(32), Documents(), FRAME, 60)
        case "classify":
            return classify.Objective(classify.Settings(32), [classify.Example(t, int(t[0] > 30)) for t in texts], FRAME)
        case "tag":
            return tag.Objective(tag.Settings(32), [tag.Example(t, [int(id > 30) + int(id > 50) for id in t]) for t in texts], FRAME)
        case "extract":
            some = [extract.Example([t[0]], t[1:], None if i % 4 == 0 else (1, 3)) for i, t in enumerate(texts)]
            return extract.Objective(extract.Settings(14, 5), some, FRAME)
        case "embed":
            pairs = [embed.Example(t, [*t[1:], 5]) for t in texts]
            return embed.Objective(embed.Settings(32, group=4), pairs, FRAME)
        case "embed, scored":
            pairs = [embed.Example(t, ids(random), float(i % 3)) for i, t in enumerate(texts)]
            return embed.Objective(embed.Settings(32, group=4, scored=True), pairs, FRAME)
    raise AssertionError(name)


HEADS = {"masked": (), "classify": ("a", "b"), "tag": ("O", "B", "I"), "extract": ("start", "end"), "embed": (), "embed, scored": ()}


def built(name: str) -> Transformer:
    return Transformer(replace(SHAPE, head=name.partition(",")[0], labels=HEADS[name])).initialise(1)
