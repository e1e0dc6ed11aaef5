"""Mixtral (Jiang et al. 2024): Mistral whose feed-forward is a choice of k among X experts for each token.

p = softmax(W n(x));   x ← x + Σ over the k largest  p_e / (their sum) · D_e (silu(G_e n(x)) · U_e n(x))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tsuzuri.errors import Words
from tsuzuri.model.families import _like_llama
from tsuzuri.model.families._fields import Fields, every, said
from tsuzuri.model.transformer import Shape

MODEL_TYPE = "mixtral"
ARCHITECTURE = "MixtralForCausalLM"
SPECIAL = Words(
    "層ごとに八つの専門家（順伝播層）を持ち、トークンごとに二つだけを使う。重みの数のわりに計算が少ない。",
    "Eight experts (feed-forwards) a layer, of which each token uses two: much to know, little to compute.",
)
EQUATION = "p = softmax(W n(x));  x ← x + Σ_{e ∈ top k} p_e / Σp · D_e(silu(G_e n(x)) · U_e n(x))"
PAPER = "Jiang et al. 2024, Mixtral of Experts; Fedus et al. 2022, Switch Transformers (balance of the experts)"
PUBLIC = {
    "Mixtral 8x7B": "4096 × 32, H 32, K 8, F 14336, X 8, k 2, V 32000",
    "Mixtral 8x22B": "6144 × 56, H 48, K 8, F 16384, X 8, k 2, V 32768",
}
PREFIX = _like_llama.PREFIX
USUAL: dict[str, Any] = {
    "feedforward": "experts", "num_experts": 8, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.02, "rope_theta": 1e6,
}  # fmt: skip
OPEN = (*_like_llama.SIZES, "sliding_window", "num_experts", "num_experts_per_tok", "router_aux_loss_coef")
SAID = {**every(Shape, *OPEN), "feedforward": "experts"}


def shape(config: Mapping[str, Any]) -> Shape:
    fields = Fields(config)
    fields.must_be("hidden_act", "silu", "swish")
    for name in ("output_router_logits", "router_jitter_noise"):  # what else to return; noise in training
        fields.optional(name)
    found = _like_llama.sizes(fields, longest=131072, eps=1e-5, keys=8)
    choices = {
        **found,
        **_like_llama.rotary(fields, found["max_position_embeddings"], theta=1e6),
        "feedforward": "experts",
        "sliding_window": _like_llama.window(fields),
        "num_experts": fields.whole("num_local_experts", 8),
        "num_experts_per_tok": fields.whole("num_experts_per_tok", 2),
        "router_aux_loss_coef": fields.amount("router_aux_loss_coef", 0.001),
    }
    fields.done()
    return Shape(**choices)


def config(shape: Shape) -> dict[str, Any]:
    said(shape, SAID, MODEL_TYPE)
    return {
        **_like_llama.config(shape, MODEL_TYPE, ARCHITECTURE),
        "hidden_act": "silu",
        "sliding_window": shape.sliding_window,
        "num_local_experts": shape.num_experts,
        "num_experts_per_tok": shape.num_experts_per_tok,
        "router_aux_loss_coef": shape.router_aux_loss_coef,
    }


def names(shape: Shape) -> dict[str, str]:
    table = _like_llama.names(shape)
    for layer in range(shape.num_hidden_layers):
        ours, theirs = f"blocks.{layer}.feedforward", f"model.layers.{layer}.block_sparse_moe"
        table[f"{ours}.router.weight"] = f"{theirs}.gate.weight"
        for expert in range(shape.num_experts):
            for our, their in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
                table[f"{ours}.experts.{expert}.{our}.weight"] = f"{theirs}.experts.{expert}.{their}.weight"
    return table


def otherwise(found: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """Weights as version 5 of transformers holds them, all experts of a layer in one tensor -> as they are published."""
    tensors = dict(found)
    for layer in range(shape.num_hidden_layers):
        old, new = f"model.layers.{layer}.block_sparse_moe", f"model.layers.{layer}.mlp"
        both, down = (tensors.get(f"{new}.experts.{name}_proj") for name in ("gate_up", "down"))
        if both is None or down is None or both.dim() != 3 or both.shape[1] % 2 or len(both) != shape.num_experts or len(down) != len(both):
            continue
        for name in ("gate_up", "down"):
            del tensors[f"{new}.experts.{name}_proj"]
        if f"{new}.gate.weight" in tensors:
            tensors[f"{old}.gate.weight"] = tensors.pop(f"{new}.gate.weight")
        for expert in range(shape.num_experts):
            w1, w3 = both[expert].chunk(2)  # (F, D) each
            tensors |= {f"{old}.experts.{expert}.{name}.weight": w for name, w in (("w1", w1), ("w2", down[expert]), ("w3", w3))}
    return tensors
