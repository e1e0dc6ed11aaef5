"""Attention over heads: multi-head, grouped-query and multi-query are one part with H, 1 < K < H, and 1 key/value heads.

    MHA  q q q q      GQA  q q q q      MQA  q q q q
         | | | |           \\ / \\ /            \\ | | /
         k k k k            k   k                k

Vaswani et al. 2017, section 3.2.2; Shazeer 2019 (MQA); Ainslie et al. 2023 (GQA); queries and keys may be
normalised per head first (Henry et al. 2020, QK-norm). Who may look at whom is the past's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from tsuzuri.model.parts import rms_norm
from tsuzuri.model.parts._place import Place
from tsuzuri.model.parts.rotary import rotate
from tsuzuri.types import Past

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "attention"


class Part(nn.Module):
    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        size, self.head_size, self.layer, self.window = shape.hidden_size, shape.head_size, layer, shape.sliding_window
        queries, keys = shape.num_attention_heads * self.head_size, shape.kv_heads * self.head_size
        self.query = nn.Linear(size, queries, bias=shape.attention_bias)
        self.key = nn.Linear(size, keys, bias=shape.attention_bias)
        self.value = nn.Linear(size, keys, bias=shape.attention_bias)
        self.output = nn.Linear(queries, size, bias=shape.attention_bias)
        self.query_norm: nn.Module = rms_norm.Part(self.head_size, shape.norm_eps) if shape.qk_norm else nn.Identity()
        self.key_norm: nn.Module = rms_norm.Part(self.head_size, shape.norm_eps) if shape.qk_norm else nn.Identity()

    def forward(self, x: Tensor, place: Place, past: Past) -> Tensor:
        """(..., D) -> (..., D)"""
        q, k, v = (project(x).unflatten(-1, (-1, self.head_size)) for project in (self.query, self.key, self.value))
        q, k = self.query_norm(q), self.key_norm(k)  # (..., H, E), (..., K, E)
        if place.cos is not None and place.sin is not None:
            q, k = rotate(q, place.cos, place.sin), rotate(k, place.cos, place.sin)
        heads = past.attend(self.layer, q, k, v, window=self.window, slopes=place.slopes)  # (..., H, E)
        out: Tensor = self.output(heads.flatten(-2))
        return out
