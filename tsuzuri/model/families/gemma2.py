"""Gemma 2 (Gemma Team 2024): norms before and after each sub-layer, soft caps on scores and logits, every other layer slides.

x ← x + n(O · attend(…; c tanh(s / c)));   x ← x + n(D (gelu(G n(x)) · U n(x)));   logits ← c′ tanh(logits / c′)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import _like_llama, gemma
from tsuzuri.model.families._fields import Fields, every, said
from tsuzuri.model.transformer import Shape, impossible

MODEL_TYPE = "gemma2"
ARCHITECTURE = "Gemma2ForCausalLM"
SPECIAL = Words(
    "小層の前後で正規化し、注意の点数と出力を tanh で抑える。窓の層と全体を見る層が交互に並ぶ。",
    "Norms before and after each sub-layer, scores and logits bounded by a tanh, layers with a window and without in turn.",
)
EQUATION = "x ← x + n(O·attend(rot(Q n(x)), rot(K n(x)), V n(x); c·tanh(s/c)));  x ← x + n(D(gelu(G n(x)) · U n(x)))"
PAPER = "Gemma Team 2024, Gemma 2: Improving Open Language Models at a Practical Size"
PUBLIC = {
    "Gemma 2 2B": "2304 × 26, H 8, K 4, E 256, F 9216, V 256000, W 4096, tied",
    "Gemma 2 9B": "3584 × 42, H 16, K 8, E 256, F 14336, V 256000, W 4096, tied",
    "Gemma 2 27B": "4608 × 46, H 32, K 16, E 128, F 36864, V 256000, W 4096, scores / √144, tied",
}
PREFIX = _like_llama.PREFIX
PATTERN = ("sliding_attention", "full_attention")
NORMS = {
    "mixer_norm": "input_layernorm", "mixer_after": "post_attention_layernorm",
    "feedforward_norm": "pre_feedforward_layernorm", "feedforward_after": "post_feedforward_layernorm",
}  # fmt: skip
ALWAYS = {**gemma.ALWAYS, "block": "sandwich"}
USUAL: dict[str, Any] = {
    **ALWAYS, "tie_word_embeddings": True, "norm_eps": 1e-6, "layer_types": PATTERN, "sliding_window": 4096,
    "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
}  # fmt: skip
OPEN = (*_like_llama.SIZES, "attention_bias", "attention_scale", "layer_types", "sliding_window", "final_logit_softcapping")
SAID = {**every(Shape, *OPEN, "attn_logit_softcapping"), **ALWAYS}


def shape(config: Mapping[str, Any]) -> Shape:
    fields = Fields(config)
    gemma.activation(fields)
    found = _like_llama.sizes(fields, longest=8192, keys=4, head=256, tied=True)
    window = _like_llama.window(fields) if "sliding_window" in config else 4096
    fields.must_be("sliding_window_size", window)  # the same again, in some
    choices = {
        **found,
        **ALWAYS,
        **_like_llama.rotary(fields, found["max_position_embeddings"]),
        **_like_llama.windows(fields, found["num_hidden_layers"], window, PATTERN),
        "attention_bias": fields.flag("attention_bias", False),
        "attention_scale": scale(fields, found["head_dim"]),
        "attn_logit_softcapping": cap(fields, "attn_logit_softcapping", 50.0),
        "final_logit_softcapping": cap(fields, "final_logit_softcapping", 30.0),
    }
    fields.done()
    return Shape(**choices)


def cap(fields: Fields, name: str, default: float | None) -> float | None:
    """A soft cap; null is none."""
    value = fields.optional(name) if name in fields.config else default
    return None if value is None else fields.number(name, default)


def scale(fields: Fields, head: int) -> float | None:
    """1 / √query_pre_attn_scalar; None where that is the size of a head anyway."""
    scalar = fields.number("query_pre_attn_scalar", 256)
    return None if scalar == head else scalar**-0.5


def scalar(shape: Shape, family: str) -> int:
    """`query_pre_attn_scalar`, a whole number. Raises ConfigError where no whole number says it."""
    if shape.attention_scale is None:
        return shape.head_size
    found = round(shape.attention_scale**-2)
    if found < 1 or found**-0.5 != shape.attention_scale:
        value = shape.attention_scale
        raise impossible(
            "attention_scale",
            Words(f"{value} です。{family} では整数 n の 1/√n に限ります。", f"It is {value}; in {family} it is 1 / √n of a whole n."),
        )
    return found


def config(shape: Shape) -> dict[str, Any]:
    said(shape, SAID, MODEL_TYPE)
    return {
        **_like_llama.config(shape, MODEL_TYPE, ARCHITECTURE),
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": shape.attention_bias,
        "query_pre_attn_scalar": scalar(shape, MODEL_TYPE),
        "layer_types": _like_llama.layer_types(shape),
        "sliding_window": shape.sliding_window or 4096,  # transformers wants one even where no layer slides
        "attn_logit_softcapping": shape.attn_logit_softcapping,
        "final_logit_softcapping": shape.final_logit_softcapping,
    }


def names(shape: Shape) -> dict[str, str]:
    return _like_llama.names(shape, NORMS)
