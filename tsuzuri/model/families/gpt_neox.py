"""GPT-NeoX (Black et al. 2022), also Pythia and many Japanese models: attention and feed-forward side by side, a quarter of each head turns.

    x ← x + O · attend(rotate(Q n(x)), rotate(K n(x)), V n(x)) + D gelu(U m(x))        n, m: two norms of the same x

With use_parallel_residual false the two come one after the other, as in GPT-2. Queries, keys and values are stored in one
matrix, head by head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import _rotary
from tsuzuri.model.families._fields import ACTIVATIONS, Fields, every, one_key_each, said
from tsuzuri.model.families._packed import Packed, by_group
from tsuzuri.model.transformer import Shape

MODEL_TYPE = "gpt_neox"
ARCHITECTURE = "GPTNeoXForCausalLM"
SPECIAL = Words(
    "注意機構と順伝播層が同じ入力を読む並列ブロック。回転位置は各ヘッドの一部だけに掛ける。日本語の公開モデルにも多い。",
    "Parallel blocks: attention and feed-forward read the same input; only a part of each head turns. Many Japanese models have this shape.",
)
EQUATION = "x ← x + O·attend(rot(Q n(x)), rot(K n(x)), V n(x)) + D·gelu(U m(x))"
PAPER = "Black et al. 2022, GPT-NeoX-20B; Biderman et al. 2023, Pythia"
PUBLIC = {
    "Pythia 160M": "768 × 12, H 12, F 3072, V 50304, R 1/4",
    "GPT-NeoX 20B": "6144 × 44, H 64, F 24576, V 50432, R 1/4",
}
PREFIX = "gpt_neox."
DERIVED = (".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias")
TIED = ("embed_out.weight",)
WITHOUT_EFFECT = ("hidden_dropout", "classifier_dropout", "gradient_checkpointing")
USUAL: dict[str, Any] = {
    "block": "parallel", "feedforward": "plain", "norm": "layer_norm", "hidden_act": "gelu", "partial_rotary_factor": 0.25,
    "attention_bias": True, "mlp_bias": True,
}  # fmt: skip
VARYING = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size",
    "max_position_embeddings", "hidden_act", "norm_eps", "rope_theta", "rope_scaling", "partial_rotary_factor", "block",
    "attention_bias", "tie_word_embeddings",
)  # fmt: skip
SAID = every(Shape, *VARYING) | {name: value for name, value in USUAL.items() if name not in VARYING}


def shape(config: Mapping[str, Any]) -> Shape:
    fields = Fields(config)
    for name in WITHOUT_EFFECT:
        fields.optional(name)
    longest = fields.whole("max_position_embeddings", 2048)
    theta, share = fields.number("rotary_emb_base", 10000.0), fields.number("rotary_pct", 0.25)
    rotary = _rotary.read(fields, longest, theta=theta, share=share)
    found = Shape(
        **{name: value for name, value in USUAL.items() if name not in VARYING},
        vocab_size=fields.whole("vocab_size"),
        hidden_size=fields.whole("hidden_size"),
        num_hidden_layers=fields.whole("num_hidden_layers"),
        num_attention_heads=fields.whole("num_attention_heads"),
        intermediate_size=fields.whole("intermediate_size"),
        max_position_embeddings=longest,
        hidden_act=fields.choice("hidden_act", ACTIVATIONS, "gelu"),
        norm_eps=fields.number("layer_norm_eps", 1e-5),
        rope_theta=rotary.theta,
        rope_scaling=rotary.scaling,
        partial_rotary_factor=rotary.share,
        block="parallel" if fields.flag("use_parallel_residual", True) else "pre_norm",
        attention_bias=fields.flag("attention_bias", True),
        tie_word_embeddings=fields.flag("tie_word_embeddings", False),
    )
    fields.done()
    return found


def config(shape: Shape) -> dict[str, Any]:
    said(shape, SAID | one_key_each(shape), MODEL_TYPE)
    if shape.block != "pre_norm":
        said(shape, {"block": "parallel"}, MODEL_TYPE)
    rotary = _rotary.write(shape)
    rotary["rope_parameters"]["partial_rotary_factor"] = shape.partial_rotary_factor  # here 1 is not what a reader takes it for
    return {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "hidden_act": shape.hidden_act,
        "max_position_embeddings": shape.max_position_embeddings,
        "layer_norm_eps": shape.norm_eps,
        "rotary_emb_base": shape.rope_theta,
        "rotary_pct": shape.partial_rotary_factor,
        **rotary,
        "use_parallel_residual": shape.block == "parallel",
        "attention_bias": shape.attention_bias,
        "tie_word_embeddings": shape.tie_word_embeddings,
    }


def names(shape: Shape) -> dict[str, str]:
    table = {"embedding.weight": "gpt_neox.embed_in.weight"}
    table |= {f"norm.{kind}": f"gpt_neox.final_layer_norm.{kind}" for kind in ("weight", "bias")}
    if not shape.tie_word_embeddings:
        table["head.weight"] = "embed_out.weight"
    for layer in range(shape.num_hidden_layers):
        ours, theirs = f"blocks.{layer}", f"gpt_neox.layers.{layer}"
        for kind in ("weight", "bias"):
            table[f"{ours}.mixer_norm.{kind}"] = f"{theirs}.input_layernorm.{kind}"
            table[f"{ours}.feedforward_norm.{kind}"] = f"{theirs}.post_attention_layernorm.{kind}"
            table[f"{ours}.feedforward.up.{kind}"] = f"{theirs}.mlp.dense_h_to_4h.{kind}"
            table[f"{ours}.feedforward.down.{kind}"] = f"{theirs}.mlp.dense_4h_to_h.{kind}"
        for kind in ["weight"] + ["bias"] * shape.attention_bias:
            table[f"{ours}.mixer.output.{kind}"] = f"{theirs}.attention.dense.{kind}"
    return table


def packed(shape: Shape) -> list[Packed]:
    """Of each head its queries, its keys, its values."""
    found = []
    for layer in range(shape.num_hidden_layers):
        for kind in ["weight"] + ["bias"] * shape.attention_bias:
            ours = [f"blocks.{layer}.mixer.{side}.{kind}" for side in ("query", "key", "value")]
            theirs = f"gpt_neox.layers.{layer}.attention.query_key_value.{kind}"
            found.append(by_group(theirs, ours, (1, 1, 1), shape.num_attention_heads, shape.head_size))
    return found
