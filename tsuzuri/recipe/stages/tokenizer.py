"""学習用の文章からトークナイザを作ります。 / Train a tokenizer on the training text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsuzuri import directory as directories
from tsuzuri.recipe.run import Context
from tsuzuri.text import compare, fast
from tsuzuri.text.corpus.read import read

NEEDS = ("corpus",)


@dataclass(frozen=True, slots=True)
class Settings:
    kind: str = "bpe"  # bpe, unigram, wordpiece, characters
    vocab_size: int = 8000
    train_bytes: int = 16_000_000  # of text, from the first documents

    def __post_init__(self) -> None:
        fast.check(self.kind, self.vocab_size)


def inputs(settings: Settings) -> list[Path]:
    return []


def run(settings: Settings, context: Context) -> dict[str, Any]:
    text = context.before("corpus") / "text"
    tokenizer = fast.train(settings.kind, _texts(text / "train.jsonl.zst", settings.train_bytes), settings.vocab_size)
    with directories.whole(context.directory / "files") as temporary:
        tokenizer.save(temporary)
    held = list(_texts(text / "validation.jsonl.zst", 1_000_000))
    return {"kind": settings.kind, "vocab_size": tokenizer.vocab_size, **compare.measure(tokenizer, held)}


def _texts(path: Path, limit: int) -> Iterator[str]:
    """Whole documents until `limit` bytes are passed."""
    total = 0
    for document in read([path]):
        yield document.text
        total += len(document.text.encode())
        if total >= limit:
            return
