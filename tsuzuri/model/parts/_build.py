"""The parts that a shape asks for, by name: what a part calls to build the parts inside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from tsuzuri.folder import find

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

PARTS = "tsuzuri.model.parts"
ATTENTION = ("full_attention", "sliding_attention")  # layer types that `Shape.attention` computes


def norm(shape: Shape, size: int | None = None) -> nn.Module:
    """Of `size` numbers; None: of the hidden state."""
    part: nn.Module = find(PARTS, shape.norm).Part(size or shape.hidden_size, shape.norm_eps)
    return part


def mixer(shape: Shape, layer: int) -> nn.Module:
    """What mixes tokens in this layer: attention, or the part its layer type names."""
    part: nn.Module = find(PARTS, shape.mixer(layer)).Part(shape, layer)
    return part


def feedforward(shape: Shape, layer: int) -> nn.Module:
    part: nn.Module = find(PARTS, str(shape.feedforward)).Part(shape, layer)
    return part
