"""The head that gives a whole text a label: read where the text is summed up, at its first token or as a mean (`model/pooling.py`).

Without a norm of its own it is BERT's: tanh(W x + b), the "pooler", then a product (Devlin et al. 2019, section 4.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tsuzuri.model.parts._labels import Labels

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "head"
LABELS = "some"


class Part(Labels):
    def __init__(self, shape: Shape) -> None:
        super().__init__(shape, pooled=True)
