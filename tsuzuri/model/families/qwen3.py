"""Qwen 3 (Yang et al. 2025): Qwen 2 without biases; queries and keys of each head are normalised before they turn.

x ← x + O · attend(rotate(n(Q n(x))), rotate(n(K n(x))), V n(x));   x ← x + D (silu(G n(x)) · U n(x))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import _like_llama, qwen2
from tsuzuri.model.families._fields import Fields, every, said
from tsuzuri.model.transformer import Shape

MODEL_TYPE = "qwen3"
ARCHITECTURE = "Qwen3ForCausalLM"
SPECIAL = Words(
    "頭ごとにクエリとキーを正規化してから回す。点数が膨らまず、低い精度でも学習が安定する。",
    "Queries and keys are normalised head by head before they turn: scores cannot grow, and training is steady in low precision.",
)
EQUATION = "x ← x + O·attend(rot(n(Q n(x))), rot(n(K n(x))), V n(x));  x ← x + D(silu(G n(x)) · U n(x))"
PAPER = "Yang et al. 2025, Qwen3 Technical Report; Henry et al. 2020 (QK-norm)"
PUBLIC = {
    "Qwen3 0.6B": "1024 × 28, H 16, K 8, E 128, F 3072, V 151936, tied",
    "Qwen3 8B": "4096 × 36, H 32, K 8, E 128, F 12288, V 151936",
    "Qwen3 32B": "5120 × 64, H 64, K 8, E 128, F 25600, V 151936",
}
PREFIX = _like_llama.PREFIX
USUAL: dict[str, Any] = {"qk_norm": "head", "rope_theta": 1e6, "norm_eps": 1e-6}  # sizes of heads are a recipe's own
SAID = {**every(Shape, *_like_llama.SIZES, "layer_types", "sliding_window", "attention_bias"), "qk_norm": "head"}


def shape(config: Mapping[str, Any]) -> Shape:
    fields = Fields(config)
    fields.must_be("hidden_act", "silu", "swish")
    found = _like_llama.sizes(fields, longest=32768, head=128)
    choices = {
        **found,
        **_like_llama.rotary(fields, found["max_position_embeddings"]),
        **qwen2.windows(fields, found["num_hidden_layers"]),
        "qk_norm": "head",
        "attention_bias": fields.flag("attention_bias", False),
    }
    fields.done()
    return Shape(**choices)


def config(shape: Shape) -> dict[str, Any]:
    said(shape, SAID, MODEL_TYPE)
    return {
        **_like_llama.config(shape, MODEL_TYPE, ARCHITECTURE),
        "hidden_act": "silu",
        **qwen2.said_windows(shape),
        "attention_bias": shape.attention_bias,
    }


def names(shape: Shape) -> dict[str, str]:
    return _like_llama.names(shape)
