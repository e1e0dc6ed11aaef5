"""BERT (Devlin et al. 2019): an encoder that reads both ways, learned positions, a norm after every sub-layer, two segments.

    x ← n(x + O · attend(Q x, K x, V x));   x ← n(x + D gelu(U x))

What is put on top of it is its head: hidden tokens, a label for the text or for each token, an answer's place, or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import _encoders
from tsuzuri.model.families._fields import ACTIVATIONS, Fields, every, said
from tsuzuri.model.transformer import Shape

MODEL_TYPE = "bert"
STEM = "Bert"
SPECIAL = Words(
    "文を両側から読み、隠した語を当てて学ぶエンコーダ。分類・固有表現抽出・抽出型の質問応答・埋め込みの土台になる。",
    "An encoder that reads both ways and learns by guessing hidden tokens: the base of classifiers, taggers, extractive answers and embeddings.",
)
EQUATION = "x ← n(x + O·attend(Q x, K x, V x));  x ← n(x + D·gelu(U x))"
PAPER = "Devlin et al. 2019, BERT: Pre-training of Deep Bidirectional Transformers"
PUBLIC = {
    "BERT base": "768 × 12, H 12, F 3072, V 30522",
    "BERT large": "1024 × 24, H 16, F 4096, V 30522",
    "東北大 BERT base v3": "768 × 12, H 12, F 3072, V 32768",
}
VARYING = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings", "norm_eps",
    "hidden_act", "type_vocab_size", "tie_word_embeddings", "head", "head_act", "labels",
)  # fmt: skip
USUAL: dict[str, Any] = {
    "block": "post_norm", "feedforward": "plain", "norm": "layer_norm", "position": "learned", "head": "masked", "hidden_act": "gelu",
    "causal": False, "norm_eps": 1e-12, "attention_bias": True, "mlp_bias": True, "head_bias": True, "embedding_norm": True,
    "type_vocab_size": 2, "tie_word_embeddings": True,
}  # fmt: skip
SAID = every(Shape, *VARYING) | {name: value for name, value in USUAL.items() if name not in VARYING}
PREFIX = "bert."
OLD = {".gamma": ".weight", ".beta": ".bias"}  # of norms, in the first checkpoints
TIED = ("cls.predictions.decoder.weight",)
# Positions that are counted anyway, copies of a bias, and what pre-training had besides: heads that this one does not have.
DERIVED = (
    "embeddings.position_ids", "embeddings.token_type_ids", "predictions.bias", "predictions.decoder.bias",
    "cls.seq_relationship.weight", "cls.seq_relationship.bias", "pooler.dense.weight", "pooler.dense.bias",
)  # fmt: skip


def shape(config: Mapping[str, Any]) -> Shape:
    fields = Fields(config)
    return read(fields, STEM, fields.whole("max_position_embeddings", 512))


def read(fields: Fields, stem: str, longest: int, vocab_size: int = 30522) -> Shape:
    """The shape of this family or of one with the same layers, whose class in `architectures` begins with `stem`."""
    head, labels = _encoders.read(fields, stem)
    fields.must_be("position_embedding_type", "absolute")
    act = fields.choice("hidden_act", ACTIVATIONS, "gelu")
    found = Shape(
        **{
            **USUAL,
            "vocab_size": fields.whole("vocab_size", vocab_size),
            "hidden_size": fields.whole("hidden_size", 768),
            "num_hidden_layers": fields.whole("num_hidden_layers", 12),
            "num_attention_heads": fields.whole("num_attention_heads", 12),
            "intermediate_size": fields.whole("intermediate_size", 3072),
            "max_position_embeddings": longest,
            "norm_eps": fields.number("layer_norm_eps", 1e-12),
            "hidden_act": act,
            "head_act": act,
            "type_vocab_size": fields.whole("type_vocab_size", 2),
            "tie_word_embeddings": fields.flag("tie_word_embeddings", True),
            "head": head,
            "labels": labels,
        }
    )
    fields.done()
    return found


def config(shape: Shape) -> dict[str, Any]:
    said(shape, SAID | {"head_act": shape.hidden_act}, MODEL_TYPE)
    return {
        **_encoders.write(shape, STEM),
        "model_type": MODEL_TYPE,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "intermediate_size": shape.intermediate_size,
        "hidden_act": shape.hidden_act,
        "max_position_embeddings": shape.max_position_embeddings,
        "type_vocab_size": shape.type_vocab_size,
        "layer_norm_eps": shape.norm_eps,
        "tie_word_embeddings": shape.tie_word_embeddings,
    }


def names(shape: Shape) -> dict[str, str]:
    prefix = "" if shape.head == "embed" else PREFIX
    table = _encoders.layers(shape, prefix)
    both = _encoders.both
    match shape.head:
        case "masked":
            guess = "cls.predictions"
            table |= both([("head.dense", f"{guess}.transform.dense"), ("head.norm", f"{guess}.transform.LayerNorm")])
            if shape.tie_word_embeddings:
                return table | {"head.bias": f"{guess}.bias"}
            return table | both([("head", f"{guess}.decoder")])
        case "classify":
            return table | both([("head.dense", f"{prefix}pooler.dense"), ("head.output", "classifier")])
        case "tag":
            return table | both([("head.output", "classifier")])
        case "extract":
            return table | both([("head.output", "qa_outputs")])
    return table
