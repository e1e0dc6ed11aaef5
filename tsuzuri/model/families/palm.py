"""PaLM (Chowdhery et al. 2022, section 2): parallel blocks with one norm, one key for all heads, SwiGLU, rotary positions, no bias at all.

    n = norm(x);   x ← x + O · attend(rotate(Q n), rotate(K n), V n) + D (silu(G n) · U n)

The norms have no bias either. The head is the embedding, and in the paper logits are divided by √D (section 5): `logit_scale`.
The weights were never published; the config.json here is in the words that others use for the same things.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import _rotary
from tsuzuri.model.families._fields import Fields, every, said
from tsuzuri.model.transformer import Shape

MODEL_TYPE = "palm"
SPECIAL = Words(
    "並列ブロック、全ヘッド共通のキー、SwiGLU、バイアスなし。5400 億パラメータまで同じ形で大きくした。重みは公開されていない。",
    "Parallel blocks, one key for all heads, SwiGLU and no biases, scaled to 540 billion parameters. The weights were never published.",
)
EQUATION = "n = norm(x);  x ← x + O·attend(rot(Q n), rot(K n), V n) + D(silu(G n) · U n)"
PAPER = "Chowdhery et al. 2022, PaLM: Scaling Language Modeling with Pathways"
PUBLIC = {
    "PaLM 8B": "4096 × 32, H 16, E 256, F 16384, V 256k",
    "PaLM 62B": "8192 × 64, H 32, E 256, F 32768, V 256k",
    "PaLM 540B": "18432 × 118, H 48, E 256, F 73728, V 256k",
}
USUAL: dict[str, Any] = {
    "block": "parallel_one_norm", "num_key_value_heads": 1, "norm": "layer_norm_scale", "tie_word_embeddings": True,
}  # fmt: skip
VARYING = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "head_dim", "intermediate_size",
    "max_position_embeddings", "norm_eps", "rope_theta", "rope_scaling", "partial_rotary_factor", "logit_multiplier",
)  # fmt: skip
SAID = every(Shape, *VARYING) | USUAL


def shape(config: Mapping[str, Any]) -> Shape:
    fields = Fields(config)
    fields.must_be("hidden_act", "silu", "swish")
    fields.must_be("num_key_value_heads", 1)
    fields.must_be("tie_word_embeddings", True)
    heads, size = fields.whole("num_attention_heads"), fields.whole("hidden_size")
    longest = fields.whole("max_position_embeddings", 2048)
    rotary = _rotary.read(fields, longest)
    found = Shape(
        **USUAL,
        vocab_size=fields.whole("vocab_size"),
        hidden_size=size,
        num_hidden_layers=fields.whole("num_hidden_layers"),
        num_attention_heads=heads,
        head_dim=fields.whole("head_dim", max(1, size // heads)),
        intermediate_size=fields.whole("intermediate_size", 4 * size),
        max_position_embeddings=longest,
        norm_eps=fields.number("layer_norm_eps", 1e-5),
        rope_theta=rotary.theta,
        rope_scaling=rotary.scaling,
        partial_rotary_factor=rotary.share,
        logit_multiplier=fields.number("logit_scale", size**-0.5),
    )
    fields.done()
    return found


def config(shape: Shape) -> dict[str, Any]:
    said(shape, SAID, MODEL_TYPE)
    return {
        "model_type": MODEL_TYPE,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": 1,
        "head_dim": shape.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": shape.max_position_embeddings,
        "layer_norm_eps": shape.norm_eps,
        **_rotary.write(shape),
        "logit_scale": shape.logit_multiplier,
        "tie_word_embeddings": True,
    }


def names(shape: Shape) -> dict[str, str]:
    table = {"embedding.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight"}
    for layer in range(shape.num_hidden_layers):
        ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
        table[f"{ours}.norm.weight"] = f"{theirs}.input_layernorm.weight"
        for our, their in zip(("query", "key", "value", "output"), "qkvo", strict=True):
            table[f"{ours}.mixer.{our}.weight"] = f"{theirs}.self_attn.{their}_proj.weight"
        for our in ("gate", "up", "down"):
            table[f"{ours}.feedforward.{our}.weight"] = f"{theirs}.mlp.{our}_proj.weight"
    return table
