"""What each head of a model looks at while it reads a text.

In: a model directory of any kind and a text, for an encoder-decoder a second one. Out: the tokens, and for each layer and
head a matrix of shares. The model is the one that answers, the past alone is another (`model/past.py: Recorded`). It draws nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from tsuzuri import device as devices
from tsuzuri.chat.labels import is_encoder
from tsuzuri.chat.local import source_end
from tsuzuri.errors import ConfigError, ContextError, InputError, Words
from tsuzuri.model import weights
from tsuzuri.model.encoder_decoder import EncoderDecoder
from tsuzuri.model.past import Memory, Recorded, Shares
from tsuzuri.model.transformer import Transformer
from tsuzuri.text import fast
from tsuzuri.text.framing import frame

LONGEST = 512  # tokens: a matrix grows with the square, and there is one a head
Side = Literal["tokens", "target"]


@dataclass(frozen=True, slots=True)
class Layer:
    """The heads of one layer: `heads[h][i][j]` is how much token i of `rows` takes from token j of `columns`, by head h."""

    layer: int  # from 0, as in the names of the weights
    kind: Literal["self", "cross"]
    rows: Side  # whose tokens look
    columns: Side  # whose are looked at
    heads: Tensor  # float32 (H, T, S)


@dataclass(frozen=True, slots=True)
class Attention:
    tokens: list[str]  # of the text as the model reads it, with what is put around it
    target: list[str] | None  # of an encoder-decoder
    layers: list[Layer]
    without: dict[int, str]  # layers that have no attention, and what they have instead
    partial: bool = False  # of an encoder-decoder its source alone: no target was given
    first: int = 0  # number of the first head

    def side(self, name: Side) -> list[str]:
        return self.tokens if name == "tokens" else self.target or []

    def chosen(self, layer: int | None, head: int | None) -> Attention:
        """One layer, one head, or one head of one layer. Raises ConfigError for what is not there."""
        if layer in self.without:
            raise _nothing(Words(f"層 {layer}", f"layer {layer}"), {self.without[layer]})
        there = sorted({each.layer for each in self.layers})
        if layer is not None and layer not in there:
            raise _no_such(Words("層", "layer"), layer, there)
        layers = [each for each in self.layers if layer in (None, each.layer)]
        if head is None:
            return replace(self, layers=layers)
        most = min(len(each.heads) for each in layers)
        if not 0 <= head < most:
            raise _no_such(Words("ヘッド", "head"), head, range(most))
        one = [replace(each, heads=each.heads[head : head + 1]) for each in layers]
        return replace(self, layers=one, first=head)


def read(directory: Path, text: str, target: str | None = None, *, threads: int | None = None) -> Attention:
    """All heads of all layers. Raises MissingError, FormatError; ConfigError for a model without attention, and for a target that nothing
    writes; ContextError for more than LONGEST tokens or than the model reads; InputError for a text without tokens."""
    if threads is not None:
        devices.threads(threads)
    model = weights.load(directory, dtype=torch.float32 if _has_weights(directory) else None, quantised=True)
    if not isinstance(model, Transformer | EncoderDecoder):
        raise _nothing(Words(f"モデル {directory.name}", f"the model {directory.name}"), {str(weights.family_of(directory).MODEL_TYPE)})
    if target is not None and not isinstance(model, EncoderDecoder):
        raise ConfigError(
            Words("--target が指定されました。", "--target was given."),
            found=Words(
                "このモデルは一つの文章だけを読みます。--target はエンコーダ・デコーダのためのものです。",
                "This model reads one text alone; --target is for an encoder-decoder.",
            ),
            todo=Words("--target を外してください。", "Leave --target out."),
        )
    tokenizer = fast.load(directory)
    with torch.inference_mode():
        if isinstance(model, EncoderDecoder):
            return _pair(model, tokenizer, directory, text, target)
        return _alone(model, tokenizer, directory, text)


def _alone(model: Transformer, tokenizer: fast.FastTokenizer, directory: Path, text: str) -> Attention:
    ids = tokenizer.encode(text)
    if is_encoder(model):
        ids = frame(tokenizer).around(ids)
    tokens = _checked(ids, model.context_length)
    past = Recorded(torch.arange(len(ids)), causal=model.shape.causal)
    model.hidden(tokens, past)
    seen = {each.layer for each in past.kept}
    without = {layer: model.shape.mixer(layer) for layer in range(model.shape.num_hidden_layers) if layer not in seen}
    if not seen:
        raise _nothing(Words(f"モデル {directory.name}", f"the model {directory.name}"), set(without.values()))
    return Attention([tokenizer.shown(id) for id in ids], None, _layers(past.kept, "tokens"), without)


def _pair(model: EncoderDecoder, tokenizer: fast.FastTokenizer, directory: Path, text: str, target: str | None) -> Attention:
    ids = [*tokenizer.encode(text), *source_end(directory)]
    source = Recorded(torch.arange(len(ids)), causal=False)
    states = model.encode(_checked(ids, model.source_length), source)
    shown, layers = [tokenizer.shown(id) for id in ids], _layers(source.kept, "tokens")
    if target is None:
        return Attention(shown, None, layers, {}, partial=True)
    written = [model.shape.decoder_start_token_id, *tokenizer.encode(target)]
    past = Recorded(torch.arange(len(written)), causal=True, memory=Memory(states))
    model.hidden(_checked(written, model.context_length), past)
    return Attention(shown, [tokenizer.shown(id) for id in written], [*layers, *_layers(past.kept, "target")], {})


def _layers(kept: Sequence[Shares], rows: Side) -> list[Layer]:
    return [Layer(each.layer, each.kind, rows, "tokens" if each.kind == "cross" else rows, each.heads) for each in kept]


def _checked(ids: list[int], context: int) -> Tensor:
    if not ids:
        raise InputError(
            Words("文章の注意を見ようとしました。", "Looking at the attention over a text."),
            found=Words("文章が空です。", "The text is empty."),
            todo=Words("文章を指定してください。", "Give a text."),
        )
    most = min(LONGEST, context)
    if len(ids) > most:
        raise ContextError(
            Words("文章の注意を見ようとしました。", "Looking at the attention over a text."),
            found=Words(f"{len(ids)} トークンあり、{most} トークンまでです。", f"It has {len(ids)} tokens; {most} can be looked at."),
            todo=Words("文章を短くしてください。", "Shorten the text."),
        )
    return torch.tensor(ids)


def _has_weights(directory: Path) -> bool:
    return hasattr(weights.family_of(directory), "names")


def _nothing(what: Words, mixers: set[str]) -> ConfigError:
    kinds = ", ".join(sorted(mixers))
    return ConfigError(
        Words(f"{what.ja}の注意を見ようとしました。", f"Looking at the attention of {what.en}."),
        found=Words(f"語を混ぜるのは {kinds} で、注意がありません。", f"Tokens are mixed by {kinds}; there is no attention."),
        todo=Words("注意のある層やモデルを指定してください。", "Name a layer or a model that has attention."),
    )


def _no_such(what: Words, number: int, there: Sequence[int]) -> ConfigError:
    known = ", ".join(map(str, there))
    return ConfigError(
        Words(f"{what.ja} {number} が指定されました。", f"The {what.en} {number} was asked for."),
        found=Words(f"ありません。あるのは {known} です（0 から数えます）。", f"There is none. There is {known}, counted from 0."),
        todo=Words("番号を直してください。", "Correct the number."),
    )
