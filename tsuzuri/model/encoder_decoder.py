"""Two stacks: an encoder reads a text, a decoder writes another while it looks at what the encoder made of it.

In: the source's ids with a `Bidirectional` past -> states; the target's ids with a past that has these states as its memory ->
logits, behind the same seam as a decoder alone. Both stacks are `Transformer`; they share one embedding unless the source has
a vocabulary of its own. It knows no batch and no cache (Vaswani et al. 2017, section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from tsuzuri.errors import Words
from tsuzuri.model.transformer import DEEPEST, LONGEST, Shape, Transformer, impossible
from tsuzuri.types import Past

LONGEST_SOURCE = 8192  # tokens: every one sees every other, so memory grows with the square


@dataclass(frozen=True, slots=True, kw_only=True)
class PairShape(Shape):
    """The shape of the decoder, and how the encoder differs from it. None: as the decoder."""

    cross_attention: bool = True
    decoder_start_token_id: int = 0  # what the decoder reads first
    encoder_layers: int | None = None
    encoder_attention_heads: int | None = None
    encoder_intermediate_size: int | None = None
    encoder_vocab_size: int | None = None  # of an embedding of its own; None: both read one embedding

    @property
    def decoder(self) -> Shape:
        return Shape(**self._common())

    @property
    def encoder(self) -> Shape:
        """A tied head takes no room: it is never asked."""
        differs = {
            "vocab_size": self.source_vocab_size,
            "num_hidden_layers": self.encoder_layers or self.num_hidden_layers,
            "num_attention_heads": self.encoder_attention_heads or self.num_attention_heads,
            "intermediate_size": self.encoder_intermediate_size or self.intermediate_size,
        }
        headless = {"tie_word_embeddings": True, "head_bias": False, "logit_multiplier": 1.0, "final_logit_softcapping": None}
        return Shape(**{**self._common(), **differs, **headless, "causal": False, "cross_attention": False})

    @property
    def source_vocab_size(self) -> int:
        return self.encoder_vocab_size or self.vocab_size

    def _common(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(Shape)}

    def __post_init__(self) -> None:
        Shape.__post_init__(self)
        if not 0 <= self.decoder_start_token_id < self.vocab_size:
            text = f"{self.decoder_start_token_id} / vocab_size {self.vocab_size}"
            raise impossible("decoder_start_token_id", Words(f"語彙にありません（{text}）。", f"It is not in the vocabulary ({text})."))
        for name in ("encoder_layers", "encoder_attention_heads", "encoder_intermediate_size", "encoder_vocab_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise impossible(name, Words(f"{value} ですが、1 以上の整数が要ります。", f"It is {value} and must be at least 1."))
            self._bounded(name, value or 1, DEEPEST if name == "encoder_layers" else LONGEST)
        if not (self.causal and self.cross_attention) or self.layer_types is not None:
            name = "layer_types" if self.causal and self.cross_attention else "cross_attention"
            raise impossible(name, Words("エンコーダ・デコーダでは変えられません。", "It cannot be changed in an encoder-decoder."))
        _ = self.encoder  # its own shape is checked as well


class Shared(nn.Module):
    """The embedding of another module, used and not owned: it stands once in the table of weights."""

    def __init__(self, owner: nn.Embedding) -> None:
        super().__init__()
        self._owner = (owner,)  # a module inside a tuple is not registered

    @property
    def weight(self) -> Tensor:
        return self._owner[0].weight

    def forward(self, tokens: Tensor) -> Tensor:
        """(...) int64 -> (..., D)"""
        found: Tensor = self._owner[0](tokens)
        return found


class EncoderDecoder(nn.Module):
    """A model of the given shape; as with `Transformer`, `initialise` fills its weights."""

    def __init__(self, shape: PairShape, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.shape = shape
        self.decoder = Transformer(shape.decoder, device=device, dtype=dtype)
        self.encoder = Transformer(shape.encoder, device=device, dtype=dtype)
        if shape.encoder_vocab_size is None:
            self.encoder.embedding = Shared(self.decoder.embedding)  # type: ignore[assignment]

    @property
    def vocab_size(self) -> int:
        return self.shape.vocab_size

    @property
    def source_vocab_size(self) -> int:
        return self.shape.source_vocab_size

    @property
    def context_length(self) -> int:
        """Tokens of the longest target, its start included"""
        return self.decoder.context_length

    @property
    def source_length(self) -> int:
        """Tokens of the longest source"""
        return min(self.encoder.context_length, LONGEST_SOURCE)

    @property
    def blocks(self) -> nn.ModuleList:
        return nn.ModuleList([*self.encoder.blocks, *self.decoder.blocks])

    def encode(self, tokens: Tensor, past: Past) -> Tensor:
        """The source (...) int64 -> states (..., D), what the decoder's past has as its memory"""
        return self.encoder.hidden(tokens, past)

    def forward(self, tokens: Tensor, past: Past) -> Tensor:
        """The target (...) int64 -> logits (..., V)"""
        return self.logits(self.hidden(tokens, past))

    def hidden(self, tokens: Tensor, past: Past) -> Tensor:
        """The target (...) int64 -> (..., D)"""
        return self.decoder.hidden(tokens, past)

    def logits(self, hidden: Tensor) -> Tensor:
        """What `hidden` gives (..., D) -> (..., V)"""
        return self.decoder.logits(hidden)

    @property
    def head_weight(self) -> Tensor:
        """(V, D)"""
        return self.decoder.head_weight

    @property
    def head_is_linear(self) -> bool:
        return self.decoder.head_is_linear

    @torch.no_grad()
    def initialise(self, seed: int) -> EncoderDecoder:
        """Each stack as it is alone; the encoder draws from the seed after."""
        self.encoder.initialise(seed + 1)
        self.decoder.initialise(seed)
        return self
