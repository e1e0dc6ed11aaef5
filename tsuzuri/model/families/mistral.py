"""Mistral (Jiang et al. 2023): LLaMA with grouped queries, each layer looking back over a window only.

a token sees itself and the W − 1 before it; through L layers, what lies up to L (W − 1) back
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families import _like_llama
from tsuzuri.model.families._fields import Fields, every, said
from tsuzuri.model.transformer import Shape

MODEL_TYPE = "mistral"
ARCHITECTURE = "MistralForCausalLM"
SPECIAL = Words(
    "LLaMA の形に、直前の W トークンだけを見る窓を加えた。長い文脈でも、注意の計算とキャッシュが W に比例するだけで済む。",
    "LLaMA with a window: a token sees the last W only, so that attention and cache grow with W and not with the text.",
)
EQUATION = "x ← x + O·attend(rot(Q n(x)), rot(K n(x)), V n(x); i − j < W);  x ← x + D(silu(G n(x)) · U n(x))"
PAPER = "Jiang et al. 2023, Mistral 7B"
PUBLIC = {
    "Mistral 7B v0.1": "4096 × 32, H 32, K 8, F 14336, V 32000, W 4096",
    "Mistral 7B v0.3": "4096 × 32, H 32, K 8, F 14336, V 32768",
    "Mistral NeMo 12B": "5120 × 40, H 32, K 8, E 128, F 14336, V 131072",
}
PREFIX = _like_llama.PREFIX
USUAL: dict[str, Any] = {"sliding_window": 4096}
SAID = every(Shape, *_like_llama.SIZES, "sliding_window")


def shape(config: Mapping[str, Any]) -> Shape:
    fields = Fields(config)
    fields.must_be("hidden_act", "silu", "swish")
    found = _like_llama.sizes(fields, longest=131072, keys=8)
    # where the field is missing, as transformers has it
    window = _like_llama.window(fields) if "sliding_window" in config else 4096
    choices = {**found, **_like_llama.rotary(fields, found["max_position_embeddings"]), "sliding_window": window}
    fields.done()
    return Shape(**choices)


def config(shape: Shape) -> dict[str, Any]:
    said(shape, SAID, MODEL_TYPE)
    return {
        **_like_llama.config(shape, MODEL_TYPE, ARCHITECTURE),
        "hidden_act": "silu",
        "sliding_window": shape.sliding_window,
    }


def names(shape: Shape) -> dict[str, str]:
    return _like_llama.names(shape)
