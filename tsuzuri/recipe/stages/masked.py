"""隠した語を当てる学習をします（エンコーダの事前学習）。 / Pre-train an encoder: guess hidden tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tsuzuri import device
from tsuzuri.errors import ConfigError, Words
from tsuzuri.evals import encoders
from tsuzuri.model import weights
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.recipe.measure import matrix_rate
from tsuzuri.recipe.run import Context
from tsuzuri.recipe.stages import pretrain
from tsuzuri.text import fast, framing
from tsuzuri.text.split import SCRIPTS, scripts
from tsuzuri.train import loop, loss
from tsuzuri.train.data import Batch
from tsuzuri.train.objectives import masked

NEEDS = ("corpus", "tokenizer")
SHARED = True  # under torchrun, every process takes part
HELD_ROWS, SCORED_ROWS = 64, 512  # on the way, and at the end
ENDING = b"\xbf\xbf\xbf"  # of a character whose last bytes are not known
SPACE = 0x20
DRAWN = 7  # the seed of what is hidden there


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(loop.LoopSettings):
    model: pretrain.ModelSettings
    length: int = 256  # tokens a row
    share: float = 0.15  # of the tokens that are hidden, or shown as another, and have to be guessed
    whole_words: bool = False  # hide the tokens of a word together
    train_tokens: int | None = None  # of the corpus, whole documents; None: all of it

    def __post_init__(self) -> None:
        loop.LoopSettings.__post_init__(self)
        loop.positive(self, "length", "train_tokens", "share")
        if self.length < 8 or self.share >= 1:
            raise loop.wrong(Words("length は 8 以上、share は 1 未満です。", "length is at least 8, share less than 1."))


def shape_of(settings: Settings, vocab_size: int, padding: int) -> Shape:
    """The shape of the model; a family that counts positions from the padding token on (RoBERTa) is told its number."""
    found = settings.model.shape(vocab_size, settings.length)
    return replace(found, position_offset=padding + 1) if found.position_offset else found


def check(settings: Settings, before: Mapping[str, Any]) -> None:
    """The family is one of encoders, and the tokenizer one for them."""
    shape = shape_of(settings, before["tokenizer"].vocab_size, fast.ENCODER.index("[PAD]"))
    weights.decoder(settings.model.family).config(shape)
    if shape.causal or shape.head != "masked":
        raise ConfigError(
            Words("設定「masked.model.family」が指定されました。", "The setting 'masked.model.family' was given."),
            found=Words(f"{settings.model.family} はエンコーダではありません。", f"{settings.model.family} is no encoder."),
            todo=Words("bert、roberta、modernbert から選んでください。", "Choose bert, roberta or modernbert."),
        )
    if before["tokenizer"].special != "encoder":
        raise ConfigError(
            Words("設定「tokenizer.special」が chat です。", "The setting 'tokenizer.special' is chat."),
            found=Words("エンコーダには [CLS] や [MASK] が要ります。", "An encoder needs [CLS], [MASK] and their like."),
            todo=Words("tokenizer.special=encoder にしてください。", "Give tokenizer.special=encoder."),
        )


def inputs(settings: Settings) -> list[Path]:
    return []


def run(settings: Settings, context: Context) -> dict[str, Any]:
    tokenizer = fast.load(context.before("tokenizer") / "files")
    train, held = (pretrain.corpus_ids(context, tokenizer, part) for part in ("train", "validation"))
    documents = pretrain.Head(train, settings.train_tokens)
    frame, where = framing.frame(tokenizer), device.choose(context.recipe.head.device)
    model = Transformer(shape_of(settings, tokenizer.vocab_size, frame.padding)).initialise(settings.seed).to(where)
    choices = masked.Settings(settings.length, settings.share, settings.whole_words)
    objective = masked.Objective(choices, documents, frame, tokenizer.vocab_size, scripts_of(tokenizer))
    scored = masked.Objective(choices, held, frame, tokenizer.vocab_size, scripts_of(tokenizer))

    def evaluate(model: Transformer, step: int) -> dict[str, float | str]:
        return {"validation_loss": held_loss(model, scored)}

    outcome = loop.train(
        model,
        objective,
        settings,
        context.directory,
        recipe=context.recipe.values,
        family=settings.model.family,
        write_extras=tokenizer.save,
        evaluate=evaluate,
        matrix_rate=matrix_rate(where, settings.precision),
        watch=context.watch,
    )
    read = {"parameters": sum(weight.numel() for weight in model.parameters()), "read_documents": len(documents)}
    found = {**asdict(outcome), "train_seconds": outcome.seconds, **read, "read_bytes": int(sum(documents.byte_lengths))}
    batch = hidden(scored, SCORED_ROWS)
    counted = encoders.Neighbours([documents.document(number) for number in range(len(documents))], tokenizer.vocab_size)
    own = {
        "score": asdict(encoders.guessed(batch.targets.numpy(), said(model, batch))),
        "rivals": {
            str(Words("最多のトークン", "the commonest token")): asdict(
                encoders.guessed(batch.targets.numpy(), np.full(batch.targets.shape, counted.commonest))
            ),
            str(Words("両隣から数えた表", "a table counted from both neighbours")): asdict(
                encoders.guessed(batch.targets.numpy(), counted(batch.tokens.numpy()))
            ),
        },
    }
    return {**found, **own, "metric": "guessed", "rows": objective.rows, "seed": settings.seed, "validation_loss": held_loss(model, scored)}


def hidden(objective: masked.Objective, rows: int) -> Batch:
    """The first rows; the same tokens are hidden each time, and the random state is left alone."""
    before = torch.get_rng_state()
    torch.manual_seed(DRAWN)
    try:
        return objective.batch(list(range(min(rows, objective.rows))))
    finally:
        torch.set_rng_state(before)


@torch.inference_mode()
def said(model: Transformer, batch: Batch) -> NDArray[np.int64]:
    """(B, T) the most probable token at every place."""
    where = next(model.parameters()).device
    parts = [part.to(where) for part in batch.split(16)]
    return torch.cat([model(part.tokens, loss.bidirectional(part)).argmax(-1) for part in parts]).cpu().numpy()


@torch.inference_mode()
def held_loss(model: Transformer, objective: masked.Objective) -> float:
    """Nats a hidden token over the first rows of held-out text."""
    batch = hidden(objective, HELD_ROWS)
    nats = sum(float(objective.loss(model, part.to(next(model.parameters()).device))) for part in batch.split(16))
    return nats / max(1, batch.trained)


def scripts_of(tokenizer: fast.FastTokenizer) -> NDArray[np.int32]:
    """(V, 2): the scripts that each id begins and ends in (`text/split.py`); special tokens, and words with their space before them,
    begin in one of their own. Of a character that is spelt in several tokens, the first has its script, as far as its bytes tell, and
    the others are GOES_ON."""
    found = np.empty((tokenizer.vocab_size, 2), np.int32)
    special = set(tokenizer.special.values())
    for id in range(tokenizer.vocab_size):
        spelt = tokenizer.token_bytes(id)
        if id in special or not spelt:
            found[id] = len(SCRIPTS) + 1 + id
        elif spelt[0] & 0xC0 == 0x80:  # the inside of a character in UTF-8
            found[id] = masked.GOES_ON
        else:
            pieces = scripts((spelt + ENDING[: _missing(spelt)]).decode(errors="replace"))
            found[id] = [SCRIPTS.index(script) for script, _ in (pieces[0], pieces[-1])]
            if spelt[0] == SPACE and pieces[0][0] == "latin":
                found[id, 0] = len(SCRIPTS)
    return found


def _missing(spelt: bytes) -> int:
    """How many bytes the last character lacks."""
    begin = max((at for at, byte in enumerate(spelt) if byte & 0xC0 != 0x80), default=0)
    size = {0xC: 2, 0xD: 2, 0xE: 3, 0xF: 4}.get(spelt[begin] >> 4, 1)
    return max(0, begin + size - len(spelt))
