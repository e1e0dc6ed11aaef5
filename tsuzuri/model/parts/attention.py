"""Attention over heads: multi-head, grouped-query and multi-query are one part with H, 1 < K < H, and 1 key/value heads.

    MHA  q q q q      GQA  q q q q      MQA  q q q q
         | | | |           \\ / \\ /            \\ | | /
         k k k k            k   k                k

Vaswani et al. 2017, section 3.2.2; Shazeer 2019 (MQA); Ainslie et al. 2023 (GQA); queries and keys may be
normalised first (Henry et al. 2020, QK-norm), each head by itself or all heads of a token together.
Who may look at whom is the past's business. `Cross` looks at another sequence instead, the memory of an encoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Generator, Tensor, nn

from tsuzuri.model.parts._build import norm
from tsuzuri.model.parts._place import Place
from tsuzuri.model.parts.rotary import rotate
from tsuzuri.types import Past

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "mixer"


class Part(nn.Module):
    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        size, self.head_size, self.layer, self.window = shape.hidden_size, shape.head_size, layer, shape.window(layer)
        self.scale, self.softcap, self.share = shape.attention_scale, shape.attn_logit_softcapping, shape.query_share
        queries, keys = shape.num_attention_heads * self.head_size, shape.kv_heads * self.head_size
        self.query = nn.Linear(size, queries, bias=shape.attention_bias)
        self.key = nn.Linear(size, keys, bias=shape.attention_bias)
        self.value = nn.Linear(size, keys, bias=shape.attention_bias)
        self.output = nn.Linear(queries, size, bias=shape.output_bias)
        self.together = shape.qk_norm == "token"
        sides = (queries, keys) if self.together else (self.head_size, self.head_size)
        self.query_norm, self.key_norm = (nn.Identity() if shape.qk_norm == "none" else norm(shape, side) for side in sides)

    def forward(self, x: Tensor, place: Place, past: Past) -> Tensor:
        """(..., D) -> (..., D)"""
        q, k, v = self.query(x), self.key(x), self.value(x)  # (..., H E), (..., K E)
        if self.together:
            q, k = self.query_norm(q), self.key_norm(k)
        q, k, v = (each.unflatten(-1, (-1, self.head_size)) for each in (q, k, v))  # (..., H, E), (..., K, E)
        if not self.together:
            q, k = self.query_norm(q), self.key_norm(k)
        if place.cos is not None and place.sin is not None:
            q, k = rotate(q, place.cos, place.sin), rotate(k, place.cos, place.sin)
        heads = past.attend(self.layer, q, k, v, scale=self.scale, window=self.window, softcap=self.softcap, bias=place.bias)
        out: Tensor = self.output(heads.flatten(-2))  # (..., H, E) -> (..., D)
        return out


class Cross(nn.Module):
    """Queries of one sequence, keys and values of the memory (Vaswani et al. 2017, section 3.2.3)."""

    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        size, self.head_size, self.layer, self.scale = shape.hidden_size, shape.head_size, layer, shape.attention_scale
        self.share = shape.query_share
        queries, keys = shape.num_attention_heads * self.head_size, shape.kv_heads * self.head_size
        self.query = nn.Linear(size, queries, bias=shape.attention_bias)
        self.key = nn.Linear(size, keys, bias=shape.attention_bias)
        self.value = nn.Linear(size, keys, bias=shape.attention_bias)
        self.output = nn.Linear(queries, size, bias=shape.output_bias)

    def forward(self, x: Tensor, past: Past) -> Tensor:
        """(..., D) -> (..., D)"""
        q = self.query(x).unflatten(-1, (-1, self.head_size))  # (..., H, E)
        out: Tensor = self.output(past.cross(self.layer, q, self.project, scale=self.scale).flatten(-2))
        return out

    def reset(self, generator: Generator) -> None:
        """Keys begin as the queries do: what a token sees first is the same token of the memory, and from there it learns what else
        (Trockman & Kolter 2023 find this in what trained self-attention has become)."""
        if self.key.weight.shape == self.query.weight.shape:
            self.key.weight.copy_(self.query.weight / self.share)

    def project(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """(..., S, D) -> keys and values (..., S, K, E)"""
        k, v = (side(states).unflatten(-1, (-1, self.head_size)) for side in (self.key, self.value))
        return k, v
