"""What a position part says about where each token stands: something to add, to rotate by, or to bias scores with."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from tsuzuri.types import Bias


class Place(NamedTuple):
    add: Tensor | None = None  # (..., D) added to the embeddings
    cos: Tensor | None = None  # (..., 1, R) the first R numbers of queries and keys are rotated by it
    sin: Tensor | None = None  # (..., 1, R)
    bias: Bias | None = None  # positions of queries (..., Q) and keys (..., S) -> (..., H, Q, S), added to the scores
