"""The stack, read from top to bottom: embed, then blocks of mixing and feed-forward around a residual, then a head.

In: ids (...) and a `Past`. Out: logits (..., V). The parts are chosen by name in `Shape`, in the words of Hugging
Face's config.json. It knows no batch, no cache, no mask and no training: `...` is (B, T) or (N,), the past does the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tsuzuri.errors import ConfigError, Words
from tsuzuri.folder import find, suggestion
from tsuzuri.folder import names as file_names
from tsuzuri.model.parts._activation import ACTIVATIONS
from tsuzuri.model.parts._build import ATTENTION, PARTS, norm
from tsuzuri.model.parts._table import table
from tsuzuri.model.parts.mamba2 import StateSpace
from tsuzuri.model.parts.rotary import Scaling
from tsuzuri.types import Past

LONGEST = 1 << 24  # of any side of a model; three of them multiplied still fit where torch counts bytes
DEEPEST = 1024  # blocks; a config.json may come from anywhere, and each block costs memory even before its weights
IDENTITIES = ("pre_norm", "pre_norm_but_first", "parallel", "parallel_one_norm")  # blocks that pass x on where their projections are zero
MOST_EXPERTS = 1 << 16  # of all layers together, for the same reason
UNLIMITED = 1 << 20  # positions of a model that has no limit of its own: the engine still needs one


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Every choice that makes a model, checked. Names are those of Hugging Face's config.json where it has one."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int = 1
    intermediate_size: int = 1
    max_position_embeddings: int = UNLIMITED
    num_key_value_heads: int | None = None  # None: as many as attention heads
    head_dim: int | None = None  # None: hidden_size / num_attention_heads
    # the parts
    block: str = "pre_norm"
    attention: str = "attention"
    feedforward: str | None = "gated"  # None: blocks have none
    norm: str = "rms_norm"
    position: str = "rotary"
    head: str = "next_token"
    hidden_act: str = "silu"
    # full_attention, sliding_attention, or a mixer by name; the layers repeat the pattern; None: all alike
    layer_types: tuple[str, ...] | None = None
    causal: bool = True  # False: an encoder, each token sees the whole text
    cross_attention: bool = False  # blocks look at the memory of an encoder
    # what the parts are told
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: Scaling | None = None
    rope_local_theta: float | None = None  # of sliding_attention layers, unscaled; None: as the others
    partial_rotary_factor: float = 1.0  # share of a head that turns
    position_offset: int = 0  # rows of a learned table before that of position 0
    state_space: StateSpace | None = None  # of mamba2 layers; None: as it usually is
    relative_buckets: int = 32  # of relative positions; an encoder uses half of them in each direction
    relative_distance: int = 128  # the last bucket begins here
    sliding_window: int | None = None  # a token sees itself and the window - 1 before it
    attention_scale: float | None = None  # of scores; None: 1 / sqrt(head_dim)
    attn_logit_softcapping: float | None = None
    final_logit_softcapping: float | None = None
    embedding_multiplier: float | None = 1.0  # None: √hidden_size
    logit_multiplier: float = 1.0
    qk_norm: Literal["none", "head", "token"] = "none"  # of queries and keys: each head by itself, or all heads of a token
    attention_bias: bool = False  # of queries, keys and values
    attention_output_bias: bool | None = None  # None: as attention_bias
    mlp_bias: bool = False
    head_bias: bool = False
    head_act: str = "gelu"  # of the layer before the last product, in heads that have one
    head_norm: bool = False  # heads of labels have that layer and a norm after it
    head_dense_bias: bool = True  # of that layer
    embedding_norm: bool = False
    type_vocab_size: int = 0  # segments that an encoder tells apart
    labels: tuple[str, ...] = ()  # names of what a head that is no language model tells apart
    pooling: Literal["first", "mean"] = "first"  # what stands for a whole text: its first token, or all of them (`model/pooling.py`)
    tie_word_embeddings: bool = False
    num_experts: int = 1  # feed-forwards that a router chooses from
    num_experts_per_tok: int = 1
    router_aux_loss_coef: float = 0.0  # in training: how much uneven use of the experts costs

    @property
    def kv_heads(self) -> int:
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def num_labels(self) -> int:
        return len(self.labels)

    @property
    def head_size(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def query_share(self) -> float:
        """Of the usual size of the weights of queries: scores that are not divided by √E (T5) would else begin √E times too large, and
        the softmax of them would see one token alone."""
        return 1.0 if self.attention_scale is None or self.qk_norm != "none" else self.head_size**-0.5 / self.attention_scale

    @property
    def rotary_size(self) -> int:
        """How many numbers of a head turn."""
        return int(self.head_size * self.partial_rotary_factor)

    @property
    def output_bias(self) -> bool:
        return self.attention_bias if self.attention_output_bias is None else self.attention_output_bias

    @property
    def embedding_scale(self) -> float:
        return math.sqrt(self.hidden_size) if self.embedding_multiplier is None else self.embedding_multiplier

    def layer_type(self, layer: int) -> str:
        if self.layer_types is not None:
            return self.layer_types[layer % len(self.layer_types)]
        return "full_attention" if self.sliding_window is None else "sliding_attention"

    def mixer(self, layer: int) -> str:
        """The part that mixes tokens in this layer."""
        kind = self.layer_type(layer)
        return self.attention if kind in ATTENTION else kind

    def window(self, layer: int) -> int | None:
        return self.sliding_window if self.layer_type(layer) == "sliding_attention" else None

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_numbers()
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            text = f"hidden_size {self.hidden_size} / num_attention_heads {self.num_attention_heads}"
            raise impossible("num_attention_heads", Words(f"{text} が割り切れません。", f"{text} leaves a remainder."))
        if self.num_attention_heads % self.kv_heads:
            text = f"num_attention_heads {self.num_attention_heads} / num_key_value_heads {self.kv_heads}"
            raise impossible("num_key_value_heads", Words(f"{text} が割り切れません。", f"{text} leaves a remainder."))
        if self.position == "rotary":
            self._check_rotary()
        if self.position == "relative":
            self._check_relative()
        self._bounded("head_dim", self.num_attention_heads * self.head_size, LONGEST)
        for kind in ("block", "attention", "feedforward", "norm", "position", "head"):
            if kind != "feedforward" or self.feedforward is not None:
                self._check_part(kind, getattr(self, kind), "mixer" if kind == "attention" else kind)
        self._check_layers()
        self._check_labels()
        if "mamba2" in (self.attention, *(self.layer_types or ())):
            self._check_state_space(self.state_space or StateSpace())
        for name in ("hidden_act", "head_act"):
            if getattr(self, name) not in ACTIVATIONS:
                raise _no_such(name, getattr(self, name), list(ACTIVATIONS))

    def _check_counts(self) -> None:
        positive = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings")
        for name in (*positive, "num_key_value_heads", "head_dim", "sliding_window", "num_experts", "num_experts_per_tok"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise impossible(name, Words(f"{value} ですが、1 以上の整数が要ります。", f"It is {value} and must be at least 1."))
            self._bounded(name, value or 1, DEEPEST if name == "num_hidden_layers" else LONGEST)
        for name in ("type_vocab_size", "position_offset"):
            value = getattr(self, name)
            if value < 0:
                raise impossible(name, Words(f"{value} ですが、0 以上の整数が要ります。", f"It is {value} and must not be negative."))
            self._bounded(name, value, LONGEST)
        if self.num_experts_per_tok > self.num_experts:
            text = f"num_experts_per_tok {self.num_experts_per_tok} / num_experts {self.num_experts}"
            raise impossible("num_experts_per_tok", Words(f"あるよりも多く使えません（{text}）。", f"More than there are ({text})."))
        self._bounded("num_experts", self.num_hidden_layers * self.num_experts, MOST_EXPERTS)

    def _check_numbers(self) -> None:
        optional = ("rope_local_theta", "attention_scale", "attn_logit_softcapping", "final_logit_softcapping")
        for name in ("norm_eps", "rope_theta", "partial_rotary_factor", "embedding_multiplier", "logit_multiplier", *optional):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise impossible(name, Words(f"{value} ですが、正の数が要ります。", f"It is {value}, not positive."))
        if not 0 <= self.router_aux_loss_coef < math.inf:
            value = self.router_aux_loss_coef
            raise impossible("router_aux_loss_coef", Words(f"{value} ですが、0 以上の数が要ります。", f"It is {value}, not at least 0."))
        if self.partial_rotary_factor > 1:
            value = self.partial_rotary_factor
            raise impossible("partial_rotary_factor", Words(f"{value} ですが、1 までです。", f"It is {value}; it is at most 1."))

    def _check_rotary(self) -> None:
        size, scaling = self.rotary_size, self.rope_scaling
        if size % 2 or not size:
            found = Words(
                f"回転させる数が {size} 個で、回転位置には 2 以上の偶数が要ります。",
                f"{size} numbers of a head turn; rotary needs an even number, at least 2.",
            )
            raise impossible("head_dim", found)
        for factors in (scaling.short_factor, scaling.long_factor) if scaling and scaling.rope_type == "longrope" else ():
            if len(factors or ()) != size // 2:
                found = Words(
                    f"係数が {len(factors or ())} 個で、{size // 2} 個要ります。", f"It has {len(factors or ())}, not {size // 2}."
                )
                raise impossible("rope_scaling", found)
        if scaling and scaling.rope_type == "dynamic" and size < 4:
            raise impossible("rope_scaling", Words("dynamic には 4 以上が要ります。", "dynamic needs at least 4 numbers to turn."))

    def _check_relative(self) -> None:
        buckets, distance = self.relative_buckets, self.relative_distance
        if buckets < 4 or buckets % 4:
            found = Words(f"{buckets} ですが、4 の倍数が要ります。", f"It is {buckets}; a multiple of 4 is needed.")
            raise impossible("relative_buckets", found)
        if not buckets // 2 < distance <= LONGEST or buckets > LONGEST:
            found = Words(f"{distance} ですが、{buckets // 2} より大きい数が要ります。", f"It is {distance}, not more than {buckets // 2}.")
            raise impossible("relative_distance", found)

    def _check_layers(self) -> None:
        types = self.layer_types
        if types is None:
            return
        if not types:
            raise impossible("layer_types", Words("空です。", "It is empty."))
        for kind in {*types} - {*ATTENTION}:
            self._check_part("layer_types", kind, "mixer", *ATTENTION)
        if "sliding_attention" in types and self.sliding_window is None:
            raise impossible(
                "sliding_window", Words("sliding_attention の層があるのに、ありません。", "A layer slides, but it is missing.")
            )

    def _check_state_space(self, told: StateSpace) -> None:
        heads, inner = told.heads(self.hidden_size), told.expand * self.hidden_size
        sides = {
            "expand": told.expand, "num_heads": heads, "state_size": told.state_size, "n_groups": told.n_groups, "conv_kernel": told.conv_kernel,
        }  # fmt: skip
        for name, value in sides.items():
            if value < 1:
                found = Words(f"{name} が {value} ですが、1 以上の整数が要ります。", f"{name} is {value} and must be at least 1.")
                raise impossible("state_space", found)
        for value in (inner, told.n_groups * told.state_size, told.conv_kernel):
            self._bounded("state_space", value, LONGEST)
        if inner % heads or heads % told.n_groups:
            text = f"expand × hidden_size {inner} / num_heads {heads} / n_groups {told.n_groups}"
            raise impossible("state_space", Words(f"{text} が割り切れません。", f"{text} leaves a remainder."))
        least, largest = told.least_step, math.inf if told.largest_step is None else told.largest_step
        if not 0 <= least < math.inf or not least <= largest:
            raise impossible("state_space", Words(f"刻みの範囲が {least}–{largest} です。", f"Steps lie in {least} … {largest}."))

    def _check_labels(self) -> None:
        """A head of labels has some, each once; one that marks a stretch has two, its start and its end."""
        wanted = getattr(find(PARTS, self.head), "LABELS", None)
        self._bounded("labels", len(self.labels), LONGEST)
        if len({*self.labels}) < len(self.labels):
            raise impossible("labels", Words("同じ名前が二度あります。", "A name stands twice."))
        if (wanted == "some" and not self.labels) or (wanted == "two" and len(self.labels) != 2):
            count = Words("1 個以上", "at least one") if wanted == "some" else Words("2 個", "two")
            raise impossible(
                "labels",
                Words(
                    f"{len(self.labels)} 個ですが、{self.head} には{count.ja}要ります。",
                    f"There are {len(self.labels)}; {self.head} needs {count.en}.",
                ),
            )

    def _bounded(self, name: str, value: int, most: int) -> None:
        if value > most:
            raise impossible(name, Words(f"大きすぎます（{value}、{most} まで）。", f"It is too large ({value}, at most {most})."))

    def _check_part(self, field: str, name: str, kind: str, *others: str) -> None:
        parts = file_names(PARTS)
        if name not in parts or kind != find(PARTS, name).KIND:
            raise _no_such(field, name, [*others, *(part for part in parts if kind == find(PARTS, part).KIND)])


def _no_such(field: str, name: str, known: list[str]) -> ConfigError:
    return ConfigError(
        Words(f"{field} に「{name}」が指定されました。", f"'{name}' was given for {field}."),
        found=Words(f"あるのは {'、'.join(known)} です。", f"There is {', '.join(known)}."),
        todo=suggestion(name, known),
    )


def impossible(name: str, found: Words) -> ConfigError:
    """A shape in which the field `name` cannot be."""
    return ConfigError(
        Words(f"モデルの形の {name} に問題があります。", f"Checking {name} of the model's shape."),
        found=found,
        todo=Words("モデルの設定を直してください。", "Correct the model's settings."),
    )


def query_shares(model: nn.Module) -> dict[str, float]:
    """`query_share` of every weight of queries where it is not 1, by name: as large as it begins are its steps."""
    parts = {name: getattr(part, "share", 1.0) for name, part in model.named_modules()}
    return {f"{name}.query.weight": share for name, share in parts.items() if share != 1.0}


@runtime_checkable
class Resets(Protocol):
    """A part whose weights do not start as those of others do."""

    def reset(self, generator: torch.Generator) -> None: ...


class Transformer(nn.Module):
    """A model of the given shape, on the given device ("meta" allocates nothing). `initialise` fills its weights."""

    def __init__(self, shape: Shape, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.shape = shape
        block = find(PARTS, shape.block)
        with torch.device(device):
            self.embedding = table(shape.vocab_size, shape.hidden_size)
            self.segment_embedding = table(shape.type_vocab_size, shape.hidden_size) if shape.type_vocab_size else None
            self.position = find(PARTS, shape.position).Part(shape)
            self.local_position = self._local(shape)
            self.embedding_norm = norm(shape) if shape.embedding_norm else None
            self.blocks = nn.ModuleList(block.Part(shape, layer) for layer in range(shape.num_hidden_layers))
            self.norm = norm(shape) if block.LAST_NORM else nn.Identity()
            self.head = find(PARTS, shape.head).Part(shape)
        self.to(dtype)

    @staticmethod
    def _local(shape: Shape) -> nn.Module | None:
        """The positions of layers that slide, where they have a theta of their own."""
        if shape.rope_local_theta is None:
            return None
        part: nn.Module = find(PARTS, shape.position).Part(replace(shape, rope_theta=shape.rope_local_theta, rope_scaling=None))
        return part

    @property
    def vocab_size(self) -> int:
        return self.shape.vocab_size

    @property
    def context_length(self) -> int:
        """Tokens of the longest text; linear and dynamic scaling lengthen what the positions were trained for."""
        longest, scaling = self.shape.max_position_embeddings, self.shape.rope_scaling
        return int(longest * scaling.factor) if scaling and scaling.rope_type in ("linear", "dynamic") else longest

    def forward(self, tokens: Tensor, past: Past) -> Tensor:
        """(...) int64 -> logits (..., V)"""
        return self.logits(self.hidden(tokens, past))

    def hidden(self, tokens: Tensor, past: Past) -> Tensor:
        """(...) int64 -> (..., D) after the last norm: what the head reads"""
        place = self.position(past)
        local = place if self.local_position is None else self.local_position(past)
        x: Tensor = self.embedding(tokens)  # (..., D)
        if self.shape.embedding_scale != 1:
            x = x * torch.tensor(self.shape.embedding_scale, dtype=x.dtype)  # rounded as the weights are
        if place.add is not None:
            x = x + place.add.to(x.dtype)
        if self.segment_embedding is not None:
            x = x + self.segment_embedding(torch.zeros_like(tokens) if past.segments is None else past.segments)
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        for layer, block in enumerate(self.blocks):
            x = block(x, place if self.shape.window(layer) is None else local, past)
        out: Tensor = self.norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """What `hidden` gives (..., D) -> (..., V)"""
        found: Tensor = self.head(hidden, self.embedding.weight)
        if self.shape.logit_multiplier != 1:
            found = found * self.shape.logit_multiplier
        if self.shape.final_logit_softcapping is not None:
            found = self.shape.final_logit_softcapping * (found / self.shape.final_logit_softcapping).tanh()
        return found

    @property
    def head_weight(self) -> Tensor:
        """(V, D)"""
        found: Tensor = self.embedding.weight if self.head.weight is None else self.head.weight
        return found

    @property
    def head_is_linear(self) -> bool:
        """Whether logits are `hidden @ head_weight.T` and nothing more."""
        shape = self.shape
        plain = shape.logit_multiplier == 1 and shape.final_logit_softcapping is None
        return shape.head == "next_token" and not shape.head_bias and plain

    @torch.no_grad()
    def initialise(self, seed: int) -> Transformer:
        """Fill all weights from `seed`: matrices normal with std 1/√fan-in, projections back into the residual zero
        (each block starts as the identity), embeddings and head small so that the first loss is ln V."""
        generator, share = torch.Generator().manual_seed(seed), query_shares(self)
        zero = ("mixer.output.weight", "cross.output.weight", ".down.weight") if self.shape.block in IDENTITIES else ()
        for name, weight in self.named_parameters():
            if weight.dim() < 2:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            std = 0.02 if "embedding" in name or "head" in name or "table" in name else 1 / math.sqrt(weight.shape[-1])
            drawn = torch.randn(weight.shape, generator=generator) * (std * share.get(name, 1.0))
            weight.copy_(torch.zeros(()) if name.endswith(zero) else drawn)
        for module in self.modules():
            if isinstance(module, Resets):
                module.reset(generator)
        return self
