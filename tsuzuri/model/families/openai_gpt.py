"""GPT-1 (Radford et al. 2018): the decoder half of the first Transformer, trained to continue text.

    x ← n(x + O · attend(Q x, K x, V x));   x ← n(x + D gelu(U x))        n after each sub-layer, none at the end

Learned positions, biases everywhere, the head is the embedding. Matrices are stored as (in, out).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families._fields import Fields, every, one_key_each, said
from tsuzuri.model.families._packed import Packed, stacked, transposed
from tsuzuri.model.transformer import Shape

MODEL_TYPE = "openai-gpt"
ARCHITECTURE = "OpenAIGPTLMHeadModel"
SPECIAL = Words(
    "最初の GPT。各層の後に正規化し、位置を学習する。続きを書く訓練だけで多くの課題の土台になることを示した。",
    "The first GPT: a norm after each sub-layer and learned positions. It showed that learning to continue text prepares for many tasks.",
)
EQUATION = "x ← n(x + O·attend(Q x, K x, V x));  x ← n(x + D·gelu(U x))"
PAPER = "Radford et al. 2018, Improving Language Understanding by Generative Pre-Training"
PUBLIC = {"GPT-1 117M": "768 × 12, H 12, F 3072, V 40478, T 512"}
PREFIX = "transformer."
DERIVED = (".attn.bias", "position_ids")  # masks and counts that old checkpoints keep
# Of heads that are no language model, of dropout and of fine-tuning.
WITHOUT_EFFECT = (
    "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout", "n_ctx",
    "predict_special_tokens", "task_specific_params",
)  # fmt: skip
ACTIVATIONS = {"gelu": "gelu_pytorch_tanh", "relu": "relu", "silu": "silu", "swish": "silu"}  # its "gelu" is the approximation
USUAL: dict[str, Any] = {
    "block": "post_norm", "feedforward": "plain", "norm": "layer_norm", "position": "learned", "hidden_act": "gelu_pytorch_tanh",
    "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True,
}  # fmt: skip
VARYING = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size",
    "max_position_embeddings", "hidden_act", "norm_eps", "tie_word_embeddings",
)  # fmt: skip
SAID = every(Shape, *VARYING) | {name: value for name, value in USUAL.items() if name not in VARYING}


def shape(config: Mapping[str, Any]) -> Shape:
    fields = Fields(config)
    for name in WITHOUT_EFFECT:
        fields.optional(name)
    fields.must_be("n_special", 0)
    size = fields.whole("n_embd", 768)
    found = Shape(
        **{name: value for name, value in USUAL.items() if name not in VARYING},
        vocab_size=fields.whole("vocab_size", 40478),
        hidden_size=size,
        num_hidden_layers=fields.whole("n_layer", 12),
        num_attention_heads=fields.whole("n_head", 12),
        intermediate_size=4 * size,
        max_position_embeddings=fields.whole("n_positions", 512),
        hidden_act=fields.choice("afn", ACTIVATIONS, "gelu"),
        norm_eps=fields.number("layer_norm_epsilon", 1e-5),
        tie_word_embeddings=fields.flag("tie_word_embeddings", True),
    )
    fields.done()
    return found


def config(shape: Shape) -> dict[str, Any]:
    said(shape, SAID | one_key_each(shape) | {"intermediate_size": 4 * shape.hidden_size}, MODEL_TYPE)
    theirs = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    if shape.hidden_act not in theirs:
        said(shape, {"hidden_act": USUAL["hidden_act"]}, MODEL_TYPE)
    return {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        "vocab_size": shape.vocab_size,
        "n_embd": shape.hidden_size,
        "n_layer": shape.num_hidden_layers,
        "n_head": shape.num_attention_heads,
        "n_positions": shape.max_position_embeddings,
        "afn": theirs[shape.hidden_act],
        "layer_norm_epsilon": shape.norm_eps,
        "tie_word_embeddings": shape.tie_word_embeddings,
    }


def names(shape: Shape) -> dict[str, str]:
    table = {"embedding.weight": "transformer.tokens_embed.weight", "position.table.weight": "transformer.positions_embed.weight"}
    if not shape.tie_word_embeddings:
        table["head.weight"] = "lm_head.weight"
    for layer in range(shape.num_hidden_layers):
        table |= biases_and_norms(f"blocks.{layer}", f"transformer.h.{layer}")
    return table


def biases_and_norms(ours: str, theirs: str) -> dict[str, str]:
    """Of one block, what is stored as it is: the same names in GPT-1 and GPT-2."""
    table = {f"{ours}.mixer.output.bias": f"{theirs}.attn.c_proj.bias"}
    for our, their in (("up", "c_fc"), ("down", "c_proj")):
        table[f"{ours}.feedforward.{our}.bias"] = f"{theirs}.mlp.{their}.bias"
    for kind in ("weight", "bias"):
        table[f"{ours}.mixer_norm.{kind}"] = f"{theirs}.ln_1.{kind}"
        table[f"{ours}.feedforward_norm.{kind}"] = f"{theirs}.ln_2.{kind}"
    return table


def packed(shape: Shape) -> list[Packed]:
    """Queries, keys and values side by side, and every matrix turned: the same in GPT-1 and GPT-2."""
    found = []
    for layer in range(shape.num_hidden_layers):
        ours, theirs = f"blocks.{layer}", f"transformer.h.{layer}"
        sides = [f"{ours}.mixer.{side}" for side in ("query", "key", "value")]
        found += [
            transposed(f"{theirs}.attn.c_attn.weight", *(f"{side}.weight" for side in sides)),
            stacked(f"{theirs}.attn.c_attn.bias", [f"{side}.bias" for side in sides], [shape.hidden_size] * 3),
            transposed(f"{theirs}.attn.c_proj.weight", f"{ours}.mixer.output.weight"),
            transposed(f"{theirs}.mlp.c_fc.weight", f"{ours}.feedforward.up.weight"),
            transposed(f"{theirs}.mlp.c_proj.weight", f"{ours}.feedforward.down.weight"),
        ]
    return found
