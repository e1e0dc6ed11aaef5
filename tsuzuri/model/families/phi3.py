"""Phi-3 and Phi-4 (Abdin et al. 2024): LLaMA with fused projections; a factor for each frequency, other ones for long texts.

x ← x + O · attend(rotate(Q n(x)), rotate(K n(x)), V n(x));   x ← x + D (silu(G n(x)) · U n(x));   Q, K, V and G, U one tensor each
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import _like_llama, _rotary
from tsuzuri.model.families._fields import Fields, every, said
from tsuzuri.model.families._packed import Packed, stacked
from tsuzuri.model.transformer import Shape

MODEL_TYPE = "phi3"
ARCHITECTURE = "Phi3ForCausalLM"
SPECIAL = Words(
    "教科書のようなデータで学んだ小さなモデル。周波数ごとの係数（LongRoPE）を、元の長さを超えたところで切り替える。",
    "Small models taught from textbook-like data; a factor for each rotary frequency (LongRoPE), others beyond the first length.",
)
EQUATION = "x ← x + O·attend(rot(Q n(x)), rot(K n(x)), V n(x));  x ← x + D(silu(G n(x)) · U n(x))"
PAPER = "Abdin et al. 2024, Phi-3 Technical Report; Phi-4 Technical Report; Ding et al. 2024, LongRoPE"
PUBLIC = {
    "Phi-3 mini 4k": "3072 × 32, H 32, K 32, F 8192, V 32064, W 2047",
    "Phi-3 mini 128k": "3072 × 32, H 32, K 32, F 8192, V 32064, longrope 4096 → 131072",
    "Phi-4 mini": "3072 × 32, H 24, K 8, F 8192, V 200064, longrope 4096 → 131072, 3/4 of a head turn, tied",
    "Phi-4": "5120 × 40, H 40, K 10, F 17920, V 100352",
}
PREFIX = _like_llama.PREFIX
USUAL: dict[str, Any] = {}
SAID = every(Shape, *_like_llama.SIZES, "partial_rotary_factor", "sliding_window")
ORIGINAL = "original_max_position_embeddings"


def shape(config: Mapping[str, Any]) -> Shape:
    fields = Fields(longrope(config))
    fields.must_be("hidden_act", "silu", "swish")
    for name in ("attention_bias", "mlp_bias", "lm_head_bias"):
        fields.must_be(name, False)
    for name in ("full_attn_mod", "interpolate_factor"):
        fields.must_be(name, 1)
    fields.optional(ORIGINAL)  # it stands in the scaling now, and without one has no effect
    found = _like_llama.sizes(fields, longest=4096, eps=1e-5)
    rotary = _rotary.read(fields, found["max_position_embeddings"])
    if rotary.scaling is not None and rotary.scaling.rope_type != "longrope":
        kind = rotary.scaling.rope_type
        raise fields.wrong(
            "rope_scaling", Words(f"{kind} です。計算できるのは longrope です。", f"It is {kind}; longrope can be computed.")
        )
    choices = {
        **found,
        "rope_theta": rotary.theta,
        "rope_scaling": rotary.scaling,
        "partial_rotary_factor": rotary.share,
        "sliding_window": _like_llama.window(fields),
    }
    fields.done()
    return Shape(**choices)


def longrope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same with the original length inside the scaling, where others have it; "yarn" and "su" are earlier words for longrope."""
    name = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    given = config.get(name)
    kind = given.get("rope_type", given.get("type", "default")) if isinstance(given, Mapping) else None
    if not isinstance(given, Mapping) or kind in (None, "default"):
        return config
    kept = {key: value for key, value in given.items() if key != "type"}
    if config.get(ORIGINAL) is not None or ORIGINAL not in given:
        kept[ORIGINAL] = config.get(ORIGINAL) or 4096
    return {**config, name: {**kept, "rope_type": "longrope" if kind in ("yarn", "su") else kind}}


def config(shape: Shape) -> dict[str, Any]:
    said(shape, SAID, MODEL_TYPE)
    scaling = shape.rope_scaling
    if scaling is not None and scaling.rope_type != "longrope":
        said(shape, {"rope_scaling": None}, MODEL_TYPE)
    original = scaling.original_max_position_embeddings if scaling else shape.max_position_embeddings
    return {
        **_like_llama.config(shape, MODEL_TYPE, ARCHITECTURE),
        "hidden_act": "silu",
        "sliding_window": shape.sliding_window,
        "partial_rotary_factor": shape.partial_rotary_factor,
        "pad_token_id": None,  # otherwise 32000, which a smaller vocabulary does not have
        "eos_token_id": None,
        ORIGINAL: original,
    }


def names(shape: Shape) -> dict[str, str]:
    fused = {ours for each in packed(shape) for ours in each.ours}
    return {ours: theirs for ours, theirs in _like_llama.names(shape).items() if ours not in fused}


def packed(shape: Shape) -> list[Packed]:
    found = []
    queries, keys, inner = shape.num_attention_heads * shape.head_size, shape.kv_heads * shape.head_size, shape.intermediate_size
    for layer in range(shape.num_hidden_layers):
        ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
        heads = [f"{ours}.mixer.{name}.weight" for name in ("query", "key", "value")]
        found.append(stacked(f"{theirs}.self_attn.qkv_proj.weight", heads, (queries, keys, keys)))
        gated = [f"{ours}.feedforward.{name}.weight" for name in ("gate", "up")]
        found.append(stacked(f"{theirs}.mlp.gate_up_proj.weight", gated, (inner, inner)))
    return found
