"""文章の続きを当てる学習をします（事前学習）。 / Learn to predict the next token."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tsuzuri import device
from tsuzuri.errors import Words
from tsuzuri.evals.windows import bits_per_byte
from tsuzuri.model import weights
from tsuzuri.model.parts.rotary import Scaling
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.recipe.measure import matrix_rate
from tsuzuri.recipe.run import Context, meet
from tsuzuri.recipe.stages._sample import sample
from tsuzuri.text import fast, shards
from tsuzuri.text.corpus.read import read
from tsuzuri.train import bigram, loop
from tsuzuri.train.objectives import pretrain

NEEDS = ("corpus", "tokenizer")
PROMPT = "この法律は、"  # what is continued on the way
SHARED = True  # under torchrun, every process takes part


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """The shape of the model, less what the tokenizer and the rows decide. Names as in Hugging Face's config.json."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    family: str = "llama"
    # None: as the family usually has it
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    block: str | None = None
    feedforward: str | None = None
    hidden_act: str | None = None
    norm: str | None = None
    position: str | None = None
    layer_types: list[str] | None = None
    norm_eps: float | None = None
    rope_theta: float | None = None
    rope_scaling: Scaling | None = None
    partial_rotary_factor: float | None = None
    sliding_window: int | None = None
    qk_norm: Literal["none", "head", "token"] | None = None
    attention_bias: bool | None = None
    mlp_bias: bool | None = None
    tie_word_embeddings: bool | None = None
    max_position_embeddings: int | None = None  # None: as long as a row of training

    def shape(self, vocab_size: int, length: int) -> Shape:
        usual = weights.decoder(self.family).USUAL
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "family" and getattr(self, f.name) is not None}
        if "layer_types" in given:
            given["layer_types"] = tuple(given["layer_types"])
        return Shape(**{**usual, "vocab_size": vocab_size, "max_position_embeddings": length, **given})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(loop.LoopSettings):
    model: ModelSettings
    length: int = 256  # tokens a row
    start: Literal["random", "bigram"] = "random"  # bigram: embedding and head fitted to pairs of tokens first (train/bigram.py)
    train_tokens: int | None = None  # of the corpus, whole documents; None: all of it
    validation_bytes: int = 300_000  # scored on the way; the last score takes all

    def __post_init__(self) -> None:
        loop.LoopSettings.__post_init__(self)
        loop.positive(self, "length", "train_tokens", "validation_bytes")


def check(settings: Settings, before: Mapping[str, Any]) -> None:
    """The shape is possible, and the family it will be written as can say it."""
    shape = settings.model.shape(before["tokenizer"].vocab_size, settings.length)
    weights.decoder(settings.model.family).config(shape)
    if settings.start == "bigram":
        bigram.check(shape.tie_word_embeddings)


def inputs(settings: Settings) -> list[Path]:
    return []


def run(settings: Settings, context: Context) -> dict[str, Any]:
    tokenizer = fast.load(context.before("tokenizer") / "files")
    train, held = (corpus_ids(context, tokenizer, part) for part in ("train", "validation"))
    documents = Head(train, settings.train_tokens)
    where = device.choose(context.recipe.head.device)
    shape = settings.model.shape(tokenizer.vocab_size, settings.length)
    model = Transformer(shape).initialise(settings.seed).to(where)
    boundary = tokenizer.special["<|endoftext|>"]

    scored = Head(held, None, settings.validation_bytes)
    prompt = [boundary, *tokenizer.encode(PROMPT)]

    def evaluate(model: Transformer, step: int) -> dict[str, float | str]:
        said = sample(model, tokenizer, prompt, ["<|endoftext|>"])
        return {"bits_per_byte": bits_per_byte(model, scored, boundary).bits_per_byte, **said}

    def start(model: Transformer) -> None:
        begun = time.perf_counter()
        loss = bigram.fit(model, bigram.count(documents, boundary, tokenizer.vocab_size))
        spent = f"{time.perf_counter() - begun:.0f}"
        context.watch.notice(
            Words(
                f"トークンの二つ組を数え、埋め込みと出力層をそれに合わせました（損失 {loss:.3f}、{spent} 秒）。",
                f"Counted pairs of tokens and fitted embedding and head to them (loss {loss:.3f}, {spent} s).",
            )
        )

    outcome = loop.train(
        model,
        pretrain.Objective(pretrain.Settings(settings.length), documents, boundary),
        settings,
        context.directory,
        recipe=context.recipe.values,
        family=settings.model.family,
        write_extras=tokenizer.save,
        start=start if settings.start == "bigram" else None,
        evaluate=evaluate,
        matrix_rate=matrix_rate(where, settings.precision),
        watch=context.watch,
    )
    final, partial = bits_per_byte(model, held, boundary), bits_per_byte(model, scored, boundary)
    parameters = sum(weight.numel() for weight in model.parameters())
    read_bytes = int(sum(documents.byte_lengths))
    return {
        **asdict(outcome),
        "train_seconds": outcome.seconds,
        "parameters": parameters,
        "read_tokens": documents.tokens,
        "read_bytes": read_bytes,
        "read_documents": len(documents),
        "bits": asdict(final),
        "scored_on_the_way": {"bytes": partial.bytes, "bits_per_byte": partial.bits_per_byte},
    }


class Head:
    """The first documents, whole, until so many tokens or bytes are passed."""

    def __init__(self, documents: shards.Shards, tokens: int | None, byte_limit: int | None = None) -> None:
        count = len(documents)
        for limit, sizes in ((tokens, documents.lengths), (byte_limit, documents.byte_lengths)):
            if limit is not None:
                count = min(count, int(np.searchsorted(np.cumsum(sizes), limit)) + 1)
        self.documents = documents
        self.lengths, self.byte_lengths = documents.lengths[:count], documents.byte_lengths[:count]

    def __len__(self) -> int:
        return len(self.lengths)

    def document(self, index: int) -> NDArray[np.integer[Any]]:
        return self.documents.document(index)

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())


def corpus_ids(context: Context, tokenizer: fast.FastTokenizer, part: str) -> shards.Shards:
    """The corpus as ids; made once, and again when it was left unfinished."""
    directory = context.directory / "shards" / part
    if not directory.is_dir() and device.rank()[0] == 0:
        text = context.before("corpus") / "text" / f"{part}.jsonl.zst"
        shards.write(directory, read([text]), tokenizer)
    meet()
    return shards.Shards(directory)
