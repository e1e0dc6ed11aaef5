"""The head that gives every token a label, for names in a text and the like (Devlin et al. 2019, section 5.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tsuzuri.model.parts._labels import Labels

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "head"
LABELS = "some"


class Part(Labels):
    def __init__(self, shape: Shape) -> None:
        super().__init__(shape, pooled=False)
