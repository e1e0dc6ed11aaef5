"""Bits per byte: how well a model predicts held-out text, in a unit that does not depend on the tokenizer.

In: natural-log probabilities of the ids of each document, and how many UTF-8 bytes each document has.
Out: `Bits`, with the error that comes from having only these documents. It knows no text and runs no model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tsuzuri.errors import InputError, TrainingError, Words

Score: TypeAlias = Callable[[NDArray[np.integer[Any]]], NDArray[np.floating[Any]]]
Progress: TypeAlias = Callable[[str, int, int], None]  # what is being done, how many are done, of how many


@dataclass(frozen=True, slots=True)
class Bits:
    """Bits of information per byte of text: lower is better. 8 is no knowledge at all, xz reaches about 2 on Japanese."""

    bits_per_byte: float
    bits_per_token: float
    bytes: int
    tokens: int
    documents: int
    standard_error: float | None  # of bits_per_byte, over documents; None with fewer than two
    interval: tuple[float, float] | None  # 95 %, same source
    nats: tuple[float, ...] = ()  # of each document, for `difference`
    sizes: tuple[int, ...] = ()  # bytes of each document


@dataclass(frozen=True, slots=True)
class Difference:
    """Bits per byte of one model less those of another, on the same documents: what both find hard cancels out."""

    bits_per_byte: float
    interval: tuple[float, float] | None  # 95 %, over documents drawn again together; None with fewer than two


def difference(one: Bits, other: Bits, *, seed: int = 0, resamples: int = 1000) -> Difference:
    """The paired comparison: negative where `one` is better, certain where the interval leaves out 0."""
    assert one.sizes == other.sizes and one.nats, "both are scores of the same documents"
    _, interval = _bootstrap(np.array(one.nats) - np.array(other.nats), np.array(one.sizes), seed, resamples)
    return Difference(one.bits_per_byte - other.bits_per_byte, interval)


def bits_per_byte(nats: float, byte_count: int) -> float:
    """`nats`: minus the sum of natural-log probabilities of the text. Raises InputError when there are no bytes."""
    if byte_count < 1:
        raise InputError(
            Words("ビット毎バイトを求めようとしました。", "Measuring bits per byte."),
            found=Words("検証用の文章が空です。", "The held-out text is empty."),
            todo=Words("検証用の文章を渡してください。", "Give it text to measure on."),
        )
    return nats / math.log(2) / byte_count


def of_documents(
    score: Score,
    documents: Iterable[NDArray[np.integer[Any]]],
    byte_lengths: Sequence[int],
    *,
    seed: int = 0,
    resamples: int = 1000,
    progress: Progress | None = None,
) -> Bits:
    """Bits per byte over whole documents, with a bootstrap error over documents (Efron 1979).

    `score` takes the ids (T,) of one document and gives (T,) log-probabilities: of *every* id, the first one too. A
    model that needs something to start from is given its boundary id by `score`; leaving an id out would be cheating.
    Raises TrainingError when a probability is zero, above one or not a number.
    """
    nats: list[float] = []
    tokens = 0
    for ids in documents:
        logs = np.asarray(score(ids), np.float64)
        assert logs.shape == (len(ids),), f"score gave {logs.shape} for {len(ids)} ids"
        if not (logs <= 1e-6).all() or np.isinf(logs).any():
            raise _not_probabilities(len(nats))
        nats.append(-float(logs.sum()))
        tokens += len(ids)
        if progress:
            progress("score", len(nats), len(byte_lengths))
    assert len(nats) == len(byte_lengths), f"{len(nats)} documents, {len(byte_lengths)} lengths"
    sizes = np.array(byte_lengths, np.int64)
    each = np.array(nats)
    error, interval = _bootstrap(each, sizes, seed, resamples)
    total = float(each.sum())
    return Bits(
        bits_per_byte=bits_per_byte(total, int(sizes.sum())),
        bits_per_token=total / math.log(2) / max(tokens, 1),
        bytes=int(sizes.sum()),
        tokens=tokens,
        documents=len(sizes),
        standard_error=error,
        interval=interval,
        nats=tuple(nats),
        sizes=tuple(byte_lengths),
    )


def _bootstrap(
    nats: NDArray[np.float64], sizes: NDArray[np.int64], seed: int, resamples: int
) -> tuple[float | None, tuple[float, float] | None]:
    """Standard error and 95 % interval of Σ bits / Σ bytes when the documents are drawn again with replacement."""
    used = sizes > 0
    nats, sizes = nats[used], sizes[used]
    if len(nats) < 2:
        return None, None
    draws = np.random.default_rng(seed).multinomial(len(nats), np.full(len(nats), 1 / len(nats)), size=resamples)  # (resamples, documents)
    values = draws @ nats / (draws @ sizes) / math.log(2)
    low, high = np.quantile(values, [0.025, 0.975])
    return float(values.std(ddof=1)), (float(low), float(high))


def _not_probabilities(document: int) -> TrainingError:
    return TrainingError(
        Words("ビット毎バイトを求めようとしました。", "Measuring bits per byte."),
        found=Words(
            f"文書 {document + 1} で、モデルの確率が 0 か、1 より大きいか、数ではありません。",
            f"In document {document + 1} a probability is zero, above one or not a number.",
        ),
        todo=Words("学習が発散していないか、損失の記録を確かめてください。", "See in the loss record whether training diverged."),
    )
