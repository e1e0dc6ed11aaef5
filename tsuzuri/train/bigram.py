"""A start better than chance: embedding and head fitted to which token follows which, before the first step.

In: a model whose blocks are still the identity, documents of ids. Out: the same model, its embedding and head changed.
As long as the projections back into the residual are zero, the model is `logits = W norm(E[x])`, a log-bilinear bigram
model (Mnih & Hinton 2007, eq. 2, with one word of context). All pairs of a text fit into one sparse table, so a step of
gradient descent over the *whole* text costs V² · D and not tokens · parameters: what the first sixth of a short run would
learn slowly, it learns in seconds (docs/log.md has the numbers).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsuzuri.errors import ConfigError, Words
from tsuzuri.model.transformer import Shape, Transformer

if TYPE_CHECKING:
    from tsuzuri.train.objectives.pretrain import Documents

STEPS = 40  # over the whole table; twice as many fit the text that is read better and other text no better
RATE = 0.02
DISCOUNT = 0.75  # taken from each count and given to unseen pairs (Kneser & Ney 1995); what is usual for pairs
SPREAD = 0.1  # standard deviation of the embedding before the first step; it doubles
ROWS = 512  # contexts at a time: 512 × V floats
CLOSED = ("rnn", "gru", "lstm")  # mixers without a projection back into the residual that starts at zero


@dataclass(frozen=True, slots=True)
class Pairs:
    """Which token followed which, how often. P distinct pairs, sorted by the first token."""

    first: Tensor  # (P,) int64
    second: Tensor  # (P,) int64
    counts: Tensor  # (P,) float32
    totals: Tensor  # (V,) float32: how often each token was followed by one
    unseen: Tensor  # (V,) float32: how probable a token is where nothing is known, from how many different ones it followed


def count(documents: Documents, boundary: int, vocab_size: int) -> Pairs:
    """All pairs of neighbours in [boundary] + ids + [boundary] of each document; none reaches into another document."""
    keys: list[NDArray[np.int64]] = []
    for index in range(len(documents.lengths)):
        framed = np.concatenate(([boundary], np.asarray(documents.document(index)).astype(np.int64), [boundary]))
        keys.append(framed[:-1] * vocab_size + framed[1:])
    distinct, counts = np.unique(np.concatenate(keys), return_counts=True)
    first, second = torch.from_numpy(distinct // vocab_size), torch.from_numpy(distinct % vocab_size)
    seen = torch.from_numpy(counts).float()
    before = torch.bincount(second, minlength=vocab_size).float() + 0.1  # so that no token is impossible
    return Pairs(first, second, seen, torch.zeros(vocab_size).index_add_(0, first, seen), before / before.sum())


def fit(
    model: Transformer, pairs: Pairs, *, steps: int = STEPS, discount: float = DISCOUNT, told: Callable[[float], None] = lambda _: None
) -> float:
    """Fit embedding and head by Adam over all pairs at once; the loss of the last step in nats a token.

    `discount` 0 fits the counts themselves. `told` hears the loss of each step. Raises ConfigError for a model with a tied
    head: W E is symmetric there, and what follows is not what precedes.
    """
    check(model.shape)
    place = model.embedding.weight.device
    table = Pairs(*(value.to(place) for value in (pairs.first, pairs.second, pairs.counts, pairs.totals, pairs.unseen)))
    own, other = (weight.detach().float() for weight in (model.embedding.weight, model.head_weight))  # whatever it computes in
    embedding = (own * (SPREAD / own.std())).requires_grad_()  # (V, D)
    head = other.clone().requires_grad_()  # (V, D)
    adam = torch.optim.Adam([embedding, head], lr=RATE, betas=(0.9, 0.95))
    total = 0.0
    for step in range(steps):
        adam.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / 5, 2 * (steps - step) / steps)
        total = _descend(embedding, head, model.norm, table, discount)
        adam.step()
        adam.zero_grad(set_to_none=True)
        told(total)
    model.zero_grad(set_to_none=True)  # the norm has gathered some
    with torch.no_grad():
        model.embedding.weight.copy_(embedding)
        model.head_weight.copy_(head)
    return total


def possible(shape: Any) -> Words | None:
    """Why a model of this shape cannot start so; None where it can."""
    if not isinstance(shape, Shape) or shape.block != "pre_norm" or {*map(shape.mixer, range(shape.num_hidden_layers))} & {*CLOSED}:
        return Words(
            "このモデルの層は恒等写像から始まらず、二つ組の表とは別のものになります。",
            "The layers of this model do not start as the identity: it is no table of pairs.",
        )
    if shape.tie_word_embeddings:
        return Words(
            "tie_word_embeddings のモデルでは、二つ組の並びを表せません。",
            "A model with tie_word_embeddings cannot say which of two comes first.",
        )
    return None


def check(shape: Any, setting: str = "pretrain.start") -> None:
    """Raises ConfigError, naming the setting, for a shape that cannot start so."""
    found = possible(shape)
    if found:
        raise ConfigError(
            Words(f"設定「{setting}」に bigram が指定されました。", f"The setting '{setting}' was given bigram."),
            found=found,
            todo=Words("start を auto か random にしてください。", "Use start: auto or random."),
        )


def _descend(embedding: Tensor, head: Tensor, norm: Any, pairs: Pairs, discount: float) -> float:
    """Gradients of the mean loss over the table, a stretch of contexts at a time; the loss."""
    seen = pairs.totals.nonzero().squeeze(-1)  # contexts that were followed by something
    edges = [*torch.searchsorted(pairs.first, seen).tolist(), len(pairs.first)]
    everything = float(pairs.totals.sum())
    total = 0.0
    for start in range(0, len(seen), ROWS):
        contexts = seen[start : start + ROWS]
        part = slice(edges[start], edges[min(start + ROWS, len(seen))])
        wanted = _wanted(pairs, contexts, part, discount)  # (C, V), rows sum to how often the context occurred
        logits = norm(embedding[contexts]) @ head.T
        nats = (logits.logsumexp(-1) * wanted.sum(-1)).sum() - (logits * wanted).sum()
        (nats / everything).backward()
        total += float(nats.detach()) / everything
    return total


def _wanted(pairs: Pairs, contexts: Tensor, part: slice, discount: float) -> Tensor:
    """count - D for what was seen after a context; what was taken goes to all tokens, as probable as they are where nothing is
    known: (C, V)"""
    row = torch.searchsorted(contexts, pairs.first[part])
    wanted = torch.zeros(len(contexts), len(pairs.unseen), device=contexts.device)
    wanted[row, pairs.second[part]] = pairs.counts[part] - discount
    taken = discount * torch.bincount(row, minlength=len(contexts))
    return wanted.addcmul_(taken[:, None].to(wanted.dtype), pairs.unseen[None])
