"""The text that quantisation and pruning read to see which inputs matter: a file -> ids, in samples of one length.

In: a model directory, for its tokenizer, and a file. Out: at most SAMPLES tensors of at most LENGTH ids. It runs no model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tsuzuri.errors import InputError, Words

if TYPE_CHECKING:
    from torch import Tensor

LENGTH = 256  # tokens of one sample, or as many as the model can take
SAMPLES = 16


def samples(model: Path, path: Path, longest: int) -> list[Tensor]:
    """The first SAMPLES of `path`, for a model that takes `longest` tokens. Raises InputError for a file without text."""
    import torch  # noqa: PLC0415

    from tsuzuri.text import fast  # noqa: PLC0415
    from tsuzuri.text.corpus.read import read  # noqa: PLC0415

    length = min(LENGTH, longest)
    tokenizer, ids = fast.load(model), []
    for document in read([path]):
        ids += tokenizer.encode(document.text)
        if len(ids) >= length * SAMPLES:
            break
    if not ids:
        raise InputError(
            Words(f"{path} を較正のために読もうとしました。", f"Reading {path} for calibration."),
            found=Words("文章がありません。", "There is no text in it."),
            todo=Words("普通の文章を指定してください。", "Name a file of ordinary text."),
        )
    return [torch.tensor(ids[at : at + length]) for at in range(0, min(len(ids), length * SAMPLES), length)]
