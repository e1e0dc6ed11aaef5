"""What stages do with a family that is fitted, not trained: count once, and save where a trained model would lie.

In: documents of ids. Out: the model, in a checkpoint of its own, and what the report says of it. There are no steps, so nothing
is resumed: a stopped count begins again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsuzuri.errors import Words
from tsuzuri.model import weights
from tsuzuri.recipe.run import Context
from tsuzuri.text import fast, shards
from tsuzuri.train import checkpoint


def read(context: Context) -> list[NDArray[np.integer[Any]]]:
    """The documents that pre-training has read."""
    found = shards.Shards(context.before("pretrain") / "shards" / "train")
    return [found.document(index) for index in range(context.results["pretrain"]["read_documents"])]


def count(
    context: Context,
    tokenizer: fast.FastTokenizer,
    documents: Sequence[NDArray[np.integer[Any]]],
    write_extras: Callable[[Path], None],
) -> tuple[dict[str, Any], Any]:
    """The outcome, in the words of `loop.Outcome`, and the model."""
    settings = context.recipe.sections["pretrain"].model
    family = weights.family(settings.family)
    context.watch.notice(
        Words(
            f"{settings.family} は数えて作ります。steps などの学習の設定は使いません。",
            f"{settings.family} is made by counting; steps and other settings of training do not apply.",
        )
    )
    begun = time.perf_counter()
    model = family.fit(settings, documents, tokenizer.vocab_size, tokenizer.special["<|endoftext|>"])
    seconds = time.perf_counter() - begun

    def write(path: Path) -> None:
        weights.save(model, path, settings.family)
        write_extras(path)

    checkpoint.save(context.directory / "checkpoints", checkpoint.State(1, {}, {"recipe": context.recipe.values}), write)
    tokens = sum(len(document) + 1 for document in documents)
    return {"steps": 1, "tokens": tokens, "seconds": seconds, "train_seconds": seconds, "resumed_at": 0}, model
