"""LLaMA (Touvron et al. 2023): pre-norm RMSNorm, rotary positions, SwiGLU, grouped queries from version 2 on, no biases.

    x ← x + O · attend(rotate(Q n(x)), rotate(K n(x)), V n(x));   x ← x + D (silu(G n(x)) · U n(x))

The default family of what we train, because everything else can load it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import _like_llama
from tsuzuri.model.families._fields import Fields, every, said
from tsuzuri.model.transformer import Shape

MODEL_TYPE = "llama"
ARCHITECTURE = "LlamaForCausalLM"
SPECIAL = Words(
    "バイアスのない RMSNorm・SwiGLU・回転位置の組み合わせ。以後の多くのモデルがこの形を引き継いだ。",
    "RMSNorm, SwiGLU and rotary positions without biases: the shape that most later models started from.",
)
EQUATION = "x ← x + O·attend(rot(Q n(x)), rot(K n(x)), V n(x));  x ← x + D(silu(G n(x)) · U n(x))"
PAPER = "Touvron et al. 2023, LLaMA; Llama 2; Grattafiori et al. 2024, The Llama 3 Herd of Models"
PUBLIC = {
    "LLaMA 7B": "4096 × 32, H 32, K 32, F 11008, V 32000",
    "Llama 2 70B": "8192 × 80, H 64, K 8, F 28672, V 32000",
    "Llama 3.1 8B": "4096 × 32, H 32, K 8, F 14336, V 128256, llama3 × 8",
    "Llama 3.2 1B": "2048 × 16, H 32, K 8, F 8192, V 128256, tied",
}
PREFIX = _like_llama.PREFIX
USUAL: dict[str, Any] = {}
SAID = every(Shape, *_like_llama.SIZES, "attention_bias", "mlp_bias")  # all other fields are as the default says


def shape(config: Mapping[str, Any]) -> Shape:
    fields = Fields(config)
    fields.must_be("hidden_act", "silu", "swish")
    found = _like_llama.sizes(fields, longest=2048)
    choices = {
        **found,
        **_like_llama.rotary(fields, found["max_position_embeddings"]),
        "attention_bias": fields.flag("attention_bias", False),
        "mlp_bias": fields.flag("mlp_bias", False),
    }
    fields.done()
    return Shape(**choices)


def config(shape: Shape) -> dict[str, Any]:
    said(shape, SAID, MODEL_TYPE)
    return {
        **_like_llama.config(shape, MODEL_TYPE, ARCHITECTURE),
        "hidden_act": "silu",
        "attention_bias": shape.attention_bias,
        "mlp_bias": shape.mlp_bias,
    }


def names(shape: Shape) -> dict[str, str]:
    return _like_llama.names(shape)
