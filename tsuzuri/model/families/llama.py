"""LLaMA (Touvron et al. 2023): pre-norm RMSNorm, rotary positions, SwiGLU, grouped queries from version 2 on, no biases.

    x ← x + O · attend(rotate(Q n(x)), rotate(K n(x)), V n(x));   x ← x + D (silu(G n(x)) · U n(x))

The default family of what we train, because everything else can load it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import ConfigError, Words
from tsuzuri.model.families._fields import Fields
from tsuzuri.model.transformer import Shape

MODEL_TYPE = "llama"
ARCHITECTURE = "LlamaForCausalLM"
SAID = {
    "attention": "attention",
    "feedforward": "swiglu",
    "norm": "rms_norm",
    "position": "rotary",
    "qk_norm": False,
    "sliding_window": None,
}


def shape(config: Mapping[str, Any]) -> Shape:
    fields = Fields(config)
    fields.must_be("hidden_act", "silu", "swish")
    heads, size = fields.whole("num_attention_heads"), fields.whole("hidden_size")
    found = Shape(
        vocab_size=fields.whole("vocab_size"),
        hidden_size=size,
        num_hidden_layers=fields.whole("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=fields.whole("num_key_value_heads", heads),
        head_dim=fields.whole("head_dim", max(1, size // heads)),
        intermediate_size=fields.whole("intermediate_size"),
        max_position_embeddings=fields.whole("max_position_embeddings", 2048),
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope_theta=_theta(fields),
        attention_bias=fields.flag("attention_bias", False),
        mlp_bias=fields.flag("mlp_bias", False),
        tie_word_embeddings=fields.flag("tie_word_embeddings", False),
    )
    fields.done()
    return found


def _theta(fields: Fields) -> float:
    """The base of the rotary frequencies, where version 4 (`rope_theta`) or version 5 (`rope_parameters`) puts it."""
    theta, scaling, inner = fields.number("rope_theta", 10000.0), fields.optional("rope_scaling"), fields.optional("rope_parameters")
    for value in (scaling, inner):
        if value is None:
            continue
        if (
            not isinstance(value, Mapping)
            or value.get("rope_type", value.get("type", "default")) != "default"
            or set(value) - {"rope_type", "type", "rope_theta"}
        ):
            raise fields.wrong(
                "rope_scaling",
                Words(f"{value!r} です。この rope_scaling には対応していません。", f"It is {value!r}; this scaling cannot be computed."),
            )
        theta = Fields({**value, "model_type": MODEL_TYPE}).number("rope_theta", theta)
    return theta


def config(shape: Shape) -> dict[str, Any]:
    for name, value in SAID.items():
        if getattr(shape, name) != value:
            raise ConfigError(
                Words("モデルを llama として書き出そうとしました。", "Writing the model as llama."),
                found=Words(
                    f"{name} が {getattr(shape, name)!r} です。llama では {value!r} に限ります。",
                    f"{name} is {getattr(shape, name)!r}; llama has {value!r}.",
                ),
                todo=Words(
                    "family を tsuzuri にするか、形を llama に合わせてください。",
                    "Use the family tsuzuri, or give the model llama's shape.",
                ),
            )
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
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
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
        table[f"{ours}.attention_norm.weight"] = f"{theirs}.input_layernorm.weight"
        table[f"{ours}.feedforward_norm.weight"] = f"{theirs}.post_attention_layernorm.weight"
        for kind in ["weight"] + ["bias"] * shape.attention_bias:
            for our, their in zip(("query", "key", "value", "output"), "qkvo", strict=True):
                table[f"{ours}.attention.{our}.{kind}"] = f"{theirs}.self_attn.{their}_proj.{kind}"
        for kind in ["weight"] + ["bias"] * shape.mlp_bias:
            for our in ("gate", "up", "down"):
                table[f"{ours}.feedforward.{our}.{kind}"] = f"{theirs}.mlp.{our}_proj.{kind}"
    return table
