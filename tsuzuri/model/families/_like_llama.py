"""What the descendants of LLaMA have in common: fields of config.json, which layers slide, names of weights.

In: the fields of a config.json, or a shape. Out: choices for `Shape`; a config.json; our weight name -> theirs.
What a family does differently stands in its own file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import _rotary
from tsuzuri.model.families._fields import Fields
from tsuzuri.model.parts._build import ATTENTION
from tsuzuri.model.transformer import DEEPEST, Shape

# Fields of `Shape` that all of them leave open.
SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size",
    "max_position_embeddings", "norm_eps", "rope_theta", "rope_scaling", "tie_word_embeddings",
)  # fmt: skip
PREFIX = "model."
# ours -> theirs, of a norm before each sub-layer
NORMS = {"mixer_norm": "input_layernorm", "feedforward_norm": "post_attention_layernorm"}


def sizes(
    fields: Fields, *, longest: int, eps: float = 1e-6, keys: int | None = None, head: int | None = None, tied: bool = False
) -> dict[str, Any]:
    """`SIZES` but for rotary positions. Arguments are what stands for a missing field: max_position_embeddings, rms_norm_eps,
    num_key_value_heads (None: as many as heads), head_dim (None: an equal share), tie_word_embeddings."""
    heads, size = fields.whole("num_attention_heads"), fields.whole("hidden_size")
    return {
        "vocab_size": fields.whole("vocab_size"),
        "hidden_size": size,
        "num_hidden_layers": fields.whole("num_hidden_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": fields.whole("num_key_value_heads", keys or heads),
        "head_dim": fields.whole("head_dim", head or max(1, size // heads)),
        "intermediate_size": fields.whole("intermediate_size"),
        "max_position_embeddings": fields.whole("max_position_embeddings", longest),
        "norm_eps": fields.number("rms_norm_eps", eps),
        "tie_word_embeddings": fields.flag("tie_word_embeddings", tied),
    }


def rotary(fields: Fields, longest: int, *, theta: float = 10000.0) -> dict[str, Any]:
    """The rest of `SIZES`: theta and scaling, of heads that turn wholly."""
    found = _rotary.read(fields, longest, theta=theta)
    whole(fields, found.share)
    return {"rope_theta": found.theta, "rope_scaling": found.scaling}


def whole(fields: Fields, share: float) -> None:
    """Raises ConfigError where only a share of a head turns: transformers does not compute that for these families."""
    if share != 1:
        raise fields.wrong(
            "partial_rotary_factor",
            Words(f"{share} です。この系統では頭全体が回ります。", f"It is {share}; in this family a whole head turns."),
        )


def windows(fields: Fields, layers: int, window: int | None, usual: Sequence[str]) -> dict[str, Any]:
    """`layer_types` and `sliding_window`: as the field says, or in the `usual` pattern, one for each of the layers."""
    types = fields.optional("layer_types")
    if types is None:
        types = [usual[layer % len(usual)] for layer in range(min(layers, DEEPEST))]
    if not isinstance(types, list) or len(types) != min(layers, DEEPEST) or not all(kind in ATTENTION for kind in types):
        text = " / ".join(ATTENTION)
        raise fields.wrong("layer_types", Words(f"層ごとに {text} が要ります。", f"One of {text} is needed for each layer."))
    if "sliding_attention" not in types:
        return {"layer_types": None if window is None else ("full_attention",), "sliding_window": window}
    if window is None:
        raise fields.wrong("sliding_window", Words("sliding_attention の層があるのに、ありません。", "A layer slides, but it is missing."))
    return {"layer_types": tuple(types) if "full_attention" in types else None, "sliding_window": window}


def window(fields: Fields) -> int | None:
    """`sliding_window`, or None where there is none."""
    return None if fields.optional("sliding_window") is None else fields.whole("sliding_window")


def layer_types(shape: Shape) -> list[str]:
    """One for each layer, however the shape says it."""
    return [shape.layer_type(layer) for layer in range(shape.num_hidden_layers)]


def config(shape: Shape, model_type: str, architecture: str) -> dict[str, Any]:
    """`SIZES` as a config.json says them; hidden_act, windows and biases are the family's business."""
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "rms_norm_eps": shape.norm_eps,
        **_rotary.write(shape),
        "tie_word_embeddings": shape.tie_word_embeddings,
    }


def names(shape: Shape, norms: Mapping[str, str] = NORMS) -> dict[str, str]:
    """Our weight name -> theirs. `norms`: the norms of a block."""
    table = {"embedding.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight"}
    if not shape.tie_word_embeddings:
        table["head.weight"] = "lm_head.weight"
    block = {f"{ours}.weight": f"{theirs}.weight" for ours, theirs in norms.items()}
    biased = {"query": shape.attention_bias, "key": shape.attention_bias, "value": shape.attention_bias, "output": shape.output_bias}
    for ours, has_bias in biased.items():
        for kind in ("weight", "bias") if has_bias else ("weight",):
            block[f"mixer.{ours}.{kind}"] = f"self_attn.{ours[0]}_proj.{kind}"
    if shape.qk_norm != "none":
        block |= {"mixer.query_norm.weight": "self_attn.q_norm.weight", "mixer.key_norm.weight": "self_attn.k_norm.weight"}
    for ours in ("gate", "up", "down") if shape.feedforward == "gated" else ():
        for kind in ("weight", "bias") if shape.mlp_bias else ("weight",):
            block[f"feedforward.{ours}.{kind}"] = f"mlp.{ours}_proj.{kind}"
    for layer in range(shape.num_hidden_layers):
        table |= {f"blocks.{layer}.{ours}": f"model.layers.{layer}.{theirs}" for ours, theirs in block.items()}
    return table
