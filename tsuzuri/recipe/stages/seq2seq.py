"""文章の組から、一方を読んで他方を書くことを学習します（翻訳など）。 / Learn to read one text and write another, from pairs (translation)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tsuzuri import device
from tsuzuri import directory as directories
from tsuzuri.errors import ConfigError, Words
from tsuzuri.model import weights
from tsuzuri.model.encoder_decoder import EncoderDecoder, PairShape
from tsuzuri.recipe.measure import matrix_rate
from tsuzuri.recipe.run import Context
from tsuzuri.recipe.stages._sample import sample
from tsuzuri.recipe.stages.sft import newest_model
from tsuzuri.text import fast, pairs
from tsuzuri.text.corpus.read import files
from tsuzuri.train import bigram, loop
from tsuzuri.train.objectives import seq2seq

NEEDS = ()
LEAVES = ("model",)  # outside its own folder, in that of the run
BYTES_PER_TOKEN = 4  # of Japanese and English with a vocabulary of 4,096; guessed before there is one
BOUNDARY = "<|endoftext|>"  # ends a source and a target, and is what a target starts from
TEMPLATE = "{{- messages[-1]['content'] -}}"  # a conversation with a translator: what was said last is translated


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """The shape of both stacks. Names as in Hugging Face's config.json."""

    hidden_size: int
    num_hidden_layers: int  # of the decoder
    num_attention_heads: int
    intermediate_size: int
    family: str = "t5"
    encoder_layers: int | None = None  # None: as the decoder

    def shape(self, vocab_size: int, length: int, start: int) -> PairShape:
        family = weights.decoder(self.family)
        if getattr(family, "MODEL", None) is not EncoderDecoder:
            raise ConfigError(
                Words(
                    f"設定「seq2seq.model.family」に {self.family} が指定されました。", f"'seq2seq.model.family' was given {self.family}."
                ),
                found=Words("エンコーダとデコーダのあるモデルではありません。", "It has no encoder beside a decoder."),
                todo=Words("t5 か marian を指定してください。", "Give t5 or marian."),
            )
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "family"}
        given = {**family.USUAL, **own, "vocab_size": vocab_size, "decoder_start_token_id": start}
        if given["position"] != "relative":  # those have no limit of their own
            given["max_position_embeddings"] = length
        return PairShape(**given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(loop.LoopSettings):
    model: ModelSettings
    inputs: list[str]  # files or directories of JSON lines
    held_out: list[str]  # never trained on
    source: str = "source"  # the column that is read
    target: str = "target"  # the column that is written
    kind: str = "bpe"  # of the tokenizer, made from both sides
    vocab_size: int = 4096
    length: int = 128  # tokens of targets a row
    source_length: int = 128  # tokens of sources a row
    skip_longer: bool = False  # leave out, counted, what is longer than a row; else it stops the run
    start: Literal["auto", "random", "bigram"] = (
        "random"  # bigram: embedding and head fitted to pairs of what is written; auto: if they can
    )

    def __post_init__(self) -> None:
        loop.LoopSettings.__post_init__(self)
        loop.positive(self, "length", "source_length")
        fast.check(self.kind, self.vocab_size)
        shape = self.model.shape(self.vocab_size, max(self.length, self.source_length), 0)
        weights.decoder(self.model.family).config(shape)
        if self.start == "bigram":
            bigram.check(shape, "seq2seq.start")


def inputs(settings: Settings) -> list[Path]:
    return [*files([Path(name) for name in settings.inputs]), *files([Path(name) for name in settings.held_out])]


def expected_rows(settings: Settings) -> int:
    """About how many rows an epoch will have, for the plan: bytes stand for tokens."""
    room = settings.source_length, settings.length
    sizes = [[len(text.encode()) / BYTES_PER_TOKEN + 1 for text in pair] for pair in train_pairs(settings)]
    kept = [size for size in sizes if not settings.skip_longer or seq2seq.fits((round(size[0]), round(size[1])), room)]
    return max(1, round(max(sum(size[side] for size in kept) / room[side] for side in (0, 1))))


def train_pairs(settings: Settings) -> list[tuple[str, str]]:
    return list(pairs.read(files([Path(name) for name in settings.inputs]), settings.source, settings.target))


def held_pairs(settings: Settings) -> list[tuple[str, str]]:
    return list(pairs.read(files([Path(name) for name in settings.held_out]), settings.source, settings.target))


def run(settings: Settings, context: Context) -> dict[str, Any]:
    train, held = train_pairs(settings), held_pairs(settings)
    tokenizer = _tokenizer(settings, train, context.directory / "tokenizer")
    boundary = tokenizer.special[BOUNDARY]
    examples, skipped = fitting(settings, tokenizer, train)
    scored, unscored = fitting(settings, tokenizer, held)
    if skipped or unscored:
        context.watch.notice(
            Words(
                f"行に収まらない組を除きました：学習用 {skipped}、検証用 {unscored}。",
                f"Left out pairs longer than a row: {skipped} to train on, {unscored} held out.",
            )
        )
    objective = seq2seq.Objective(seq2seq.Settings(settings.length, settings.source_length), examples, boundary, boundary)
    held_out = seq2seq.Objective(objective.settings, scored, boundary, boundary)
    shape = settings.model.shape(tokenizer.vocab_size, max(settings.length, settings.source_length), boundary)
    model = EncoderDecoder(shape).initialise(settings.seed).to(device.choose(context.recipe.head.device))
    shown = [*tokenizer.encode(held[0][0]), boundary]

    def evaluate(model: EncoderDecoder, step: int) -> dict[str, float | str]:
        return {"validation_loss": held_loss(model, held_out), **sample(model, tokenizer, shown, [BOUNDARY])}

    def start(model: EncoderDecoder) -> None:
        loss = bigram.fit(model.decoder, bigram.count(Written(examples), boundary, tokenizer.vocab_size))
        context.watch.notice(
            Words(
                f"書く側のトークンの二つ組を数え、埋め込みと出力層をそれに合わせました（損失 {loss:.3f}）。",
                f"Counted pairs of tokens of what is written and fitted embedding and head to them (loss {loss:.3f}).",
            )
        )

    outcome = loop.train(
        model,
        objective,
        settings,
        context.directory,
        recipe=context.recipe.values,
        family=settings.model.family,
        write_extras=lambda path: write_extras(path, tokenizer),
        start=start if settings.start == "bigram" or (settings.start == "auto" and bigram.possible(shape) is None) else None,
        evaluate=evaluate,
        matrix_rate=matrix_rate(next(model.parameters()).device, settings.precision),
        watch=context.watch,
    )
    with directories.whole(context.recipe.out / "model") as temporary:
        weights.save(weights.load(newest_model(context.directory)), temporary, settings.model.family)
        write_extras(temporary, tokenizer)
    return {
        **asdict(outcome),
        "train_seconds": outcome.seconds,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "pairs": len(examples),
        "skipped": skipped,
        "validation_loss": held_loss(model, held_out),
        "shuffled_loss": held_loss(model, seq2seq.Objective(objective.settings, shuffled(scored), boundary, boundary)),
    }


@dataclass(frozen=True, slots=True)
class Written:
    """What is written in all pairs, as documents."""

    examples: Sequence[seq2seq.Example]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.array([len(example.target) for example in self.examples], np.int64)

    def document(self, index: int) -> NDArray[np.int64]:
        return self.examples[index].target


def shuffled(examples: Sequence[seq2seq.Example]) -> list[seq2seq.Example]:
    """Every target with the source of another, of about the same length: a model that reads sources is lost."""
    order = sorted(range(len(examples)), key=lambda number: len(examples[number].source))
    moved = dict(zip(order, order[1:] + order[:1], strict=True))
    return [seq2seq.Example(examples[moved[number]].source, example.target) for number, example in enumerate(examples)]


def fitting(settings: Settings, tokenizer: fast.FastTokenizer, found: Sequence[tuple[str, str]]) -> tuple[list[seq2seq.Example], int]:
    """(examples, how many were too long and left out, where that is asked for)."""
    encoded = [seq2seq.Example(*(np.asarray(tokenizer.encode(text), np.int64) for text in pair)) for pair in found]
    if not settings.skip_longer:
        return encoded, 0
    room = settings.source_length, settings.length
    kept = [example for example in encoded if seq2seq.fits((len(example.source) + 1, len(example.target) + 1), room)]
    return kept, len(encoded) - len(kept)


@torch.inference_mode()
def held_loss(model: EncoderDecoder, objective: seq2seq.Objective) -> float:
    """Nats a target, over all pairs."""
    nats, targets, place = 0.0, 0, next(model.parameters()).device
    for start in range(0, objective.rows, 16):
        batch = objective.batch(list(range(start, min(start + 16, objective.rows))))
        nats += float(objective.loss(model, batch.to(place)))
        targets += batch.trained
    return nats / max(1, targets)


def _tokenizer(settings: Settings, train: Sequence[tuple[str, str]], directory: Path) -> fast.FastTokenizer:
    """Made once from both sides of the training pairs; a resumed run reads it."""
    if not directory.is_dir():
        found = fast.train(settings.kind, [text for pair in train for text in pair], settings.vocab_size)
        with directories.whole(directory) as temporary:
            found.save(temporary)
    return fast.load(directory)


def write_extras(path: Path, tokenizer: fast.FastTokenizer) -> None:
    """What makes a directory of weights a model to ask: tokenizer, template, and where a text starts and ends."""
    tokenizer.save(path)
    (path / "chat_template.jinja").write_text(TEMPLATE + "\n", encoding="utf-8")
    boundary = tokenizer.special[BOUNDARY]
    ids = {
        "bos_token_id": boundary,
        "eos_token_id": boundary,
        "decoder_start_token_id": boundary,
        "pad_token_id": tokenizer.special["<|pad|>"],
    }
    (path / "generation_config.json").write_text(json.dumps(ids, indent=1) + "\n", encoding="utf-8")
