"""OLMo 2 (OLMo Team 2024): the norm stands after each sub-layer, inside the residual branch; queries and keys are normalised
over all heads of a token. Data, code and every checkpoint of its training are public.

    x ← x + n(O · attend(rotate(n(Q x)), rotate(n(K x)), V x));   x ← x + n(D (silu(G x) · U x))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import _like_llama
from tsuzuri.model.families._fields import Fields, every, said
from tsuzuri.model.transformer import Shape

MODEL_TYPE = "olmo2"
ARCHITECTURE = "Olmo2ForCausalLM"
SPECIAL = Words(
    "小層のあとで正規化し、クエリとキーも正規化して、学習の乱れを抑える。データもコードも途中の重みも公開されている。",
    "Norms after each sub-layer and on queries and keys keep training steady; data, code and every checkpoint are public.",
)
EQUATION = "x ← x + n(O·attend(rot(n(Q x)), rot(n(K x)), V x));  x ← x + n(D(silu(G x) · U x))"
PAPER = "OLMo Team 2024, 2 OLMo 2 Furious"
PUBLIC = {
    "OLMo 2 1B": "2048 × 16, H 16, K 16, F 8192, V 100352",
    "OLMo 2 7B": "4096 × 32, H 32, K 32, F 11008, V 100352",
    "OLMo 2 32B": "5120 × 64, H 40, K 8, F 27648, V 100352",
}
PREFIX = _like_llama.PREFIX
NORMS = {"mixer_norm": "post_attention_layernorm", "feedforward_norm": "post_feedforward_layernorm"}
ALWAYS = {"block": "reordered_norm", "qk_norm": "token"}
USUAL: dict[str, Any] = {**ALWAYS, "rope_theta": 500000.0, "norm_eps": 1e-6}
SAID = {**every(Shape, *_like_llama.SIZES, "attention_bias"), **ALWAYS}


def shape(config: Mapping[str, Any]) -> Shape:
    fields = Fields(config)
    fields.must_be("hidden_act", "silu", "swish")
    found = _like_llama.sizes(fields, longest=2048, eps=1e-5)
    choices = {
        **found,
        **ALWAYS,
        **_like_llama.rotary(fields, found["max_position_embeddings"]),
        "attention_bias": fields.flag("attention_bias", False),
    }
    fields.done()
    return Shape(**choices)


def config(shape: Shape) -> dict[str, Any]:
    said(shape, SAID, MODEL_TYPE)
    return {
        **_like_llama.config(shape, MODEL_TYPE, ARCHITECTURE),
        "hidden_act": "silu",
        "attention_bias": shape.attention_bias,
        "eos_token_id": None,  # otherwise 50279, which a smaller vocabulary does not have
    }


def names(shape: Shape) -> dict[str, str]:
    return _like_llama.names(shape, NORMS)
