"""Marian (Junczys-Dowmunt et al. 2018): the Transformer of 2017 as it was written, and as the OPUS-MT models translate with it.

    encoder  x ← n(x + A(x)); x ← n(x + F(x))                      on √D · E[token] + sinusoids
    decoder  x ← n(x + A(x)); x ← n(x + C(x, memory)); x ← n(x + F(x))
    logits   E x + bias                                            one embedding three times

Post-norm LayerNorm, biases everywhere, a plain feed-forward of relu (2017) or swish (OPUS-MT).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.encoder_decoder import EncoderDecoder, PairShape
from tsuzuri.model.families._fields import ACTIVATIONS, Fields, every, said
from tsuzuri.model.families._packed import Packed

MODEL_TYPE = "marian"
ARCHITECTURE = "MarianMTModel"
MODEL, SHAPE = EncoderDecoder, PairShape
SPECIAL = Words(
    "2017 年の Transformer そのもの。三角関数の位置、ポストノルム、入力と出力で一つの埋め込み。翻訳に使われている。",
    "The Transformer of 2017 itself: sinusoidal positions, post-norm, one embedding for what is read and written. Used for translation.",
)
EQUATION = "x ← n(x + A(x)); x ← n(x + C(x, memory)); x ← n(x + F(x));  logits = E x + b,  x₀ = √D·E[token] + sinusoids"
PAPER = "Vaswani et al. 2017, Attention Is All You Need; Junczys-Dowmunt et al. 2018, Marian; Tiedemann & Thottingal 2020, OPUS-MT"
PUBLIC = {
    "Helsinki-NLP/opus-mt-ja-en": "512 × 6 + 6, H 8, F 2048 swish, V 60716",
    "Transformer (base) of 2017": "512 × 6 + 6, H 8, F 2048 relu, V 37000",
    "Transformer (big) of 2017": "1024 × 6 + 6, H 16, F 4096 relu, V 37000",
}
VARYING = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings", "hidden_act",
    "embedding_multiplier", "encoder_layers", "encoder_attention_heads", "encoder_intermediate_size", "encoder_vocab_size",
    "decoder_start_token_id", "tie_word_embeddings", "num_key_value_heads", "head_dim",
)  # fmt: skip
USUAL: dict[str, Any] = {
    "block": "post_norm", "feedforward": "plain", "norm": "layer_norm", "position": "sinusoidal_halves", "hidden_act": "relu",
    "attention_bias": True, "mlp_bias": True, "head_bias": True, "tie_word_embeddings": True, "norm_eps": 1e-5,
}  # fmt: skip
SAID = every(PairShape, *VARYING) | {name: value for name, value in USUAL.items() if name not in VARYING}
TIED = ("lm_head.weight", "model.shared.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
DERIVED = ("embed_positions.weight",)
# No part of the logits: dropout, and how transformers searches for a translation.
IDLE = (
    "dropout", "activation_dropout", "encoder_layerdrop", "decoder_layerdrop", "init_std", "forced_eos_token_id", "num_beams",
    "max_length", "bad_words_ids", "classif_dropout", "classifier_dropout", "gradient_checkpointing", "num_hidden_layers",
)  # fmt: skip


def shape(config: Mapping[str, Any]) -> PairShape:
    fields = Fields(config)
    fields.left -= set(IDLE)
    for name in ("normalize_before", "normalize_embedding", "add_final_layer_norm", "add_bias_logits"):
        fields.must_be(name, False)
    fields.must_be("static_position_embeddings", True)
    fields.must_be("extra_pos_embeddings", 0, 1)
    size, vocabulary = fields.whole("d_model"), fields.whole("vocab_size")
    shared, tied = fields.flag("share_encoder_decoder_embeddings", True), fields.flag("tie_word_embeddings", True)
    if shared and not tied:
        raise fields.wrong(
            "tie_word_embeddings", Words("埋め込みを共有するなら true に限ります。", "It is true where embeddings are shared.")
        )
    target = fields.whole("decoder_vocab_size", vocabulary)
    if shared and target != vocabulary:
        raise fields.wrong("decoder_vocab_size", Words("埋め込みを共有するのに違います。", "It differs although embeddings are shared."))
    start = fields.optional("decoder_start_token_id")
    if isinstance(start, bool) or not isinstance(start, int):
        raise fields.wrong(
            "decoder_start_token_id", Words(f"{start!r} です。整数が要ります。", f"It is {start!r}; a whole number is needed.")
        )
    found = PairShape(
        **{**USUAL, "hidden_act": fields.choice("activation_function", ACTIVATIONS, "gelu"), "tie_word_embeddings": tied},
        vocab_size=target,
        encoder_vocab_size=None if shared else vocabulary,
        hidden_size=size,
        num_hidden_layers=fields.whole("decoder_layers"),
        encoder_layers=fields.whole("encoder_layers"),
        num_attention_heads=fields.whole("decoder_attention_heads"),
        encoder_attention_heads=fields.whole("encoder_attention_heads"),
        intermediate_size=fields.whole("decoder_ffn_dim"),
        encoder_intermediate_size=fields.whole("encoder_ffn_dim"),
        max_position_embeddings=fields.whole("max_position_embeddings", 1024),
        embedding_multiplier=math.sqrt(size) if fields.flag("scale_embedding", False) else 1.0,
        decoder_start_token_id=start,
    )
    fields.done()
    return found


def config(shape: PairShape) -> dict[str, Any]:
    said(shape, SAID, MODEL_TYPE)
    said(shape, {"kv_heads": shape.num_attention_heads, "head_size": shape.hidden_size // shape.num_attention_heads}, MODEL_TYPE)
    scaled, shared = shape.embedding_multiplier != 1, shape.encoder_vocab_size is None
    if scaled:
        said(shape, {"embedding_multiplier": math.sqrt(shape.hidden_size)}, MODEL_TYPE)
    if shared:
        said(shape, {"tie_word_embeddings": True}, MODEL_TYPE)
    acts = {own: other for other, own in reversed(ACTIVATIONS.items())}
    encoder = shape.encoder
    return {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        "is_encoder_decoder": True,
        "vocab_size": encoder.vocab_size,
        "decoder_vocab_size": shape.vocab_size,
        "d_model": shape.hidden_size,
        "encoder_layers": encoder.num_hidden_layers,
        "decoder_layers": shape.num_hidden_layers,
        "encoder_attention_heads": encoder.num_attention_heads,
        "decoder_attention_heads": shape.num_attention_heads,
        "encoder_ffn_dim": encoder.intermediate_size,
        "decoder_ffn_dim": shape.intermediate_size,
        "activation_function": acts[shape.hidden_act],
        "max_position_embeddings": shape.max_position_embeddings,
        "scale_embedding": scaled,
        "share_encoder_decoder_embeddings": shared,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "decoder_start_token_id": shape.decoder_start_token_id,
        "pad_token_id": shape.decoder_start_token_id,  # one and the same in its published models
        "forced_eos_token_id": None,
    }


def packed(shape: PairShape) -> list[Packed]:
    """The bias of the logits is kept as one row."""
    return [Packed("final_logits_bias", ("decoder.head.bias",), lambda x: [x.flatten()], lambda parts: parts[0][None])]


def names(shape: PairShape) -> dict[str, str]:
    if shape.encoder_vocab_size is None:
        table = {"decoder.embedding.weight": "model.shared.weight"}
    else:
        table = {f"{side}.embedding.weight": f"model.{side}.embed_tokens.weight" for side in ("encoder", "decoder")}
    if not shape.tie_word_embeddings:
        table["decoder.head.weight"] = "lm_head.weight"
    for side, depth in (("encoder", shape.encoder.num_hidden_layers), ("decoder", shape.num_hidden_layers)):
        for layer in range(depth):
            table |= _block(f"{side}.blocks.{layer}", f"model.{side}.layers.{layer}", decoder=side == "decoder")
    return table


def _block(ours: str, theirs: str, *, decoder: bool) -> dict[str, str]:
    own = {"mixer_norm": "self_attn_layer_norm", "feedforward_norm": "final_layer_norm", "feedforward.up": "fc1", "feedforward.down": "fc2"}
    attentions = {"mixer": "self_attn"}
    if decoder:
        own["cross_norm"], attentions["cross"] = "encoder_attn_layer_norm", "encoder_attn"
    projections = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
    for our, their in attentions.items():
        own |= {f"{our}.{side}": f"{their}.{other}" for side, other in projections.items()}
    return {f"{ours}.{our}.{kind}": f"{theirs}.{their}.{kind}" for our, their in own.items() for kind in ("weight", "bias")}
