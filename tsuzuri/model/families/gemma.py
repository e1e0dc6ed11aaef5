"""Gemma (Gemma Team 2024): embeddings times √D, norms that keep their distance from one, GEGLU, heads of 256, tied.

x ← √D E[t];   x ← x + O · attend(rotate(Q n(x)), rotate(K n(x)), V n(x));   x ← x + D (gelu(G n(x)) · U n(x))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import _like_llama
from tsuzuri.model.families._fields import Fields, every, said
from tsuzuri.model.transformer import Shape

MODEL_TYPE = "gemma"
ARCHITECTURE = "GemmaForCausalLM"
SPECIAL = Words(
    "埋め込みを √D 倍し、正規化の重みを 1 との差で持つ。大きな語彙を入出力で共有し、頭は 256 と広い。",
    "Embeddings times √D, norm weights kept as their distance from one; a large vocabulary shared by both ends, wide heads of 256.",
)
EQUATION = "x ← √D E[t];  x ← x + O·attend(rot(Q n(x)), rot(K n(x)), V n(x));  x ← x + D(gelu(G n(x)) · U n(x))"
PAPER = "Gemma Team 2024, Gemma: Open Models Based on Gemini Research and Technology"
PUBLIC = {
    "Gemma 2B": "2048 × 18, H 8, K 1, E 256, F 16384, V 256000, tied",
    "Gemma 7B": "3072 × 28, H 16, K 16, E 256, F 24576, V 256000, tied",
}
PREFIX = _like_llama.PREFIX
ALWAYS = {"norm": "rms_norm_offset", "hidden_act": "gelu_pytorch_tanh", "embedding_multiplier": None}
USUAL: dict[str, Any] = {**ALWAYS, "tie_word_embeddings": True, "norm_eps": 1e-6}  # sizes of heads are a recipe's own
SAID = {**every(Shape, *_like_llama.SIZES, "attention_bias"), **ALWAYS}


def shape(config: Mapping[str, Any]) -> Shape:
    fields = Fields(config)
    activation(fields)
    found = _like_llama.sizes(fields, longest=8192, keys=16, head=256, tied=True)
    choices = {
        **found,
        **ALWAYS,
        **_like_llama.rotary(fields, found["max_position_embeddings"]),
        "attention_bias": fields.flag("attention_bias", False),
    }
    fields.done()
    return Shape(**choices)


def activation(fields: Fields) -> None:
    """ "gelu" is what the first config.json of Gemma said of the same function. Gemma that sees the whole text is refused."""
    fields.must_be("hidden_act", "gelu_pytorch_tanh", "gelu")
    fields.must_be("hidden_activation", "gelu_pytorch_tanh", None)
    fields.must_be("use_bidirectional_attention", None, False)
    fields.optional("cache_implementation")  # how transformers keeps what came before


def config(shape: Shape) -> dict[str, Any]:
    said(shape, SAID, MODEL_TYPE)
    return {
        **_like_llama.config(shape, MODEL_TYPE, ARCHITECTURE),
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": shape.attention_bias,
    }


def names(shape: Shape) -> dict[str, str]:
    return _like_llama.names(shape)
