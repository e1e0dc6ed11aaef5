"""単語ベクトルを学習します（Word2Vec、GloVe）。 / Train word vectors (Word2Vec, GloVe)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsuzuri.errors import ConfigError, Words
from tsuzuri.model.vectors import Vectors
from tsuzuri.recipe.run import Context
from tsuzuri.text import fast, words
from tsuzuri.text.corpus.read import read
from tsuzuri.train.vectors import lines
from tsuzuri.train.vectors.fit import VectorSettings, fit

NEEDS = ("corpus",)
LEAVES = ("model",)  # outside its own folder, in that of the run
SHOWN = 6  # neighbours of a word in the report
PROBES = ("春", "母", "東京", "法律", "通信", "である")  # words whose neighbours the report shows, where they have vectors
RELATED = (  # words that belong together, wherever the text is from: how near is the partner?
    ("春", "秋"), ("夏", "冬"), ("父", "母"), ("兄", "弟"), ("男", "女"), ("朝", "夜"), ("右", "左"), ("東京", "大阪"),
    ("山", "川"), ("手", "足"), ("赤", "青"), ("犬", "猫"), ("雨", "雪"), ("日本", "米国"), ("法律", "規定"), ("今日", "昨日"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(VectorSettings):
    units: str = "token"  # token: pieces of the recipe's tokenizer; word: runs of one script; character
    train_bytes: int | None = None  # of text, whole documents; None: all

    def __post_init__(self) -> None:
        VectorSettings.__post_init__(self)
        words.check(self.units, self.units == "token")


def check(settings: Settings, before: Mapping[str, Any]) -> None:
    """Pieces of a tokenizer take a tokenizer."""
    if settings.units == "token" and "tokenizer" not in before:
        raise ConfigError(
            Words("設定「vectors.units」に token が指定されました。", "The setting 'vectors.units' was given token."),
            found=Words("stages の並びに、その前の tokenizer がありません。", "The list of stages has no tokenizer before it."),
            todo=Words("tokenizer を加えるか、word か character にしてください。", "Add tokenizer, or use word or character."),
        )


def inputs(settings: Settings) -> list[Path]:
    return []


def run(settings: Settings, context: Context) -> dict[str, Any]:
    place = context.before("tokenizer") / "files" if settings.units == "token" else None
    cut = words.cutter(settings.units, place)
    text = context.before("corpus") / "text" / "train.jsonl.zst"
    found = lines.read(_texts(text, settings.train_bytes), cut, min_count=settings.min_count, max_words=settings.max_words)
    context.watch.notice(
        Words(f"{len(found):,} 語、語彙 {len(found.words):,} です。", f"{len(found):,} words, a vocabulary of {len(found.words):,}.")
    )
    outcome = fit(found, settings, context.directory, watch=context.watch)
    vectors = Vectors(found.words, outcome.vectors.numpy(), found.counts, cut, method=settings.method, units=settings.units)
    vectors.save(context.recipe.out / "model", fast.load(place).save if place else None)
    return {
        "directory": str(context.recipe.out / "model"),
        "method": settings.method,
        "units": settings.units,
        "words": len(found),
        "left_out": found.left_out,
        "vocab_size": len(found.words),
        "vector_size": settings.vector_size,
        "losses": outcome.losses,
        "train_seconds": outcome.seconds,
        "words_per_second": outcome.words_per_second,
        "neighbours": {word: vectors.nearest(word, SHOWN) for word in PROBES if word in vectors.numbers},
        "partners": {f"{a}・{b}": _rank(vectors, a, b) for a, b in RELATED if {a, b} <= set(vectors.numbers)},
    }


def _rank(vectors: Vectors, word: str, partner: str) -> int:
    """1: no word is nearer than the partner."""
    scores = vectors.unit @ vectors.unit[vectors.number(word)]
    scores[vectors.number(word)] = -2.0
    return int((scores > scores[vectors.number(partner)]).sum()) + 1


def _texts(path: Path, limit: int | None) -> Iterator[str]:
    """Whole documents until `limit` bytes are passed."""
    total = 0
    for document in read([path]):
        yield document.text
        total += len(document.text.encode())
        if limit is not None and total >= limit:
            return
