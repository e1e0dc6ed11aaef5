"""Falcon (Almazrouei et al. 2023): parallel blocks without biases, one key for all heads (7B) or for a group of them (40B, 11B, 180B).

    7B    x ← x + O · attend(rotate(Q n(x)), rotate(K n(x)), V n(x)) + D gelu(U n(x))
    40B   the same with a norm for each sub-layer        11B   grouped keys, one norm
    RW    x ← x + O · attend(Q n(x), K n(x), V n(x));  x ← x + D gelu(U m(x))   with ALiBi in bfloat16, biases, a key for each head

Queries, keys and values are stored in one matrix, group by group.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import _rotary
from tsuzuri.model.families._fields import ACTIVATIONS, Fields, every, one_key_each, said
from tsuzuri.model.families._packed import Packed, by_group
from tsuzuri.model.transformer import Shape

MODEL_TYPE = "falcon"
ARCHITECTURE = "FalconForCausalLM"
SPECIAL = Words(
    "並列ブロックとマルチクエリ注意。キーと値を全ヘッドか組ごとに共有し、生成時の記憶を小さくした。RW は ALiBi を使う。",
    "Parallel blocks and multi-query attention: heads share keys and values, all or by group, which keeps little in memory. RW has ALiBi.",
)
EQUATION = "x ← x + O·attend(rot(Q n(x)), rot(K n(x)), V n(x)) + D·gelu(U n(x))"
PAPER = "Almazrouei et al. 2023, The Falcon Series of Open Language Models; Penedo et al. 2023 (RW)"
PUBLIC = {
    "Falcon 7B": "4544 × 32, H 71, K 1, F 18176, V 65024",
    "Falcon 40B": "8192 × 60, H 128, K 8, F 32768, V 65024, two norms",
    "Falcon2 11B": "4096 × 60, H 32, K 8, F 16384, V 65024",
    "Falcon RW 1B": "2048 × 24, H 32, F 8192, V 50304, ALiBi",
}
PREFIX = "transformer."
WITHOUT_EFFECT = ("hidden_dropout", "ff_factor", "gradient_checkpointing")
USUAL: dict[str, Any] = {
    "block": "parallel_one_norm", "num_key_value_heads": 1, "feedforward": "plain", "norm": "layer_norm", "hidden_act": "gelu",
    "tie_word_embeddings": True,
}  # fmt: skip
VARYING = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size",
    "max_position_embeddings", "hidden_act", "norm_eps", "position", "rope_theta", "rope_scaling", "block", "attention_bias", "mlp_bias",
    "tie_word_embeddings",
)  # fmt: skip
SAID = every(Shape, *VARYING) | {name: value for name, value in USUAL.items() if name not in VARYING}


def shape(config: Mapping[str, Any]) -> Shape:
    fields = Fields(config)
    for name in WITHOUT_EFFECT:
        fields.optional(name)
    fields.must_be("apply_residual_connection_post_layernorm", False)
    size, heads = fields.whole("hidden_size", 4544), fields.whole("num_attention_heads", 71)
    if fields.optional("n_embed") is not None:
        size = fields.whole("n_embed")
    longest = fields.whole("max_position_embeddings", 2048)
    rotary = _rotary.read(fields, longest)
    if rotary.share != 1:
        raise fields.wrong("partial_rotary_factor", Words(f"{rotary.share} です。", f"It is {rotary.share}; the whole head turns."))
    block, keys = _layout(fields, heads)
    bias = fields.flag("bias", False)
    found = Shape(
        **{name: value for name, value in USUAL.items() if name not in VARYING},
        vocab_size=fields.whole("vocab_size", 65024),
        hidden_size=size,
        num_hidden_layers=fields.whole("num_hidden_layers", 32),
        num_attention_heads=heads,
        num_key_value_heads=keys,
        intermediate_size=fields.whole("ffn_hidden_size", 4 * size),
        max_position_embeddings=longest,
        hidden_act=fields.choice("activation", ACTIVATIONS, "gelu"),
        norm_eps=fields.number("layer_norm_epsilon", 1e-5),
        position="alibi_bfloat16" if fields.flag("alibi", False) else "rotary",
        rope_theta=rotary.theta,
        rope_scaling=rotary.scaling,
        block=block,
        attention_bias=bias,
        mlp_bias=bias,
        tie_word_embeddings=fields.flag("tie_word_embeddings", True),
    )
    fields.done()
    return found


def _layout(fields: Fields, heads: int) -> tuple[str, int]:
    """The block, and how many heads have keys."""
    for name in ("new_decoder_architecture", "parallel_attn", "multi_query", "bias", "alibi"):
        fields.must_be(name, True, False)  # null would be false there, whatever the default
    new, parallel = fields.flag("new_decoder_architecture", False), fields.flag("parallel_attn", True)
    one, keys = fields.flag("multi_query", True), fields.whole("num_kv_heads", heads)
    norms = fields.whole("num_ln_in_parallel_attn", 2 if new else 1)
    if new and not parallel:
        raise fields.wrong("parallel_attn", Words("新しい構造の層は並列に限ります。", "Layers of the new architecture are parallel."))
    if parallel and not 1 <= norms <= (2 if new else 1):
        raise fields.wrong("num_ln_in_parallel_attn", Words(f"{norms} です。", f"It is {norms}, which no such layer has."))
    if not new and not one and keys != heads:
        raise fields.wrong(
            "num_kv_heads",
            Words(f"{keys} です。ヘッドの数 {heads} と同じはずです。", f"It is {keys}, not the number of heads, {heads}."),
        )
    block = "pre_norm" if not parallel else "parallel" if norms == 2 else "parallel_one_norm"
    return block, keys if new or not one else 1


def config(shape: Shape) -> dict[str, Any]:
    said(shape, SAID | {name: value for name, value in one_key_each(shape).items() if name != "num_key_value_heads"}, MODEL_TYPE)
    said(shape, {"mlp_bias": shape.attention_bias}, MODEL_TYPE)
    heads, keys = shape.num_attention_heads, shape.kv_heads
    if shape.block not in ("pre_norm", "parallel"):
        said(shape, {"block": "parallel_one_norm"}, MODEL_TYPE)
    if shape.block == "pre_norm" and keys != heads:
        said(shape, {"num_key_value_heads": 1}, MODEL_TYPE)
    if shape.position != "rotary":
        said(shape, {"position": "alibi_bfloat16"}, MODEL_TYPE)
    new = shape.block == "parallel" or 1 < keys < heads
    return {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "ffn_hidden_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": heads,
        "num_kv_heads": keys if new else heads,
        "new_decoder_architecture": new,
        "num_ln_in_parallel_attn": 2 if shape.block == "parallel" else 1,
        "multi_query": keys == 1,
        "parallel_attn": shape.block != "pre_norm",
        "bias": shape.attention_bias,
        "activation": shape.hidden_act,
        "alibi": shape.position == "alibi_bfloat16",
        "max_position_embeddings": shape.max_position_embeddings,
        "layer_norm_epsilon": shape.norm_eps,
        **_rotary.write(shape),
        "tie_word_embeddings": shape.tie_word_embeddings,
    }


def names(shape: Shape) -> dict[str, str]:
    table = {"embedding.weight": "transformer.word_embeddings.weight"}
    table |= {f"norm.{kind}": f"transformer.ln_f.{kind}" for kind in ("weight", "bias")}
    if not shape.tie_word_embeddings:
        table["head.weight"] = "lm_head.weight"
    norms = {
        "pre_norm": {"mixer_norm": "input_layernorm", "feedforward_norm": "post_attention_layernorm"},
        "parallel": {"mixer_norm": "ln_attn", "feedforward_norm": "ln_mlp"},
        "parallel_one_norm": {"norm": "input_layernorm"},
    }[shape.block]
    for layer in range(shape.num_hidden_layers):
        ours, theirs = f"blocks.{layer}", f"transformer.h.{layer}"
        for kind in ("weight", "bias"):
            table |= {f"{ours}.{our}.{kind}": f"{theirs}.{their}.{kind}" for our, their in norms.items()}
        for kind in ["weight"] + ["bias"] * shape.attention_bias:
            table[f"{ours}.mixer.output.{kind}"] = f"{theirs}.self_attention.dense.{kind}"
            table[f"{ours}.feedforward.up.{kind}"] = f"{theirs}.mlp.dense_h_to_4h.{kind}"
            table[f"{ours}.feedforward.down.{kind}"] = f"{theirs}.mlp.dense_4h_to_h.{kind}"
    return table


def packed(shape: Shape) -> list[Packed]:
    """Of each group the queries of its heads, then its key, then its value."""
    found, keys = [], shape.kv_heads
    for layer in range(shape.num_hidden_layers):
        for kind in ["weight"] + ["bias"] * shape.attention_bias:
            ours = [f"blocks.{layer}.mixer.{side}.{kind}" for side in ("query", "key", "value")]
            theirs = f"transformer.h.{layer}.self_attention.query_key_value.{kind}"
            found.append(by_group(theirs, ours, (shape.num_attention_heads // keys, 1, 1), keys, shape.head_size))
    return found
