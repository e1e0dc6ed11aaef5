"""Qwen 2 and 2.5 (Yang et al. 2024): LLaMA with biases on queries, keys and values alone; upper layers may slide.

x ← x + O · attend(rotate(Q n(x) + b), rotate(K n(x) + b), V n(x) + b);   x ← x + D (silu(G n(x)) · U n(x))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import _like_llama
from tsuzuri.model.families._fields import Fields, every, said
from tsuzuri.model.transformer import DEEPEST, Shape

MODEL_TYPE = "qwen2"
ARCHITECTURE = "Qwen2ForCausalLM"
SPECIAL = Words(
    "LLaMA の形で、クエリ・キー・バリューにだけバイアスを持つ。多くの言語と長い文脈に合わせた語彙と回転位置。",
    "LLaMA with biases on queries, keys and values alone; vocabulary and rotary base for many languages and long texts.",
)
EQUATION = "x ← x + O·attend(rot(Q n(x) + b_q), rot(K n(x) + b_k), V n(x) + b_v);  x ← x + D(silu(G n(x)) · U n(x))"
PAPER = "Yang et al. 2024, Qwen2 Technical Report; Qwen2.5 Technical Report"
PUBLIC = {
    "Qwen2.5 0.5B": "896 × 24, H 14, K 2, F 4864, V 151936, tied",
    "Qwen2.5 7B": "3584 × 28, H 28, K 4, F 18944, V 152064",
    "Qwen2.5 72B": "8192 × 80, H 64, K 8, F 29568, V 152064",
}
PREFIX = _like_llama.PREFIX
BIASES = {"attention_bias": True, "attention_output_bias": False}
USUAL: dict[str, Any] = {**BIASES, "rope_theta": 1e6, "norm_eps": 1e-6}
SAID = {**every(Shape, *_like_llama.SIZES, "layer_types", "sliding_window"), **BIASES}


def shape(config: Mapping[str, Any]) -> Shape:
    fields = Fields(config)
    fields.must_be("hidden_act", "silu", "swish")
    fields.must_be("use_mrope", False)
    found = _like_llama.sizes(fields, longest=32768)
    choices = {
        **found,
        **BIASES,
        **_like_llama.rotary(fields, found["max_position_embeddings"]),
        **windows(fields, found["num_hidden_layers"]),
    }
    fields.done()
    return Shape(**choices)


def windows(fields: Fields, layers: int) -> dict[str, Any]:
    """Qwen's way to say it: if at all, layers from `max_window_layers` on slide, where `layer_types` says nothing else."""
    window = _like_llama.window(fields) if "sliding_window" in fields.config else 4096
    window = window if fields.flag("use_sliding_window", False) else None
    full = int(fields.amount("max_window_layers", 28)) if window else layers
    bottom = min(full, layers, DEEPEST)
    usual = ["full_attention"] * bottom + ["sliding_attention"] * max(0, min(layers, DEEPEST) - bottom)
    fields.optional("max_window_layers")
    return _like_llama.windows(fields, layers, window, usual)


def said_windows(shape: Shape) -> dict[str, Any]:
    types = _like_llama.layer_types(shape)
    first = types.index("sliding_attention") if "sliding_attention" in types else len(types)
    return {
        "use_sliding_window": shape.sliding_window is not None,
        "sliding_window": shape.sliding_window,
        "max_window_layers": first,
        "layer_types": types,
    }


def config(shape: Shape) -> dict[str, Any]:
    said(shape, SAID, MODEL_TYPE)
    return {**_like_llama.config(shape, MODEL_TYPE, ARCHITECTURE), "hidden_act": "silu", **said_windows(shape)}


def names(shape: Shape) -> dict[str, str]:
    return _like_llama.names(shape)
