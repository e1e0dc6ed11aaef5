"""mT5 (Xue et al. 2021): T5 version 1.1 for 101 languages, Japanese among them, under a name of its own.

as T5 1.1: gated gelu, a head of its own, a vocabulary of 250,112
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.encoder_decoder import EncoderDecoder, PairShape
from tsuzuri.model.families import t5
from tsuzuri.model.families._fields import said

MODEL_TYPE = "mt5"
ARCHITECTURE = "MT5ForConditionalGeneration"
MODEL, SHAPE = EncoderDecoder, PairShape
SPECIAL = Words(
    "形は T5 1.1 と同じ。101 の言語の文章で学習し、語彙が 25 万と大きい。",
    "The shape of T5 1.1, trained on text in 101 languages with a vocabulary of 250 thousand.",
)
EQUATION = t5.EQUATION
PAPER = "Xue et al. 2021, mT5: A Massively Multilingual Pre-trained Text-to-Text Transformer"
PUBLIC = {
    "google/mt5-small": "512 × 8 + 8, H 6, E 64, F 1024 gated, V 250112",
    "google/mt5-base": "768 × 12 + 12, H 12, E 64, F 2048 gated, V 250112",
}
USUAL, TIED, DERIVED = t5.USUAL, t5.TIED, t5.DERIVED
names, fitted = t5.names, t5.fitted


def shape(config: Mapping[str, Any]) -> PairShape:
    """A config.json that does not say so is of version 1.1; states are never scaled before the head."""
    return t5.shape({"feed_forward_proj": "gated-gelu", "tie_word_embeddings": True, **config, "scale_decoder_outputs": False})


def config(shape: PairShape) -> dict[str, Any]:
    said(shape, {"logit_multiplier": 1.0}, MODEL_TYPE)
    found = t5.config(shape, MODEL_TYPE, ARCHITECTURE)
    return {name: value for name, value in found.items() if name != "scale_decoder_outputs"}
