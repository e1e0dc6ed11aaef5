"""Bamba (IBM, Princeton, CMU, UIUC 2024): Mamba-2 layers with attention in a few places, and a feed-forward after each.

    x ← x + mamba(n(x))  or, at `attn_layer_indices`,  x ← x + O · attend(rot(Q n(x)), rot(K n(x)), V n(x));   x ← x + mlp(n(x))

Half of each attention head turns. The states remember roughly and at no cost; the few attention layers look up exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import _rotary, _state_space
from tsuzuri.model.families._fields import Fields, every, said
from tsuzuri.model.parts.mamba2 import StateSpace
from tsuzuri.model.transformer import DEEPEST, Shape, impossible

MODEL_TYPE = "bamba"
ARCHITECTURE = "BambaForCausalLM"
PREFIX = "model."
SPECIAL = Words(
    "Mamba-2 の層の間に注意の層を数枚だけ挟む。大まかな記憶は状態が、正確な参照は注意が受け持つ。",
    "Mamba-2 layers with a few of attention between: states remember roughly, attention looks up exactly.",
)
EQUATION = "x ← x + mamba2(n(x)) | O·attend(rot(Q n(x)), rot(K n(x)), V n(x));  x ← x + D(silu(G n(x)) · U n(x))"
PAPER = "Bamba: Inference-Efficient Hybrid Mamba2 Model (IBM, Princeton, CMU, UIUC 2024); Lieber et al. 2024, Jamba"
PUBLIC = {"Bamba 9B": "4096 × 32, attention at 9, 18, 27, H 32, K 8, F 14336, mamba H 128, N 128, V 128256"}
VARYING = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size", "norm_eps",
    "max_position_embeddings", "rope_theta", "rope_scaling", "partial_rotary_factor", "attention_bias", "mlp_bias", "layer_types",
    "state_space", "tie_word_embeddings",
)  # fmt: skip
SAID = every(Shape, *VARYING)
USUAL: dict[str, Any] = {"partial_rotary_factor": 0.5}
# Of training, and of how the same numbers are computed.
WITHOUT_EFFECT = ("mamba_chunk_size", "num_logits_to_keep", "z_loss_coefficient", "layer_types", "layers_block_type")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The `model:` section of a recipe."""

    family: str = MODEL_TYPE
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    num_key_value_heads: int | None = None
    attn_layer_indices: list[int] | None = None  # None: one of three layers, from the second on
    state_space: StateSpace = field(default_factory=StateSpace)
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    tie_word_embeddings: bool = False
    max_position_embeddings: int | None = None  # None: as long as a row of training

    def shape(self, vocab_size: int, length: int) -> Shape:
        layers = min(self.num_hidden_layers, DEEPEST)
        chosen = list(range(1, layers, 3)) if self.attn_layer_indices is None else self.attn_layer_indices
        named = (
            "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "num_key_value_heads", "state_space",
            "norm_eps", "rope_theta", "tie_word_embeddings",
        )  # fmt: skip
        if not all(0 <= each < layers for each in chosen):
            raise impossible("attn_layer_indices", Words(f"{chosen} です。", f"It is {chosen}."))
        return Shape(
            vocab_size=vocab_size,
            max_position_embeddings=self.max_position_embeddings or length,
            partial_rotary_factor=0.5,
            layer_types=_types(layers, chosen),
            **{name: getattr(self, name) for name in named},
        )


def _types(layers: int, attention: list[int]) -> tuple[str, ...]:
    return tuple("full_attention" if layer in attention else "mamba2" for layer in range(layers))


def shape(config: Mapping[str, Any]) -> Shape:
    fields = Fields(config)
    fields.must_be("hidden_act", "silu", "swish")
    for name in WITHOUT_EFFECT:
        fields.optional(name)
    size, layers, heads = fields.whole("hidden_size", 4096), fields.whole("num_hidden_layers", 32), fields.whole("num_attention_heads", 32)
    longest = fields.whole("max_position_embeddings", 262144)
    rotary = _rotary.read(fields, longest, share=0.5)
    found = Shape(
        vocab_size=fields.whole("vocab_size", 128000),
        hidden_size=size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=fields.whole("num_key_value_heads", heads if "num_key_value_heads" in config else 8),
        intermediate_size=fields.whole("intermediate_size", 14336),
        max_position_embeddings=longest,
        norm_eps=fields.number("rms_norm_eps", 1e-5),
        rope_theta=rotary.theta,
        rope_scaling=rotary.scaling,
        partial_rotary_factor=rotary.share,
        attention_bias=fields.flag("attention_bias", False),
        mlp_bias=fields.flag("mlp_bias", False),
        layer_types=_types(min(layers, DEEPEST + 1), _indices(fields, layers)),
        state_space=_state_space.read(fields, size, _state_space.BAMBA),
        tie_word_embeddings=fields.flag("tie_word_embeddings", False),
    )
    fields.done()
    return found


def _indices(fields: Fields, layers: int) -> list[int]:
    value = fields.optional("attn_layer_indices")
    found = [] if value is None else value
    if not isinstance(found, list) or not all(type(each) is int and 0 <= each < layers for each in found):
        words = Words(
            f"{value!r} です。層の番号（0 から {layers - 1}）の並びが要ります。", f"It is {value!r}; it takes layers, 0 to {layers - 1}."
        )
        raise fields.wrong("attn_layer_indices", words)
    return found


def config(shape: Shape) -> dict[str, Any]:
    types = [shape.mixer(layer) for layer in range(shape.num_hidden_layers)]
    said(shape, SAID, MODEL_TYPE)
    for kind in {*types} - {"mamba2", "attention"}:
        raise impossible("layer_types", Words(f"{kind} の層は bamba にありません。", f"bamba has no layer of {kind}."))
    rotary = _rotary.write(shape)
    rotary["rope_parameters"] = {**rotary["rope_parameters"], "partial_rotary_factor": shape.partial_rotary_factor}
    return {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": shape.max_position_embeddings,
        "rms_norm_eps": shape.norm_eps,
        **rotary,
        "attn_layer_indices": [layer for layer, kind in enumerate(types) if kind == "attention"] or None,
        "attention_bias": shape.attention_bias,
        "mlp_bias": shape.mlp_bias,
        **_state_space.write(shape, _state_space.BAMBA),
        "tie_word_embeddings": shape.tie_word_embeddings,
    }


def names(shape: Shape) -> dict[str, str]:
    table = {"embedding.weight": "model.embed_tokens.weight", "norm.weight": "model.final_layernorm.weight"}
    if not shape.tie_word_embeddings:
        table["head.weight"] = "lm_head.weight"
    for layer in range(shape.num_hidden_layers):
        ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
        table[f"{ours}.mixer_norm.weight"] = f"{theirs}.input_layernorm.weight"
        table[f"{ours}.feedforward_norm.weight"] = f"{theirs}.pre_ff_layernorm.weight"
        for kind in ["weight"] + ["bias"] * shape.mlp_bias:
            for our in ("gate", "up", "down"):
                table[f"{ours}.feedforward.{our}.{kind}"] = f"{theirs}.feed_forward.{our}_proj.{kind}"
        if shape.mixer(layer) == "mamba2":
            table |= _state_space.names(shape, f"{ours}.mixer", f"{theirs}.mamba")
            continue
        for kind in ["weight"] + ["bias"] * shape.attention_bias:
            for our, their in zip(("query", "key", "value", "output"), "qkvo", strict=True):
                table[f"{ours}.mixer.{our}.{kind}"] = f"{theirs}.self_attn.{their}_proj.{kind}"
    return table
