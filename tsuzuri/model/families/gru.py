"""The gated recurrent unit (Cho et al. 2014): gates decide how much of the old state stays.

    r, z = σ(W x + U h);   n = tanh(W_n x + r · (U_n h));   h ← (1 − z) · n + z · h

The layer is `parts/gru.py`; the rest is as in every recurrent family (`_recurrent.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import _recurrent
from tsuzuri.model.transformer import Shape

MODEL_TYPE = "gru"
SPECIAL = Words(
    "古い状態をどれだけ残すかを、ゲートがトークンごとに決める。LSTM より簡素で、覚えておくベクトルは一つ。",
    "Gates decide at each token how much of the old state stays; simpler than an LSTM, with one vector kept.",
)
EQUATION = "r, z = σ(W x + U h);  n = tanh(W_n x + r·(U_n h));  h ← (1 − z)·n + z·h"
PAPER = "Cho et al. 2014, Learning Phrase Representations using RNN Encoder–Decoder"
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
