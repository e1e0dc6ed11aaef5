"""Bits per byte of a model on documents: every token scored once, with at least half a window before it.

In: a model, documents of ids, their sizes in UTF-8 bytes. Out: `Bits`. A document starts after the boundary token; its
end is not scored, so that an n-gram model and a compressor can be asked for exactly the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from tsuzuri import device as devices
from tsuzuri.evals.bits import Bits, of_documents
from tsuzuri.model.past import Causal
from tsuzuri.model.transformer import UNLIMITED

ROWS = 16  # windows at a time
WINDOW = 1024  # of a model whose context has no limit


class Documents(Protocol):
    """What `text/shards.py` gives."""

    @property
    def byte_lengths(self) -> NDArray[np.int64]: ...
    def __len__(self) -> int: ...
    def document(self, index: int) -> NDArray[np.integer[Any]]: ...


def bits_per_byte(model: Any, documents: Documents, boundary: int) -> Bits:
    """Over all documents, with the interval that `of_documents` gives."""

    def score(ids: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        return logprobs(model, ids, boundary)

    texts = [np.asarray(documents.document(i)).astype(np.int64) for i in range(len(documents))]
    return of_documents(score, texts, [int(n) for n in documents.byte_lengths])


@torch.inference_mode()
def logprobs(model: Any, ids: NDArray[np.integer[Any]], boundary: int) -> NDArray[np.float64]:
    """(T,) ids -> (T,) natural-log probabilities, the first given the boundary. Windows as long as the model's context."""
    device = devices.of(model)
    framed = np.concatenate(([boundary], ids))
    found = np.empty(len(ids), np.float64)
    size = model.context_length if model.context_length < UNLIMITED else WINDOW
    for stretch in _batches(list(windows(len(ids), size))):
        width = max(stop - start for start, _, stop in stretch)
        tokens = np.full((len(stretch), width + 1), boundary, np.int64)
        for row, (start, _, stop) in enumerate(stretch):
            tokens[row, : stop - start + 1] = framed[start : stop + 1]
        x = torch.from_numpy(tokens).to(device)
        positions = torch.arange(width, device=device).expand(len(stretch), width)
        logits = model(x[:, :-1], Causal(positions))  # (B, T, V)
        wide = logits if logits.dtype == torch.float64 else logits.float()
        nats = F.cross_entropy(wide.flatten(0, 1), x[:, 1:].flatten(), reduction="none").view(len(stretch), width)
        for row, (start, first, stop) in enumerate(stretch):
            found[first:stop] = -nats[row, first - start : stop - start].double().cpu().numpy()
    return found


def windows(length: int, size: int) -> Iterator[tuple[int, int, int]]:
    """(start, first scored, stop) over `length` targets: each scored once, the window moving by half its size."""
    start = first = 0
    while first < length:
        stop = min(length, start + size)
        yield start, first, stop
        first = stop
        start = max(0, stop - size // 2)


def _batches(items: list[tuple[int, int, int]]) -> Iterator[list[tuple[int, int, int]]]:
    for start in range(0, len(items), ROWS):
        yield items[start : start + ROWS]
