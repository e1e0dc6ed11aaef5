"""ModernBERT (Warner et al. 2024): an encoder of today's parts: rotary positions, GEGLU, pre-norm, no biases, windows in most layers.

    x ← x + O · attend(rot(Q n(x)), rot(K n(x)), V n(x));   x ← x + D (gelu(G n(x)) · U n(x))

One layer in three sees the whole text, with a larger theta; the others see half a window to either side. The embeddings are
normalised, so the first attention is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import _encoders, _rotary
from tsuzuri.model.families._fields import ACTIVATIONS, Fields, every, said
from tsuzuri.model.families._packed import Packed, stacked
from tsuzuri.model.transformer import Shape

MODEL_TYPE = "modernbert"
STEM = "ModernBert"
SPECIAL = Words(
    "回転位置と GEGLU を持ち、多くの層が近くだけを見るので、長い文章も速く読めるエンコーダ。",
    "An encoder with rotary positions and GEGLU in which most layers look only nearby: fast on long texts.",
)
EQUATION = "x ← x + O·attend(rot(Q n(x)), rot(K n(x)), V n(x));  x ← x + D(gelu(G n(x)) · U n(x))"
PAPER = "Warner et al. 2024, Smarter, Better, Faster, Longer (ModernBERT)"
PUBLIC = {
    "ModernBERT base": "768 × 22, H 12, F 1152, V 50368, window 128",
    "ModernBERT large": "1024 × 28, H 16, F 2624, V 50368, window 128",
    "ModernBERT-Ja 130M": "512 × 19, H 8, F 2048, V 102400, window 128",
}
VARYING = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings", "norm_eps",
    "norm", "hidden_act", "layer_types", "sliding_window", "rope_theta", "rope_local_theta", "rope_scaling", "attention_bias", "mlp_bias",
    "head_bias", "head_dense_bias", "head_act", "tie_word_embeddings", "head", "labels", "pooling",
)  # fmt: skip
# Windows depend on the depth: a recipe names its layer_types, without them every layer sees the whole text.
USUAL: dict[str, Any] = {
    "block": "pre_norm_but_first", "norm": "layer_norm_scale", "hidden_act": "gelu", "causal": False, "head": "masked",
    "rope_theta": 160000.0, "rope_local_theta": 10000.0, "head_norm": True, "head_bias": True, "head_dense_bias": False,
    "embedding_norm": True, "tie_word_embeddings": True,
}  # fmt: skip
SAID = every(Shape, *VARYING) | {name: value for name, value in USUAL.items() if name not in VARYING}
NORMS = {False: "layer_norm_scale", True: "layer_norm"}  # norm_bias
PREFIX = "model."
TIED = ("decoder.weight",)
WITHOUT_EFFECT = (
    "cls_token_id", "sep_token_id", "embedding_dropout", "mlp_dropout", "initializer_cutoff_factor", "deterministic_flash_attn",
    "sparse_prediction", "sparse_pred_ignore_index", "reference_compile", "repad_logits_with_grad", "layer_norm_eps",
    "position_embedding_type",
)  # fmt: skip
WINDOW = 128  # tokens, of a config.json that has no layer with one


def shape(config: Mapping[str, Any]) -> Shape:
    fields = Fields(config)
    fields.left -= set(WITHOUT_EFFECT)
    head, labels = _encoders.read(fields, STEM)
    layers, longest = fields.whole("num_hidden_layers", 22), fields.whole("max_position_embeddings", 8192)
    rotary, local = _positions(fields, longest)
    found = Shape(
        **{
            **USUAL,
            "vocab_size": fields.whole("vocab_size", 50368),
            "hidden_size": fields.whole("hidden_size", 768),
            "num_hidden_layers": layers,
            "num_attention_heads": fields.whole("num_attention_heads", 12),
            "intermediate_size": fields.whole("intermediate_size", 1152),
            "max_position_embeddings": longest,
            "norm": NORMS[fields.flag("norm_bias", False)],
            "norm_eps": fields.number("norm_eps", 1e-5),
            "hidden_act": fields.choice("hidden_activation", ACTIVATIONS, "gelu"),
            "layer_types": _layer_types(fields, layers),
            "sliding_window": fields.whole("local_attention", WINDOW) // 2 + 1,
            "rope_theta": rotary.theta,
            "rope_scaling": rotary.scaling,
            "rope_local_theta": local,
            "attention_bias": fields.flag("attention_bias", False),
            "mlp_bias": fields.flag("mlp_bias", False),
            "head_bias": fields.flag("decoder_bias", True),
            "head_dense_bias": fields.flag("classifier_bias", False),
            "head_act": fields.choice("classifier_activation", ACTIVATIONS, "gelu"),
            "pooling": fields.choice("classifier_pooling", {"cls": "first", "mean": "mean"}, "cls"),
            "tie_word_embeddings": fields.flag("tie_word_embeddings", True),
            "head": head,
            "labels": labels,
        }
    )
    fields.done()
    return found


def _positions(fields: Fields, longest: int) -> tuple[_rotary.Rotary, float]:
    """Of layers that see the whole text, and theta of those that slide."""
    fields.must_be("rope_scaling", None)
    wide, near = fields.number("global_rope_theta", 160000.0), fields.optional("local_rope_theta")
    near = wide if "local_rope_theta" in fields.config and near is None else fields.number("local_rope_theta", 10000.0)
    found = fields.optional("rope_parameters") or {}
    kinds = ("full_attention", "sliding_attention")
    if not isinstance(found, Mapping) or not set(found) <= {*kinds} or not all(isinstance(one, Mapping | None) for one in found.values()):
        raise fields.wrong(
            "rope_parameters", Words(f"{found!r} です。層の種類ごとに要ります。", f"It is {found!r}; one is needed for each type.")
        )
    full, sliding = (
        _rotary.of(fields, found.get(kind) or {}, longest, theta=theta, share=1.0) for kind, theta in zip(kinds, (wide, near), strict=True)
    )
    if sliding.scaling is not None or full.share != 1 or sliding.share != 1:
        raise fields.wrong(
            "rope_parameters", Words("窓のある層の拡張には対応していません。", "A scaling of layers that slide cannot be computed.")
        )
    return full, sliding.theta


def _layer_types(fields: Fields, layers: int) -> tuple[str, ...]:
    """By name, or every so many: the first sees the whole text."""
    given, every_so_many = fields.optional("layer_types"), fields.whole("global_attn_every_n_layers", 3)
    if layers > 1 << 16:
        raise fields.wrong("num_hidden_layers", Words(f"{layers} です。大きすぎます。", f"It is {layers}: too large."))
    if given is None:
        return tuple("sliding_attention" if i % every_so_many else "full_attention" for i in range(layers))
    if not isinstance(given, list) or not {*map(str, given)} <= {"full_attention", "sliding_attention"}:
        raise fields.wrong("layer_types", Words(f"{given!r} です。", f"It is {given!r}."))
    return tuple(given)


def config(shape: Shape) -> dict[str, Any]:
    said(shape, SAID, MODEL_TYPE)
    if shape.norm not in NORMS.values():
        said(shape, {"norm": NORMS[False]}, MODEL_TYPE)
    if shape.rope_local_theta is None:
        said(shape, {"rope_local_theta": shape.rope_theta}, MODEL_TYPE)
    types = [shape.layer_type(layer) for layer in range(shape.num_hidden_layers)]
    full = _rotary.write(shape)["rope_parameters"]
    return {
        **_encoders.write(shape, STEM),
        "model_type": MODEL_TYPE,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "intermediate_size": shape.intermediate_size,
        "hidden_activation": shape.hidden_act,
        "max_position_embeddings": shape.max_position_embeddings,
        "norm_eps": shape.norm_eps,
        "norm_bias": shape.norm == NORMS[True],
        "layer_types": types,
        **_every(types),
        "local_attention": WINDOW if shape.sliding_window is None else 2 * (shape.sliding_window - 1),
        "rope_parameters": {
            "full_attention": full,
            "sliding_attention": {"rope_type": "default", "rope_theta": shape.rope_local_theta},
        },
        "global_rope_theta": shape.rope_theta,
        "local_rope_theta": shape.rope_local_theta,
        "attention_bias": shape.attention_bias,
        "mlp_bias": shape.mlp_bias,
        "decoder_bias": shape.head_bias,
        "classifier_bias": shape.head_dense_bias,
        "classifier_activation": shape.head_act,
        # Of a tokenizer; without these, numbers of the first public vocabulary are assumed, which a smaller one does not have.
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
        "classifier_pooling": "cls" if shape.pooling == "first" else "mean",
        "tie_word_embeddings": shape.tie_word_embeddings,
    }


def _every(types: list[str]) -> dict[str, int]:
    """How version 4 says which layers see the whole text, where it can."""
    for step in range(1, len(types) + 1):
        if types == ["sliding_attention" if i % step else "full_attention" for i in range(len(types))]:
            return {"global_attn_every_n_layers": step}
    return {}


def names(shape: Shape) -> dict[str, str]:
    prefix = "" if shape.head == "embed" else PREFIX
    table = {"embedding.weight": f"{prefix}embeddings.tok_embeddings.weight"}
    norms = {"embedding_norm": f"{prefix}embeddings.norm", "norm": f"{prefix}final_norm"}
    maps = {}
    for layer in range(shape.num_hidden_layers):
        ours, theirs = f"blocks.{layer}", f"{prefix}layers.{layer}"
        norms |= {f"{ours}.mixer_norm": f"{theirs}.attn_norm"} if layer else {}
        norms[f"{ours}.feedforward_norm"] = f"{theirs}.mlp_norm"
        for kind in _kinds(shape.attention_bias):
            table[f"{ours}.mixer.output.{kind}"] = f"{theirs}.attn.Wo.{kind}"
        for kind in _kinds(shape.mlp_bias):
            table[f"{ours}.feedforward.down.{kind}"] = f"{theirs}.mlp.Wo.{kind}"
    if shape.head != "embed":
        norms["head.norm"] = "head.norm"
        table |= {f"head.dense.{kind}": f"head.dense.{kind}" for kind in _kinds(shape.head_dense_bias)}
    if shape.head == "masked":
        table |= {} if shape.tie_word_embeddings else {"head.weight": "decoder.weight"}
        table |= {"head.bias": "decoder.bias"} if shape.head_bias else {}
    elif shape.head != "embed":
        maps["head.output"] = "classifier"
    for ours, theirs in norms.items():
        table |= {f"{ours}.{kind}": f"{theirs}.{kind}" for kind in _kinds(shape.norm == NORMS[True])}
    return table | _encoders.both([*maps.items()])


def packed(shape: Shape) -> list[Packed]:
    """Queries, keys and values in one, and both sides of the gate."""
    prefix = "" if shape.head == "embed" else PREFIX
    found = []
    for layer in range(shape.num_hidden_layers):
        ours, theirs = f"blocks.{layer}", f"{prefix}layers.{layer}"
        for kind in _kinds(shape.attention_bias):
            rows = [shape.num_attention_heads * shape.head_size] * 3
            parts = [f"{ours}.mixer.{part}.{kind}" for part in ("query", "key", "value")]
            found.append(stacked(f"{theirs}.attn.Wqkv.{kind}", parts, rows))
        for kind in _kinds(shape.mlp_bias):
            parts = [f"{ours}.feedforward.{part}.{kind}" for part in ("gate", "up")]
            found.append(stacked(f"{theirs}.mlp.Wi.{kind}", parts, [shape.intermediate_size] * 2))
    return found


def _kinds(bias: bool) -> tuple[str, ...]:
    return ("weight", "bias") if bias else ("weight",)
