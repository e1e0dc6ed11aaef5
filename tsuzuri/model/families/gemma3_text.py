"""Gemma 3, its language model (Gemma Team 2025): Gemma 2 with normed queries and keys for caps; five layers slide for one that
sees everything, and only that one turns slowly enough for long texts.

    x ← x + n(O · attend(rotate_θ(n(Q n(x))), rotate_θ(n(K n(x))), V n(x)));   θ = 10⁴ in a window, 10⁶ and scaled elsewhere
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import _like_llama, _rotary, gemma, gemma2
from tsuzuri.model.families._fields import Fields, every, said
from tsuzuri.model.transformer import Shape

MODEL_TYPE = "gemma3_text"
ARCHITECTURE = "Gemma3ForCausalLM"
SPECIAL = Words(
    "窓の層五つごとに全体を見る層が一つ。長い文脈でもキャッシュが小さく、回転の速さは層の種類ごとに違う。",
    "One layer in six sees everything, the others a window: a small cache for long texts, and rotary speeds of their own.",
)
EQUATION = "x ← x + n(O·attend(rot_θ(n(Q n(x))), rot_θ(n(K n(x))), V n(x)));  x ← x + n(D(gelu(G n(x)) · U n(x)))"
PAPER = "Gemma Team 2025, Gemma 3 Technical Report"
PUBLIC = {
    "Gemma 3 270M": "640 × 18, H 4, K 1, E 256, F 2048, V 262144, W 512, tied",
    "Gemma 3 1B": "1152 × 26, H 4, K 1, E 256, F 6912, V 262144, W 512, tied",
    "Gemma 3 27B (text)": "5376 × 62, H 32, K 16, E 128, F 21504, V 262208, W 1024, scores / √168, linear × 8, tied",
}
PREFIX = _like_llama.PREFIX
PATTERN = 6  # every sixth layer sees everything
ALWAYS = {**gemma2.ALWAYS, "qk_norm": "head"}
USUAL: dict[str, Any] = {
    **ALWAYS, "tie_word_embeddings": True, "norm_eps": 1e-6, "layer_types": ("sliding_attention",) * 5 + ("full_attention",),
    "sliding_window": 512, "rope_theta": 1e6, "rope_local_theta": 1e4,
}  # fmt: skip
OPEN = (*_like_llama.SIZES, "attention_bias", "attention_scale", "layer_types", "sliding_window", "final_logit_softcapping")
SAID = {**every(Shape, *OPEN, "rope_local_theta"), **ALWAYS}


def shape(config: Mapping[str, Any]) -> Shape:
    fields = Fields(config)
    gemma.activation(fields)
    fields.must_be("attn_logit_softcapping", None)  # transformers reads it and computes none
    found = _like_llama.sizes(fields, longest=131072, keys=4, head=256, tied=True)
    every_so_often = fields.whole("sliding_window_pattern", fields.whole("_sliding_window_pattern", PATTERN))
    usual = ["sliding_attention"] * (min(every_so_often, found["num_hidden_layers"] + 1) - 1) + ["full_attention"]
    window = _like_llama.window(fields) if "sliding_window" in config else 4096
    choices = {
        **found,
        **ALWAYS,
        **rotary(fields, found["max_position_embeddings"]),
        **_like_llama.windows(fields, found["num_hidden_layers"], window, usual),
        "attention_bias": fields.flag("attention_bias", False),
        "attention_scale": gemma2.scale(fields, found["head_dim"]),
        "final_logit_softcapping": gemma2.cap(fields, "final_logit_softcapping", None),
    }
    fields.done()
    return Shape(**choices)


def rotary(fields: Fields, longest: int) -> dict[str, Any]:
    """Version 4: rope_theta, rope_local_base_freq and a scaling for layers that see everything. Version 5: one mapping for each type."""
    local = fields.number("rope_local_base_freq", 10000.0)
    by_type = fields.config.get("rope_parameters")
    if not isinstance(by_type, Mapping) or not {*by_type} & {"full_attention", "sliding_attention"}:
        found = _rotary.read(fields, longest, theta=1e6)
        _like_llama.whole(fields, found.share)
        return {"rope_theta": found.theta, "rope_scaling": found.scaling, "rope_local_theta": local}
    fields.must_be("rope_scaling", None)
    fields.optional("rope_parameters")
    theta = fields.number("rope_theta", 1e6)
    kinds = {kind: by_type.get(kind) or {} for kind in ("full_attention", "sliding_attention")}
    if {*by_type} - {*kinds} or not all(isinstance(kind, Mapping) for kind in kinds.values()):
        raise fields.wrong("rope_parameters", Words(f"{by_type!r} です。", f"It is {by_type!r}."))
    everything = _rotary.of(fields, kinds["full_attention"], longest, theta=theta, share=1.0)
    sliding = _rotary.of(fields, kinds["sliding_attention"], longest, theta=local, share=1.0)
    if sliding.scaling is not None:
        raise fields.wrong("rope_parameters", Words("窓の層の回転は伸ばせません。", "Layers with a window have no scaling."))
    _like_llama.whole(fields, min(everything.share, sliding.share))
    return {"rope_theta": everything.theta, "rope_scaling": everything.scaling, "rope_local_theta": sliding.theta}


def config(shape: Shape) -> dict[str, Any]:
    said(shape, SAID, MODEL_TYPE)
    local = shape.rope_theta if shape.rope_local_theta is None else shape.rope_local_theta
    found = {
        **_like_llama.config(shape, MODEL_TYPE, ARCHITECTURE),
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": shape.attention_bias,
        "query_pre_attn_scalar": gemma2.scalar(shape, MODEL_TYPE),
        "layer_types": _like_llama.layer_types(shape),
        "sliding_window": shape.sliding_window or 4096,  # transformers wants one even where no layer slides
        "final_logit_softcapping": shape.final_logit_softcapping,
    }
    everything = found.pop("rope_parameters")
    found.pop("rope_scaling", None)  # of version 4, whose words for it version 5 would mix with these
    found["rope_local_base_freq"] = local
    found["rope_parameters"] = {"full_attention": everything, "sliding_attention": {"rope_type": "default", "rope_theta": local}}
    return found


def names(shape: Shape) -> dict[str, str]:
    return _like_llama.names(shape, gemma2.NORMS)
