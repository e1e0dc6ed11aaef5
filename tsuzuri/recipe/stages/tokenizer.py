"""学習用の文章からトークナイザを作ります。 / Train a tokenizer on the training text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tsuzuri import directory as directories
from tsuzuri.errors import ConfigError, Words
from tsuzuri.recipe.run import Context
from tsuzuri.text import compare, fast
from tsuzuri.text.corpus.read import read
from tsuzuri.train import loop

NEEDS = ("corpus",)


@dataclass(frozen=True, slots=True)
class Settings:
    kind: str = "bpe"  # bpe, unigram, wordpiece, characters
    vocab_size: int = 8000
    special: Literal["chat", "encoder", "span"] = "chat"  # special tokens: <|im_start|> …, or [CLS] …, or <extra_id_0> … beside the first
    train_bytes: int = 16_000_000  # of text, from the first documents

    def __post_init__(self) -> None:
        fast.check(self.kind, self.vocab_size)
        loop.positive(self, "train_bytes")


def check(settings: Settings, before: Mapping[str, Any]) -> None:
    """Tokenizers and models are measured on text that was held out."""
    if not before["corpus"].validation_fraction:
        raise ConfigError(
            Words("設定「corpus.validation_fraction」に 0 が指定されました。", "The setting 'corpus.validation_fraction' was given 0."),
            found=Words("後の段階は、検証用の文章で成績を測ります。", "The stages that follow are measured on held-out text."),
            todo=Words(
                "0 より大きくしてください。作品が一つしかなければ、文章を足してください。",
                "Make it greater than 0. Where there is only one work, add text.",
            ),
        )


def inputs(settings: Settings) -> list[Path]:
    return []


def run(settings: Settings, context: Context) -> dict[str, Any]:
    text = context.before("corpus") / "text"
    special = {"chat": fast.SPECIAL, "encoder": fast.ENCODER, "span": (*fast.SPECIAL, *fast.SENTINELS)}[settings.special]
    tokenizer = fast.train(settings.kind, _texts(text / "train.jsonl.zst", settings.train_bytes), settings.vocab_size, special)
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
