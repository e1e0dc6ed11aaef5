"""Long short-term memory (Hochreiter & Schmidhuber 1997; Gers et al. 2000): a cell that is only added to and faded.

    i, f, o = σ(W x + U h);   c ← f · c + i · tanh(W_g x + U_g h);   h = o · tanh(c)

The layer is `parts/lstm.py`; the rest is as in every recurrent family (`_recurrent.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import _recurrent
from tsuzuri.model.transformer import Shape

MODEL_TYPE = "lstm"
SPECIAL = Words(
    "足し算と減衰だけで変わるセルを持ち、勾配が消えにくい。2010 年代前半の言語モデルの主流だった。",
    "A cell that is only added to and faded, so that gradients last; the language model of the early 2010s.",
)
EQUATION = "i, f, o = σ(W x + U h);  c ← f·c + i·tanh(W_g x + U_g h);  h = o·tanh(c)"
PAPER = "Hochreiter & Schmidhuber 1997; Gers et al. 2000; Sundermeyer et al. 2012, LSTM Neural Networks for Language Modeling"
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
