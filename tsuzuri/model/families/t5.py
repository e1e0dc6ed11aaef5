"""T5 (Raffel et al. 2020): an encoder and a decoder, pre-norm RMSNorm, positions as learned biases of scores, no biases elsewhere.

    encoder  x ← x + A(n(x)); x ← x + F(n(x))        A: softmax(q kᵀ + b[bucket(j − i)]) v, without 1/√E
    decoder  x ← x + A(n(x)); x ← x + C(n(x), memory); x ← x + F(n(x))

Version 1.0 has relu, and its head is the embedding on states that are scaled by 1/√D; version 1.1 has a gated gelu and a head of its own.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.encoder_decoder import EncoderDecoder, PairShape
from tsuzuri.model.families._fields import Fields, every, said

MODEL_TYPE = "t5"
ARCHITECTURE = "T5ForConditionalGeneration"
MODEL, SHAPE = EncoderDecoder, PairShape
SPECIAL = Words(
    "すべての課題を「文章から文章へ」と見るエンコーダ・デコーダ。位置は、距離の区間ごとに学習した数をスコアに足して表す。",
    "An encoder-decoder that takes every task as text to text; positions are learned numbers, by bucket of distance, added to the scores.",
)
EQUATION = "x ← x + A(n(x)); x ← x + C(n(x), memory); x ← x + F(n(x));  A = softmax(q kᵀ + b[bucket(j − i)]) v"
PAPER = "Raffel et al. 2020, Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer; Shazeer 2020 (1.1)"
PUBLIC = {
    "t5-small": "512 × 6 + 6, H 8, E 64, F 2048 relu, V 32128, tied",
    "t5-v1_1-base, flan-t5-base": "768 × 12 + 12, H 12, E 64, F 2048 gated, V 32128",
    "sonoisa/t5-base-japanese": "768 × 12 + 12, H 12, E 64, F 3072 relu, V 32128, tied",
}
VARYING = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "head_dim", "intermediate_size", "feedforward",
    "hidden_act", "norm_eps", "relative_buckets", "relative_distance", "logit_multiplier", "tie_word_embeddings", "encoder_layers",
    "decoder_start_token_id", "max_position_embeddings",
)  # fmt: skip
USUAL: dict[str, Any] = {
    "position": "relative", "attention_scale": 1.0, "feedforward": "gated", "hidden_act": "gelu_pytorch_tanh", "norm_eps": 1e-6,
}  # fmt: skip
SAID = every(PairShape, *VARYING) | {name: USUAL[name] for name in ("position", "attention_scale")}
# `feed_forward_proj`: gated-gelu always meant the approximation by a tanh.
FEEDFORWARD = {
    "relu": ("plain", "relu"), "gelu": ("plain", "gelu"), "gelu_new": ("plain", "gelu_pytorch_tanh"), "silu": ("plain", "silu"),
    "gated-gelu": ("gated", "gelu_pytorch_tanh"), "gated-silu": ("gated", "silu"), "gated-relu": ("gated", "relu"),
}  # fmt: skip
TIED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
DERIVED = ("layer.1.EncDecAttention.relative_attention_bias.weight",)  # in the first checkpoints, and never read
# Said by the first checkpoints, and by no logits.
IDLE = (
    "initializer_factor", "dropout_rate", "classifier_dropout", "n_positions", "output_past", "task_specific_params", "tokenizer_class",
    "gradient_checkpointing",
)  # fmt: skip


def shape(config: Mapping[str, Any]) -> PairShape:
    fields = Fields(config)
    fields.left -= set(IDLE)
    size, depth = fields.whole("d_model"), fields.whole("num_layers")
    kinds = {name: name for name in FEEDFORWARD}
    kind = fields.choice("feed_forward_proj", kinds, "relu")
    feedforward, act = FEEDFORWARD[kind]
    fields.must_be("dense_act_fn", "gelu_new" if kind == "gated-gelu" else kind.removeprefix("gated-"))
    fields.must_be("is_gated_act", feedforward == "gated")
    tied = fields.flag("tie_word_embeddings", True)
    scaled = fields.flag("scale_decoder_outputs", tied)
    start = fields.optional("decoder_start_token_id")
    start = config.get("pad_token_id", 0) if start is None else start
    if isinstance(start, bool) or not isinstance(start, int):
        raise fields.wrong(
            "decoder_start_token_id", Words(f"{start!r} です。整数が要ります。", f"It is {start!r}; a whole number is needed.")
        )
    found = PairShape(
        **{**USUAL, "feedforward": feedforward, "hidden_act": act},
        vocab_size=fields.whole("vocab_size"),
        hidden_size=size,
        num_hidden_layers=fields.whole("num_decoder_layers", depth),
        encoder_layers=depth,
        num_attention_heads=fields.whole("num_heads"),
        head_dim=fields.whole("d_kv"),
        intermediate_size=fields.whole("d_ff"),
        relative_buckets=fields.whole("relative_attention_num_buckets", 32),
        relative_distance=fields.whole("relative_attention_max_distance", 128),
        logit_multiplier=1 / math.sqrt(size) if scaled else 1.0,
        tie_word_embeddings=tied,
        decoder_start_token_id=start,
    )
    found = replace(found, norm_eps=fields.number("layer_norm_epsilon", 1e-6))
    fields.done()
    return found


def fitted(shape: PairShape, there: Collection[str]) -> PairShape:
    """The shape, now that the names of the weights are known: transformers 5 writes `tie_word_embeddings: true` for every T5, and
    what is not scaled has a head of its own where one is there."""
    return replace(shape, tie_word_embeddings=shape.logit_multiplier != 1 or "lm_head.weight" not in there)


def config(shape: PairShape, model_type: str = MODEL_TYPE, architecture: str = ARCHITECTURE) -> dict[str, Any]:
    said(shape, SAID, model_type)
    scaled = shape.logit_multiplier != 1
    if scaled:
        said(shape, {"tie_word_embeddings": True, "logit_multiplier": 1 / math.sqrt(shape.hidden_size)}, model_type)
    kinds = {own: other for other, own in FEEDFORWARD.items()}
    kind = (str(shape.feedforward), shape.hidden_act)
    if kind not in kinds:
        said(shape, {"feedforward": "gated", "hidden_act": "gelu_pytorch_tanh"}, model_type)
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "is_encoder_decoder": True,
        "vocab_size": shape.vocab_size,
        "d_model": shape.hidden_size,
        "d_kv": shape.head_size,
        "d_ff": shape.intermediate_size,
        "num_layers": shape.encoder_layers or shape.num_hidden_layers,
        "num_decoder_layers": shape.num_hidden_layers,
        "num_heads": shape.num_attention_heads,
        "relative_attention_num_buckets": shape.relative_buckets,
        "relative_attention_max_distance": shape.relative_distance,
        "layer_norm_epsilon": shape.norm_eps,
        "feed_forward_proj": kinds[kind],
        "tie_word_embeddings": shape.tie_word_embeddings,
        "scale_decoder_outputs": scaled,
        "decoder_start_token_id": shape.decoder_start_token_id,
    }


def names(shape: PairShape) -> dict[str, str]:
    table = {"decoder.embedding.weight": "shared.weight"}
    if not shape.tie_word_embeddings:
        table["decoder.head.weight"] = "lm_head.weight"
    for side, depth in (("encoder", shape.encoder.num_hidden_layers), ("decoder", shape.num_hidden_layers)):
        table[f"{side}.norm.weight"] = f"{side}.final_layer_norm.weight"
        table[f"{side}.position.table.weight"] = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        for layer in range(depth):
            table |= _block(shape, f"{side}.blocks.{layer}", f"{side}.block.{layer}.layer", decoder=side == "decoder")
    return table


def _block(shape: PairShape, ours: str, theirs: str, *, decoder: bool) -> dict[str, str]:
    parts = [("mixer", "SelfAttention"), *([("cross", "EncDecAttention")] if decoder else []), ("feedforward", "DenseReluDense")]
    gated = shape.feedforward == "gated"
    inside = {"feedforward": {"gate": "wi_0", "up": "wi_1", "down": "wo"} if gated else {"up": "wi", "down": "wo"}}
    table = {}
    for number, (our, their) in enumerate(parts):
        table[f"{ours}.{our}_norm.weight"] = f"{theirs}.{number}.layer_norm.weight"
        for own, other in inside.get(our, {"query": "q", "key": "k", "value": "v", "output": "o"}).items():
            table[f"{ours}.{our}.{own}.weight"] = f"{theirs}.{number}.{their}.{other}.weight"
    return table
