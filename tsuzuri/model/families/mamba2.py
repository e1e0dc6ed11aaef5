"""Mamba-2 (Dao & Gu 2024): no attention; every layer is a state that decays, and blocks have no feed-forward.

    S_t = exp(A Δ_t) S_{t−1} + Δ_t x_t ⊗ B_t;   y_t = S_t C_t + D x_t;   x ← x + O norm(y · silu(z))

The cost of a token does not grow with the text before it. The layer itself is `parts/mamba2.py`; reading its fields is in
`_state_space.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import _state_space
from tsuzuri.model.families._fields import Fields, every, said
from tsuzuri.model.parts.mamba2 import StateSpace
from tsuzuri.model.transformer import Shape

MODEL_TYPE = "mamba2"
ARCHITECTURE = "Mamba2ForCausalLM"
PREFIX = "backbone."
SPECIAL = Words(
    "注意機構を使わず、減衰する状態に文脈を畳み込む。1 トークンの計算量は文脈の長さによらない。",
    "No attention: the text before is folded into a decaying state, and a token costs the same however long it is.",
)
EQUATION = "S_t = exp(AΔ_t)·S_{t−1} + Δ_t·x_t⊗B_t;  y_t = S_t·C_t + D·x_t;  x ← x + O·norm(y·silu(z))"
PAPER = "Dao & Gu 2024, Transformers are SSMs (Mamba-2); Gu & Dao 2023, Mamba"
PUBLIC = {
    "Mamba-2 130M": "768 × 24, H 24, P 64, N 128, V 50288, tied",
    "Mamba-2 2.7B": "2560 × 64, H 80, P 64, N 128, V 50288, tied",
    "Mamba-Codestral 7B": "4096 × 64, H 128, P 64, N 128, G 8, V 32768",
}
VARYING = ("vocab_size", "hidden_size", "num_hidden_layers", "norm_eps", "state_space", "tie_word_embeddings")
USUAL: dict[str, Any] = {**every(Shape, *VARYING), "attention": "mamba2", "feedforward": None, "position": "none"}
SAID = USUAL
# Of what was done before training, and of how the same numbers are computed.
WITHOUT_EFFECT = (
    "time_step_rank", "time_step_min", "time_step_max", "time_step_floor", "rescale_prenorm_residual", "chunk_size", "layer_types",
    "residual_in_fp32",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The `model:` section of a recipe."""

    family: str = MODEL_TYPE
    hidden_size: int
    num_hidden_layers: int
    state_space: StateSpace = field(default_factory=StateSpace)
    norm_eps: float = 1e-5
    tie_word_embeddings: bool = False

    def shape(self, vocab_size: int, length: int) -> Shape:
        """`length` is no limit: the state holds a text of any length."""
        own = {name: getattr(self, name) for name in VARYING if name != "vocab_size"}
        return Shape(**{**USUAL, **own, "vocab_size": vocab_size})


def shape(config: Mapping[str, Any]) -> Shape:
    fields = Fields(config)
    fields.must_be("hidden_act", "silu", "swish")
    for name in WITHOUT_EFFECT:
        fields.optional(name)
    size = fields.whole("hidden_size", 4096)
    found = Shape(
        **{
            **USUAL,
            "vocab_size": fields.whole("vocab_size", 32768),
            "hidden_size": size,
            "num_hidden_layers": fields.whole("num_hidden_layers", 64),
            "norm_eps": fields.number("layer_norm_epsilon", 1e-5),
            "tie_word_embeddings": fields.flag("tie_word_embeddings", False),
            "state_space": _state_space.read(fields, size, _state_space.MAMBA2),
        }
    )
    fields.done()
    return found


def config(shape: Shape) -> dict[str, Any]:
    said(shape, SAID, MODEL_TYPE)
    return {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "hidden_act": "silu",
        "layer_norm_epsilon": shape.norm_eps,
        **_state_space.write(shape, _state_space.MAMBA2),
        "tie_word_embeddings": shape.tie_word_embeddings,
    }


def names(shape: Shape) -> dict[str, str]:
    table = {"embedding.weight": "backbone.embeddings.weight", "norm.weight": "backbone.norm_f.weight"}
    if not shape.tie_word_embeddings:
        table["head.weight"] = "lm_head.weight"
    for layer in range(shape.num_hidden_layers):
        ours, theirs = f"blocks.{layer}", f"backbone.layers.{layer}"
        table[f"{ours}.mixer_norm.weight"] = f"{theirs}.norm.weight"
        table |= _state_space.names(shape, f"{ours}.mixer", f"{theirs}.mixer")
    return table
