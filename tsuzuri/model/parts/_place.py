"""What a position part says about where each token stands: something to add, to rotate by, or to slope by."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Place(NamedTuple):
    add: Tensor | None = None  # (..., D) added to the embeddings
    cos: Tensor | None = None  # (..., 1, E) queries and keys are rotated by it
    sin: Tensor | None = None  # (..., 1, E)
    slopes: Tensor | None = None  # (H,) scores fall by slope × distance
