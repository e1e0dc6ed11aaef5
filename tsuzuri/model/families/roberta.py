"""RoBERTa (Liu et al. 2019): BERT trained longer, on more, without its second task; positions are counted from padding_idx + 1.

    x ← n(x + O · attend(Q x, K x, V x));   x ← n(x + D gelu(U x))

The first rows of its table of positions, up to that of the padding token's number, stand for no position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import _encoders, bert
from tsuzuri.model.families._fields import Fields, every, said
from tsuzuri.model.transformer import Shape, impossible

MODEL_TYPE = "roberta"
STEM = "Roberta"
SPECIAL = Words(
    "BERT と同じ層で、学習の仕方を改めたもの。位置は詰め物の番号の次から数える。",
    "BERT's layers, trained better; positions are counted from the padding token's number on.",
)
EQUATION = "x ← n(x + O·attend(Q x, K x, V x));  x ← n(x + D·gelu(U x))"
PAPER = "Liu et al. 2019, RoBERTa: A Robustly Optimized BERT Pretraining Approach"
PUBLIC = {
    "RoBERTa base": "768 × 12, H 12, F 3072, V 50265",
    "RoBERTa large": "1024 × 24, H 16, F 4096, V 50265",
    "早大 RoBERTa base": "768 × 12, H 12, F 3072, V 32000",
}
VARYING = (*bert.VARYING, "position_offset")
USUAL: dict[str, Any] = {**bert.USUAL, "type_vocab_size": 1, "norm_eps": 1e-5, "position_offset": 2}
SAID = every(Shape, *VARYING) | {name: value for name, value in USUAL.items() if name not in VARYING} | {"head_act": "gelu"}
PREFIX = "roberta."
TIED = ("lm_head.decoder.weight",)
DERIVED = (
    "embeddings.position_ids", "embeddings.token_type_ids", "lm_head.bias", "lm_head.decoder.bias", "pooler.dense.weight",
    "pooler.dense.bias",
)  # fmt: skip


def shape(config: Mapping[str, Any]) -> Shape:
    fields = Fields(config)
    rows = fields.whole("max_position_embeddings", 512)
    padding = config.get("pad_token_id", 1)
    if type(padding) is not int or not 0 <= padding < rows - 1:
        found = Words(
            f"{padding!r} です。位置の表の行数より小さい番号が要ります。",
            f"It is {padding!r}; it has to lie within the table of positions.",
        )
        raise fields.wrong("pad_token_id", found)
    return replace(bert.read(fields, STEM, rows - padding - 1, 50265), head_act="gelu", position_offset=padding + 1)


def config(shape: Shape) -> dict[str, Any]:
    said(shape, SAID, MODEL_TYPE)
    if not shape.position_offset:
        raise impossible("position_offset", Words("0 ですが、1 以上が要ります。", "It is 0 and must be at least 1."))
    return {
        **bert.config(replace(shape, position_offset=0, head_act=shape.hidden_act)),
        **_encoders.write(shape, STEM),
        "model_type": MODEL_TYPE,
        "max_position_embeddings": shape.max_position_embeddings + shape.position_offset,
        "pad_token_id": shape.position_offset - 1,
    }


def names(shape: Shape) -> dict[str, str]:
    prefix = "" if shape.head == "embed" else PREFIX
    table = _encoders.layers(shape, prefix)
    both = _encoders.both
    match shape.head:
        case "masked":
            table |= both([("head.dense", "lm_head.dense"), ("head.norm", "lm_head.layer_norm")])
            if shape.tie_word_embeddings:
                return table | {"head.bias": "lm_head.bias"}
            return table | both([("head", "lm_head.decoder")])
        case "classify":
            return table | both([("head.dense", "classifier.dense"), ("head.output", "classifier.out_proj")])
        case "tag":
            return table | both([("head.output", "classifier")])
        case "extract":
            return table | both([("head.output", "qa_outputs")])
    return table
