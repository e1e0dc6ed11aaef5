"""What rnn.py, gru.py and lstm.py share: recurrent layers on top of each other between an embedding and a head.

The weights are called as `torch.nn.RNN`, `GRU` and `LSTM` call theirs, so that anyone can load them there. No config.json of
Hugging Face knows these families; its fields are those of `Settings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tsuzuri.model.families._fields import Fields, every, said
from tsuzuri.model.transformer import Shape

VARYING = ("vocab_size", "hidden_size", "num_hidden_layers", "tie_word_embeddings")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The `model:` section of a recipe."""

    family: str
    hidden_size: int
    num_hidden_layers: int
    tie_word_embeddings: bool = False

    def shape(self, vocab_size: int, length: int) -> Shape:
        """`length` is no limit: the state holds a text of any length."""
        own = {name: getattr(self, name) for name in VARYING if name != "vocab_size"}
        return Shape(**{**usual(self.family), **own, "vocab_size": vocab_size})


def usual(family: str) -> dict[str, Any]:
    """The part has the family's name."""
    return {**every(Shape, *VARYING), "block": "bare", "attention": family, "feedforward": None, "position": "none"}


def shape(config: Mapping[str, Any], family: str) -> Shape:
    fields = Fields(config)
    found = Shape(
        **{
            **usual(family),
            "vocab_size": fields.whole("vocab_size"),
            "hidden_size": fields.whole("hidden_size"),
            "num_hidden_layers": fields.whole("num_hidden_layers"),
            "tie_word_embeddings": fields.flag("tie_word_embeddings", False),
        }
    )
    fields.done()
    return found


def config(shape: Shape, family: str) -> dict[str, Any]:
    said(shape, usual(family), family)
    return {"model_type": family, **{name: getattr(shape, name) for name in VARYING}}


def names(shape: Shape) -> dict[str, str]:
    table = {"embedding.weight": "embedding.weight"}
    if not shape.tie_word_embeddings:
        table["head.weight"] = "head.weight"
    for layer in range(shape.num_hidden_layers):
        for ours, theirs in (("input", "ih"), ("state", "hh")):
            for kind in ("weight", "bias"):
                table[f"blocks.{layer}.mixer.{ours}.{kind}"] = f"rnn.{kind}_{theirs}_l{layer}"
    return table
