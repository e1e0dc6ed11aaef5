"""The head that finds an answer in a text: for every token, how well it begins and how well it ends it (Devlin et al. 2019, section 4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tsuzuri.model.parts._labels import Labels

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "head"
LABELS = "two"  # the start, the end


class Part(Labels):
    def __init__(self, shape: Shape) -> None:
        super().__init__(shape, pooled=False)
