"""Text made of numbers of words, for what learns word vectors."""

from __future__ import annotations

import numpy as np

from tsuzuri.train.vectors.lines import Lines


def some(count: int = 600, vocabulary: int = 30, seed: int = 0) -> Lines:
    """Lines of 1 to 12 words, the frequent ones far more frequent, one of them alone in its line."""
    random = np.random.default_rng(seed)
    ids = np.minimum(random.geometric(0.15, count) - 1, vocabulary - 1).astype(np.int32)
    ids[:vocabulary] = np.arange(vocabulary)
    line = np.repeat(np.arange(count), random.integers(1, 13, count))[:count].astype(np.int32)
    return Lines([f"w{i}" for i in range(vocabulary)], np.bincount(ids, minlength=vocabulary), ids, line, 0)


def ordered(count: int = 4000) -> Lines:
    """Words of ten topics that never meet: what is near must be learned."""
    random = np.random.default_rng(0)
    topics = np.repeat(random.integers(0, 10, count // 10), 10)
    ids = (topics * 5 + random.integers(0, 5, count)).astype(np.int32)
    return Lines(
        [f"w{i}" for i in range(50)], np.bincount(ids, minlength=50), ids, np.repeat(np.arange(count // 10), 10).astype(np.int32), 0
    )
