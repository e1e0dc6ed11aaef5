"""tsuzuri's own family: any combination of parts, for learning what each does. Loads here and nowhere else.

The config.json holds `Shape` field by field and the weights keep our names, so nothing is lost and nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tsuzuri.config import build, dump
from tsuzuri.errors import Words
from tsuzuri.model.families._fields import TODO, WITHOUT_EFFECT
from tsuzuri.model.transformer import Shape, Transformer

MODEL_TYPE = "tsuzuri"
USUAL: dict[str, Any] = {}
SPECIAL = Words("部品の組み合わせを自由に選べる、学ぶための系統。", "Any combination of parts: the family for learning what each does.")
EQUATION = "Shape"
PAPER = "—"
PUBLIC: dict[str, str] = {}


def shape(config: Mapping[str, Any]) -> Shape:
    return build(Shape, {name: value for name, value in config.items() if name not in WITHOUT_EFFECT}, todo=TODO)


def config(shape: Shape) -> dict[str, Any]:
    return {"architectures": ["TsuzuriForCausalLM"], "model_type": MODEL_TYPE, **dump(shape)}


def names(shape: Shape) -> dict[str, str]:
    with torch.device("meta"):
        return {name: name for name, _ in Transformer(shape, device="meta").named_parameters()}
