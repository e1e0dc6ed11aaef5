"""Tables of embeddings that are not drawn where nobody would see it.

PyTorch draws the numbers of a new `nn.Embedding`, on the meta device too, where it first loads all it has for taking operations
apart: two seconds, for nothing. A model that is to be filled from a file is built there.
"""

from __future__ import annotations

import torch
from torch import nn


def table(count: int, size: int) -> nn.Embedding:
    """(count, size), drawn as PyTorch does it unless it has no storage."""
    if torch.get_default_device().type == "meta":
        return nn.Embedding(count, size, _weight=torch.empty(count, size))
    return nn.Embedding(count, size)
