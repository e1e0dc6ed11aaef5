"""The simple recurrent network (Elman 1990; Mikolov et al. 2010 as a language model): one vector is all that is remembered.

    h_t = tanh(W x_t + U h_{t−1} + b);   logits = V h_t

The layer is `parts/rnn.py`; the rest is as in every recurrent family (`_recurrent.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import _recurrent
from tsuzuri.model.transformer import Shape

MODEL_TYPE = "rnn"
SPECIAL = Words(
    "読んだ文章のすべてを一つのベクトルに畳み込む。古いことは tanh を通るたびに薄れる。",
    "All that was read is folded into one vector; what is old fades with every tanh.",
)
EQUATION = "h_t = tanh(W x_t + U h_{t−1} + b)"
PAPER = "Elman 1990, Finding Structure in Time; Mikolov et al. 2010, Recurrent neural network based language model"
PUBLIC: dict[str, str] = {}
USUAL = _recurrent.usual(MODEL_TYPE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(_recurrent.Settings):
    family: str = MODEL_TYPE


def shape(config: Mapping[str, Any]) -> Shape:
    return _recurrent.shape(config, MODEL_TYPE)


def config(shape: Shape) -> dict[str, Any]:
    return _recurrent.config(shape, MODEL_TYPE)


def names(shape: Shape) -> dict[str, str]:
    return _recurrent.names(shape)
