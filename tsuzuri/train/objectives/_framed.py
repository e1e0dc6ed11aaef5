"""What the objectives of encoders have in common: texts of their own length in rows, padded, and none longer than a row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tsuzuri.errors import InputError, Words
from tsuzuri.train.data import IGNORED, Batch, collate


def check_lengths(lengths: Sequence[int], most: int) -> None:
    """Raises InputError naming the longest text, its frame included, where it is longer than a row."""
    long = [(length, number) for number, length in enumerate(lengths, 1) if length > most]
    if long:
        longest, number = max(long)
        raise InputError(
            Words("文章を学習の行に並べようとしました。", "Laying out texts in rows."),
            found=Words(
                f"{len(long)} 件が length={most} トークンを超えています（最長は {number} 件目の {longest}）。",
                f"{len(long)} are longer than length={most} tokens (the longest is number {number} with {longest}).",
            ),
            todo=Words("length を増やすか、長い文章を分けてください。", "Raise length, or divide the long ones."),
        )


def padded(rows: Sequence[Sequence[int] | NDArray[np.int64]], padding: int, targets: Sequence[Sequence[int]] | None = None) -> Batch:
    """One text a row, as wide as the longest; padding is a document of its own. Without `targets` none is set."""
    width = max(map(len, rows))
    wanted = [np.full(len(row), IGNORED) for row in rows] if targets is None else [np.asarray(row, np.int64) for row in targets]
    return collate([[(np.asarray(row, np.int64), target, 0)] for row, target in zip(rows, wanted, strict=True)], width, padding)
