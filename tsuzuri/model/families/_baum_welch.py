"""The Baum–Welch algorithm (Baum et al. 1970; Rabiner 1989, section III-C): the twin of training a hidden Markov model by gradients.

In: π (S,), A (S, S), B (S, V) and documents of ids. Out: the same tables after one step of expectation and maximisation, and the
log-likelihood before it, which never falls. No learning rate: each table becomes the expected counts, divided by their sum.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class Tables(NamedTuple):
    start: Tensor  # (S,) π
    transition: Tensor  # (S, S) A
    emission: Tensor  # (S, V) B


def step(tables: Tables, documents: Iterable[Tensor]) -> tuple[Tables, float]:
    """The tables that make the expected complete likelihood largest, and the log-likelihood in nats of the given ones."""
    counts = Tables(*(torch.zeros_like(table) for table in tables))
    total = 0.0
    for ids in documents:
        total += _expected(tables, ids, counts)
    return Tables(*(table / table.sum(-1, keepdim=True) for table in counts)), total


def _expected(tables: Tables, ids: Tensor, counts: Tables) -> float:
    """Adds to `counts` how often each start, move and utterance is expected in a document (T,); its log-likelihood."""
    uttered = tables.emission[:, ids].t()  # (T, S)
    forward, scale = [], []  # scaled so that each row sums to 1 (Rabiner 1989, section V-A)
    ahead = tables.start
    for row in uttered:
        joint = ahead * row
        scale.append(joint.sum())
        forward.append(joint / scale[-1])
        ahead = forward[-1] @ tables.transition
    after = torch.ones_like(tables.start)
    for t in range(len(ids) - 1, -1, -1):
        state = forward[t] * after  # (S,) p(z_t | the whole document)
        counts.emission[:, ids[t]] += state
        if t == 0:
            counts.start.add_(state)
            break
        later = uttered[t] * after / scale[t]  # (S,)
        counts.transition.add_(forward[t - 1][:, None] * tables.transition * later)
        after = tables.transition @ later
    return float(torch.stack(scale).log().sum())
