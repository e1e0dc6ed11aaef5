"""GPT-2 (Radford et al. 2019), and the shape of GPT-3 (Brown et al. 2020): GPT-1 with the norm before each sub-layer and one at the end.

    x ← x + O · attend(Q n(x), K n(x), V n(x));   x ← x + D gelu(U n(x))

Learned positions, biases everywhere, the head is the embedding. GPT-3 is the same but for every other layer, which looked
at a band of the text only; nobody outside has those weights. Matrices are stored as (in, out).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import openai_gpt
from tsuzuri.model.families._fields import ACTIVATIONS, Fields, every, one_key_each, said
from tsuzuri.model.families._packed import Packed
from tsuzuri.model.transformer import Shape

MODEL_TYPE = "gpt2"
ARCHITECTURE = "GPT2LMHeadModel"
SPECIAL = Words(
    "正規化を各層の前に移した GPT。深くしても学習が崩れにくく、以後の標準になった。GPT-3 も同じ形。",
    "GPT with the norm moved before each sub-layer, which keeps deep stacks trainable and became the standard. GPT-3 has the same shape.",
)
EQUATION = "x ← x + O·attend(Q n(x), K n(x), V n(x));  x ← x + D·gelu(U n(x))"
PAPER = "Radford et al. 2019, Language Models are Unsupervised Multitask Learners; Brown et al. 2020 (GPT-3)"
PUBLIC = {
    "GPT-2 124M": "768 × 12, H 12, F 3072, V 50257, T 1024",
    "GPT-2 XL": "1600 × 48, H 25, F 6400, V 50257, T 1024",
    "GPT-3 175B": "12288 × 96, H 96, F 49152, V 50257, T 2048",
}
PREFIX = "transformer."
DERIVED = (".attn.bias", ".attn.masked_bias")  # masks that old checkpoints keep
# Of heads that are no language model, of precision and of training.
WITHOUT_EFFECT = (
    "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout", "n_ctx",
    "reorder_and_upcast_attn", "gradient_checkpointing", "task_specific_params",
)  # fmt: skip
USUAL: dict[str, Any] = {
    "feedforward": "plain", "norm": "layer_norm", "position": "learned", "hidden_act": "gelu_pytorch_tanh", "attention_bias": True,
    "mlp_bias": True, "tie_word_embeddings": True,
}  # fmt: skip
VARYING = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size",
    "max_position_embeddings", "hidden_act", "norm_eps", "tie_word_embeddings", "attention", "attention_scale",
)  # fmt: skip
SAID = every(Shape, *VARYING) | {name: value for name, value in USUAL.items() if name not in VARYING}


def shape(config: Mapping[str, Any]) -> Shape:
    fields = Fields(config)
    for name in WITHOUT_EFFECT:
        fields.optional(name)
    fields.must_be("add_cross_attention", False)
    size = fields.whole("n_embd", 768)
    found = Shape(
        **{name: value for name, value in USUAL.items() if name not in VARYING},
        vocab_size=fields.whole("vocab_size", 50257),
        hidden_size=size,
        num_hidden_layers=fields.whole("n_layer", 12),
        num_attention_heads=fields.whole("n_head", 12),
        intermediate_size=fields.whole("n_inner", 4 * size),
        max_position_embeddings=fields.whole("n_positions", 1024),
        hidden_act=fields.choice("activation_function", ACTIVATIONS, "gelu_new"),
        norm_eps=fields.number("layer_norm_epsilon", 1e-5),
        attention="attention_by_depth" if fields.flag("scale_attn_by_inverse_layer_idx", False) else "attention",
        attention_scale=None if fields.flag("scale_attn_weights", True) else 1.0,
        tie_word_embeddings=fields.flag("tie_word_embeddings", True),
    )
    fields.done()
    return found


def config(shape: Shape) -> dict[str, Any]:
    said(shape, SAID | one_key_each(shape), MODEL_TYPE)
    if shape.attention_scale != 1:
        said(shape, {"attention_scale": None}, MODEL_TYPE)
    if shape.attention != "attention_by_depth":
        said(shape, {"attention": "attention"}, MODEL_TYPE)
    return {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        "vocab_size": shape.vocab_size,
        "n_embd": shape.hidden_size,
        "n_layer": shape.num_hidden_layers,
        "n_head": shape.num_attention_heads,
        "n_inner": shape.intermediate_size,
        "n_positions": shape.max_position_embeddings,
        "activation_function": "gelu_new" if shape.hidden_act == "gelu_pytorch_tanh" else shape.hidden_act,
        "layer_norm_epsilon": shape.norm_eps,
        "scale_attn_by_inverse_layer_idx": shape.attention == "attention_by_depth",
        "scale_attn_weights": shape.attention_scale is None,
        "tie_word_embeddings": shape.tie_word_embeddings,
    }


def names(shape: Shape) -> dict[str, str]:
    table = {"embedding.weight": "transformer.wte.weight", "position.table.weight": "transformer.wpe.weight"}
    table |= {f"norm.{kind}": f"transformer.ln_f.{kind}" for kind in ("weight", "bias")}
    if not shape.tie_word_embeddings:
        table["head.weight"] = "lm_head.weight"
    for layer in range(shape.num_hidden_layers):
        table |= openai_gpt.biases_and_norms(f"blocks.{layer}", f"transformer.h.{layer}")
    return table


def packed(shape: Shape) -> list[Packed]:
    return openai_gpt.packed(shape)
