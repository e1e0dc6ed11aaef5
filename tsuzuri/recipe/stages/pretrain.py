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
from tsuzuri.config import build
from tsuzuri.errors import Words
from tsuzuri.evals.windows import bits_per_byte
from tsuzuri.model import weights
from tsuzuri.model.parts.rotary import Scaling
from tsuzuri.model.transformer import UNLIMITED, Shape
from tsuzuri.recipe.measure import matrix_rate
from tsuzuri.recipe.run import Context, meet
from tsuzuri.recipe.stages import _counted
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
    """The shape of the model, less what the tokenizer and the rows decide. Names as in Hugging Face's config.json.

    A family in which most of this means nothing has `Settings` of its own, and they are the section then.
    """

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
    num_experts: int | None = None
    num_experts_per_tok: int | None = None
    router_aux_loss_coef: float | None = None
    max_position_embeddings: int | None = None  # None: as long as a row of training

    def shape(self, vocab_size: int, length: int) -> Shape:
        usual = weights.decoder(self.family).USUAL
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "family" and getattr(self, f.name) is not None}
        if "layer_types" in given:
            given["layer_types"] = tuple(given["layer_types"])
        return Shape(**{**usual, "vocab_size": vocab_size, "max_position_embeddings": length, **given})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(loop.LoopSettings):
    model: Any  # ModelSettings, or the family's own
    length: int = 256  # tokens a row
    start: Literal["auto", "random", "bigram"] = "random"  # bigram: embedding and head fitted to pairs first; auto: where that can be
    train_tokens: int | None = None  # of the corpus, whole documents; None: all of it
    validation_bytes: int = 300_000  # scored on the way; the last score takes all

    def __post_init__(self) -> None:
        loop.LoopSettings.__post_init__(self)
        if isinstance(self.model, Mapping):
            object.__setattr__(self, "model", build(_settings(self.model), self.model, "pretrain.model"))
        loop.positive(self, "length", "train_tokens", "validation_bytes")


def _settings(given: Mapping[str, Any]) -> Any:
    """The dataclass of the `model:` section: the family's own where it has one."""
    return getattr(weights.family(str(given.get("family", "llama"))), "Settings", ModelSettings)


def taken(derived: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What the dial derives, less what the family has no place for: a model of counts has no width."""
    model = given.get("model") or {}
    if not derived or not isinstance(model, Mapping):
        return dict(derived)
    known = {field.name for field in fields(_settings(model))}
    return {**derived, "model": {name: value for name, value in derived["model"].items() if name in known}}


def is_counted(family: str) -> bool:
    """Whether models of this family are fitted by counting, not trained."""
    return hasattr(weights.family(family), "fit")


def from_pairs(settings: Settings, shape: Any) -> bool:
    """Whether embedding and head are fitted to pairs of tokens before the first step."""
    return settings.start == "bigram" or (settings.start == "auto" and bigram.possible(shape) is None)


def context_length(settings: Settings, vocab_size: int) -> int:
    """Tokens of the longest text that the model will read."""
    if is_counted(settings.model.family):
        return UNLIMITED
    return int(settings.model.shape(vocab_size, settings.length).max_position_embeddings)


def check(settings: Settings, before: Mapping[str, Any]) -> None:
    """The shape is possible, and the family it will be written as can say it."""
    if is_counted(settings.model.family):
        return
    shape = settings.model.shape(before["tokenizer"].vocab_size, settings.length)
    weights.decoder(settings.model.family).config(shape)
    if settings.start == "bigram":
        bigram.check(shape)


def inputs(settings: Settings) -> list[Path]:
    return []


def run(settings: Settings, context: Context) -> dict[str, Any]:
    tokenizer = fast.load(context.before("tokenizer") / "files")
    train, held = (corpus_ids(context, tokenizer, part) for part in ("train", "validation"))
    documents = Head(train, settings.train_tokens)
    where = device.choose(context.recipe.head.device)
    boundary = tokenizer.special["<|endoftext|>"]
    scored = Head(held, None, settings.validation_bytes)
    if is_counted(settings.model.family):
        texts = [documents.document(index) for index in range(len(documents))]
        outcome, model = _counted.count(context, tokenizer, texts, tokenizer.save)
        return {**outcome, **_found(model, model.size, documents, held, scored, boundary)}
    shape = settings.model.shape(tokenizer.vocab_size, settings.length)
    model = weights.build(weights.decoder(settings.model.family), shape).initialise(settings.seed).to(where)
    prompt = [boundary, *tokenizer.encode(PROMPT)]

    def evaluate(model: Any, step: int) -> dict[str, float | str]:
        said = sample(model, tokenizer, prompt, ["<|endoftext|>"])
        return {"bits_per_byte": bits_per_byte(model, scored, boundary).bits_per_byte, **said}

    def start(model: Any) -> None:
        begun = time.perf_counter()
        loss = bigram.fit(model, bigram.count(documents, boundary, tokenizer.vocab_size))
        spent = f"{time.perf_counter() - begun:.0f}"
        context.watch.notice(
            Words(
                f"トークンの二つ組を数え、埋め込みと出力層をそれに合わせました（損失 {loss:.3f}、{spent} 秒）。",
                f"Counted pairs of tokens and fitted embedding and head to them (loss {loss:.3f}, {spent} s).",
            )
        )

    done = loop.train(
        model,
        pretrain.Objective(pretrain.Settings(settings.length), documents, boundary),
        settings,
        context.directory,
        recipe=context.recipe.values,
        family=settings.model.family,
        write_extras=tokenizer.save,
        start=start if from_pairs(settings, shape) else None,
        evaluate=evaluate,
        matrix_rate=matrix_rate(where, settings.precision),
        watch=context.watch,
    )
    parameters = sum(weight.numel() for weight in model.parameters())
    return {**asdict(done), "train_seconds": done.seconds, **_found(model, parameters, documents, held, scored, boundary)}


def _found(model: Any, parameters: int, documents: Head, held: shards.Shards, scored: Head, boundary: int) -> dict[str, Any]:
    """What the report says of a finished model."""
    final, partial = bits_per_byte(model, held, boundary), bits_per_byte(model, scored, boundary)
    return {
        "parameters": parameters,
        "read_tokens": documents.tokens,
        "read_bytes": int(sum(documents.byte_lengths)),
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
