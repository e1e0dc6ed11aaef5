"""The decoder, read from top to bottom: embed, then blocks of attention and feed-forward around a residual, then a head.

In: ids (...) and a `Past`. Out: logits (..., V). The parts are chosen by name in `Shape`, in the words of Hugging
Face's config.json. It knows no batch, no cache, no mask and no training: `...` is (B, T) or (N,), the past does the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsuzuri.errors import ConfigError, Words
from tsuzuri.folder import find, suggestion
from tsuzuri.folder import names as file_names
from tsuzuri.types import Past

PARTS = "tsuzuri.model.parts"
LONGEST = 1 << 24  # of any side of a model; three of them multiplied still fit where torch counts bytes
DEEPEST = 1024  # blocks; a config.json may come from anywhere, and each block costs memory even before its weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Every choice that makes a decoder, checked. Names are those of Hugging Face's config.json where it has one."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    num_key_value_heads: int | None = None  # None: as many as attention heads
    head_dim: int | None = None  # None: hidden_size / num_attention_heads
    attention: str = "attention"
    feedforward: str = "swiglu"
    norm: str = "rms_norm"
    position: str = "rotary"
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    sliding_window: int | None = None  # a token sees itself and the window - 1 before it
    qk_norm: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False

    @property
    def kv_heads(self) -> int:
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_size(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads

    def __post_init__(self) -> None:
        positive = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings")
        for name in (*positive, "num_key_value_heads", "head_dim", "sliding_window"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise _impossible(name, Words(f"{value} ですが、1 以上の整数が要ります。", f"It is {value} and must be at least 1."))
            self._bounded(name, value or 1, DEEPEST if name == "num_hidden_layers" else LONGEST)
        for name in ("norm_eps", "rope_theta"):
            if not 0 < getattr(self, name) < math.inf:
                raise _impossible(
                    name, Words(f"{getattr(self, name)} ですが、正の数が要ります。", f"It is {getattr(self, name)}, not positive.")
                )
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            text = f"hidden_size {self.hidden_size} / num_attention_heads {self.num_attention_heads}"
            raise _impossible("num_attention_heads", Words(f"{text} が割り切れません。", f"{text} leaves a remainder."))
        if self.num_attention_heads % self.kv_heads:
            text = f"num_attention_heads {self.num_attention_heads} / num_key_value_heads {self.kv_heads}"
            raise _impossible("num_key_value_heads", Words(f"{text} が割り切れません。", f"{text} leaves a remainder."))
        if self.position == "rotary" and self.head_size % 2:
            found = Words(
                f"head_dim が {self.head_size} で、回転位置には偶数が要ります。", f"head_dim is {self.head_size}; rotary needs it even."
            )
            raise _impossible("head_dim", found)
        self._bounded("head_dim", self.num_attention_heads * self.head_size, LONGEST)
        for kind in ("attention", "feedforward", "norm", "position"):
            self._check_part(kind)

    def _bounded(self, name: str, value: int, most: int) -> None:
        if value > most:
            raise _impossible(name, Words(f"大きすぎます（{value}、{most} まで）。", f"It is too large ({value}, at most {most})."))

    def _check_part(self, kind: str) -> None:
        name = getattr(self, kind)
        known = [part for part in file_names(PARTS) if kind == find(PARTS, part).KIND]
        if name not in known:
            raise ConfigError(
                Words(f"{kind} に「{name}」が指定されました。", f"'{name}' was given for {kind}."),
                found=Words(f"あるのは {'、'.join(known)} です。", f"There is {', '.join(known)}."),
                todo=suggestion(name, known),
            )


def _impossible(name: str, found: Words) -> ConfigError:
    return ConfigError(
        Words(f"モデルの形の {name} に問題があります。", f"Checking {name} of the model's shape."),
        found=found,
        todo=Words("モデルの設定を直してください。", "Correct the model's settings."),
    )


class Transformer(nn.Module):
    """A decoder of the given shape, on the given device ("meta" allocates nothing). `initialise` fills its weights."""

    def __init__(self, shape: Shape, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.shape = shape
        with torch.device(device):
            self.embedding = nn.Embedding(shape.vocab_size, shape.hidden_size)
            self.position = find(PARTS, shape.position).Part(shape)
            self.blocks = nn.ModuleList(Block(shape, layer) for layer in range(shape.num_hidden_layers))
            self.norm = find(PARTS, shape.norm).Part(shape.hidden_size, shape.norm_eps)
            self.head = None if shape.tie_word_embeddings else nn.Linear(shape.hidden_size, shape.vocab_size, bias=False)
        self.to(dtype)

    def forward(self, tokens: Tensor, past: Past) -> Tensor:
        """(...) int64 -> logits (..., V)"""
        return F.linear(self.hidden(tokens, past), self.head_weight)

    def hidden(self, tokens: Tensor, past: Past) -> Tensor:
        """(...) int64 -> (..., D) after the last norm: what the head reads"""
        place = self.position(past.positions)
        x: Tensor = self.embedding(tokens)  # (..., D)
        if place.add is not None:
            x = x + place.add.to(x.dtype)
        for block in self.blocks:
            x = block(x, place, past)
        out: Tensor = self.norm(x)
        return out

    @property
    def head_weight(self) -> Tensor:
        """(V, D)"""
        return self.embedding.weight if self.head is None else self.head.weight

    @torch.no_grad()
    def initialise(self, seed: int) -> Transformer:
        """Fill all weights from `seed`: matrices normal with std 1/√fan-in, projections back into the residual zero
        (each block starts as the identity), embeddings and head small so that the first loss is ln V."""
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if weight.dim() < 2:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            std = 0.02 if "embedding" in name or "head" in name or "table" in name else 1 / math.sqrt(weight.shape[1])
            drawn = torch.randn(weight.shape, generator=generator) * std
            weight.copy_(torch.zeros(()) if name.endswith(("attention.output.weight", "feedforward.down.weight")) else drawn)
        return self


class Block(nn.Module):
    """Pre-norm residual block: x + attention(norm(x)), then x + feedforward(norm(x))."""

    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        norm = find(PARTS, shape.norm).Part
        self.attention_norm = norm(shape.hidden_size, shape.norm_eps)
        self.attention = find(PARTS, shape.attention).Part(shape, layer)
        self.feedforward_norm = norm(shape.hidden_size, shape.norm_eps)
        self.feedforward = find(PARTS, shape.feedforward).Part(shape)

    def forward(self, x: Tensor, place: object, past: Past) -> Tensor:
        x = x + self.attention(self.attention_norm(x), place, past)
        out: Tensor = x + self.feedforward(self.feedforward_norm(x))
        return out
