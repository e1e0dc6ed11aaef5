"""LLaMA (Touvron et al. 2023): pre-norm RMSNorm, rotary positions, SwiGLU, grouped queries from version 2 on, no biases.

    x ← x + O · attend(rotate(Q n(x)), rotate(K n(x)), V n(x));   x ← x + D (silu(G n(x)) · U n(x))

The default family of what we train, because everything else can load it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import _rotary
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
# Fields of `Shape` that this family leaves open; all others are as the default says.
VARYING = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size",
    "max_position_embeddings", "norm_eps", "rope_theta", "rope_scaling", "partial_rotary_factor", "attention_bias", "mlp_bias",
    "tie_word_embeddings",
)  # fmt: skip
SAID = every(Shape, *VARYING)
USUAL: dict[str, Any] = {}


def shape(config: Mapping[str, Any]) -> Shape:
    fields = Fields(config)
    fields.must_be("hidden_act", "silu", "swish")
    heads, size = fields.whole("num_attention_heads"), fields.whole("hidden_size")
    longest = fields.whole("max_position_embeddings", 2048)
    rotary = _rotary.read(fields, longest)
    found = Shape(
        vocab_size=fields.whole("vocab_size"),
        hidden_size=size,
        num_hidden_layers=fields.whole("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=fields.whole("num_key_value_heads", heads),
        head_dim=fields.whole("head_dim", max(1, size // heads)),
        intermediate_size=fields.whole("intermediate_size"),
        max_position_embeddings=longest,
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope_theta=rotary.theta,
        rope_scaling=rotary.scaling,
        partial_rotary_factor=rotary.share,
        attention_bias=fields.flag("attention_bias", False),
        mlp_bias=fields.flag("mlp_bias", False),
        tie_word_embeddings=fields.flag("tie_word_embeddings", False),
    )
    fields.done()
    return found


def config(shape: Shape) -> dict[str, Any]:
    said(shape, SAID, MODEL_TYPE)
    return {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": shape.max_position_embeddings,
        "rms_norm_eps": shape.norm_eps,
        **_rotary.write(shape),
        "attention_bias": shape.attention_bias,
        "mlp_bias": shape.mlp_bias,
        "tie_word_embeddings": shape.tie_word_embeddings,
    }


def names(shape: Shape) -> dict[str, str]:
    table = {"embedding.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight"}
    if not shape.tie_word_embeddings:
        table["head.weight"] = "lm_head.weight"
    for layer in range(shape.num_hidden_layers):
        ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
        table[f"{ours}.mixer_norm.weight"] = f"{theirs}.input_layernorm.weight"
        table[f"{ours}.feedforward_norm.weight"] = f"{theirs}.post_attention_layernorm.weight"
        for kind in ["weight"] + ["bias"] * shape.attention_bias:
            for our, their in zip(("query", "key", "value", "output"), "qkvo", strict=True):
                table[f"{ours}.mixer.{our}.{kind}"] = f"{theirs}.self_attn.{their}_proj.{kind}"
        for kind in ["weight"] + ["bias"] * shape.mlp_bias:
            for our in ("gate", "up", "down"):
                table[f"{ours}.feedforward.{our}.{kind}"] = f"{theirs}.mlp.{our}_proj.{kind}"
    return table
