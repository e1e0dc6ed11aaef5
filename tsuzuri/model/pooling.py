"""One vector for a text: what the head of a whole text reads, and what an embedding is.

In: an encoder, tokens (B, T) and their past, in which padding is a document of its own. Out: (B, D). The text of a row is
the document of its first token; nothing else in the row counts.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tsuzuri.model.past import Bidirectional
from tsuzuri.model.transformer import Transformer


def classified(model: Transformer, tokens: Tensor, past: Bidirectional) -> Tensor:
    """(B, T) -> logits (B, labels) of the whole text, by the shape's `pooling`."""
    hidden = model.hidden(tokens, past)  # (B, T, D)
    return model.logits(hidden[:, 0] if model.shape.pooling == "first" else mean(hidden, past))


def embedded(model: Transformer, tokens: Tensor, past: Bidirectional) -> Tensor:
    """(B, T) -> (B, D) of length 1: the mean over the tokens of the text (Reimers & Gurevych 2019, section 3)."""
    return F.normalize(mean(model.hidden(tokens, past), past), dim=-1)


def mean(hidden: Tensor, past: Bidirectional) -> Tensor:
    """(B, T, D) -> (B, D) over the tokens of the text"""
    if past.documents is None:
        return hidden.mean(-2)
    own = (past.documents == past.documents[..., :1]).to(hidden.dtype)[..., None]  # (B, T, 1)
    return (hidden * own).sum(-2) / own.sum(-2)
