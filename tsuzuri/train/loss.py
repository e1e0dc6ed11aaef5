"""Cross-entropy without ever holding all logits: the head and the loss, a stretch of tokens at a time.

In: hidden states (N, D), head (V, D), targets (N,). Out: the summed nats, with gradients for hidden states and head.
The plain twin is `F.cross_entropy(hidden @ head.T, targets, reduction="sum")`, which holds (N, V) floats three times over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tsuzuri.model.encoder_decoder import EncoderDecoder
from tsuzuri.model.past import Bidirectional, Causal, Memory
from tsuzuri.model.transformer import Transformer
from tsuzuri.train import balance
from tsuzuri.train.data import IGNORED, Batch, Pairs

CHUNK = 512  # tokens at a time: 512 × 8k floats stay in the cache of a small machine
CHUNK_CUDA = 16384  # few and large kernels there: 16384 × 32k floats are 2 GB


def plain(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """The twin to read: summed negative log-likelihood in nats, in float32 at least."""
    return cross_entropy(F.linear(hidden, head), targets)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Logits (N, V), targets (N,) -> summed negative log-likelihood in nats, in float32 at least."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(wide, targets, ignore_index=IGNORED, reduction="sum")


def chunked(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """The same number and the same gradients, with (CHUNK, V) logits at a time. Shapes as `plain`; a scalar in float32 or float64."""
    out: Tensor = _Chunked.apply(hidden, head, targets)  # type: ignore[no-untyped-call]
    return out


def stretch(hidden: Tensor, head: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of C tokens: the nats, and their gradients for hidden (C, D) and head (V, D).

    The logits are passed over as seldom as can be, for a head is bound by memory: the normaliser is read off the largest
    probability, ln Σ exp l = l_max - ln p_max, and targets that do not count are left out of the smaller side of each product.
    """
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    logits = F.linear(hidden, head)  # (C, V)
    kept = (targets != IGNORED)[:, None]  # (C, 1)
    wanted = targets.clamp_min(0)[:, None]  # (C, 1)
    largest = logits.argmax(-1, keepdim=True)
    slope = logits.softmax(-1, dtype=wide)  # (C, V) probabilities
    norm = logits.gather(-1, largest).to(wide) - slope.gather(-1, largest).log()
    nats = ((norm - logits.gather(-1, wanted)) * kept).sum()
    slope.scatter_add_(-1, wanted, torch.full_like(wanted, -1, dtype=wide))
    slope = slope.to(hidden.dtype)
    return nats, (slope @ head) * kept, slope.t() @ (hidden * kept)


def fusable(hidden: Tensor, head: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`stretch` for a compiler, which makes one pass of what stands between two products: nothing is scattered."""
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    logits = F.linear(hidden, head).to(wide)  # (C, V)
    kept = (targets != IGNORED)[:, None]  # (C, 1)
    wanted = targets.clamp_min(0)[:, None]  # (C, 1)
    norm = logits.logsumexp(-1, keepdim=True)
    nats = ((norm - logits.gather(-1, wanted)) * kept).sum()
    there = torch.arange(logits.shape[-1], device=logits.device) == wanted
    slope = (((logits - norm).exp() - there.to(wide)) * kept).to(hidden.dtype)
    return nats, slope @ head, slope.t() @ hidden


_stretch = ContextVar("_stretch", default=stretch)


@contextmanager
def fused() -> Iterator[None]:
    """Within it, stretches of logits are computed by a compiled function."""
    token = _stretch.set(_compiled())
    try:
        yield
    finally:
        _stretch.reset(token)


@cache
def _compiled() -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    return torch.compile(fusable)


class _Chunked(torch.autograd.Function):
    """The gradient of the loss is known as soon as the loss is: softmax minus one at the target. So the forward pass
    keeps only the gradients, (N, D) and (V, D), and throws each stretch of logits away."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        total = torch.zeros((), dtype=wide, device=hidden.device)
        d_hidden = torch.empty_like(hidden)
        d_head = torch.zeros(head.shape, dtype=wide, device=head.device)
        size = CHUNK_CUDA if hidden.is_cuda else CHUNK
        for start in range(0, len(hidden), size):
            here = slice(start, start + size)
            nats, d_hidden[here], d_here = _stretch.get()(hidden[here], head, targets[here])
            total += nats
            d_head += d_here
        ctx.save_for_backward(d_hidden, d_head.to(head.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None]:
        d_hidden, d_head = ctx.saved_tensors
        return d_hidden * slope.to(d_hidden.dtype), d_head * slope.to(d_head.dtype), None


def next_token(model: Transformer, batch: Batch) -> Tensor:
    """Nats summed over the targets of a batch: what every objective that predicts the next token has in common."""
    return _summed(model, batch, Causal(batch.positions, batch.documents))


def given_source(model: EncoderDecoder, batch: Pairs) -> Tensor:
    """Nats summed over the targets of a batch, each target given its own source and the tokens before it (teacher forcing)."""
    states = model.encode(batch.source, Bidirectional(batch.source_positions, batch.source_documents))  # (B, S, D)
    return _summed(model, batch, Causal(batch.positions, batch.documents, memory=Memory(states, batch.source_documents)))


def _summed(model: Transformer | EncoderDecoder, batch: Batch, past: Causal) -> Tensor:
    targets = batch.targets.flatten()
    if not (isinstance(model, Transformer | EncoderDecoder) and model.head_is_linear):
        return cross_entropy(model(batch.tokens, past).flatten(0, -2), targets) + balance.price(model, batch)
    hidden = model.hidden(batch.tokens, past)  # (B, T, D)
    return chunked(hidden.flatten(0, -2), model.head_weight, targets) + balance.price(model, batch)


def bidirectional(batch: Batch) -> Bidirectional:
    """The past of a batch for an encoder."""
    return Bidirectional(batch.positions, batch.documents, segments=batch.segments)


def at_targets(model: Transformer, batch: Batch) -> Tensor:
    """Nats summed over the targets of an encoder, each at its own token: the head is computed only there."""
    hidden = model.hidden(batch.tokens, bidirectional(batch))  # (B, T, D)
    there = batch.targets != IGNORED  # (B, T)
    return cross_entropy(model.logits(hidden[there]), batch.targets[there])
