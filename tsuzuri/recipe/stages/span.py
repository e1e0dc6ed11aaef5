"""抜いた区間を書く学習をします（T5 の事前学習）。 / Pre-train an encoder-decoder: write the spans that were taken out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tsuzuri import device
from tsuzuri import directory as directories
from tsuzuri.engine.engine import LocalEngine
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import ConfigError, Words
from tsuzuri.evals import filling
from tsuzuri.model import weights
from tsuzuri.model.encoder_decoder import EncoderDecoder
from tsuzuri.model.families.ngram import NgramModel
from tsuzuri.recipe.measure import matrix_rate
from tsuzuri.recipe.run import Context
from tsuzuri.recipe.stages import pretrain, seq2seq
from tsuzuri.recipe.stages.sft import newest_model
from tsuzuri.text import fast
from tsuzuri.train import bigram, loop
from tsuzuri.train.objectives import span
from tsuzuri.train.objectives.pretrain import Documents

NEEDS = ("corpus", "tokenizer")
LEAVES = ("model",)  # outside its own folder, in that of the run
ORDER, BEAMS = 5, 8  # of the n-gram model that fills spans too
SHOWN = 3  # stretches in the report


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(loop.LoopSettings):
    model: seq2seq.ModelSettings
    length: int = 128  # tokens of a stretch of text before anything is taken out
    density: float = 0.15  # share of the tokens that is taken out
    span: float = 3.0  # tokens, on average
    start: Literal["auto", "random", "bigram"] = "random"  # bigram: embedding and head fitted to pairs of tokens; auto: if they can
    train_tokens: int | None = None  # of the corpus, whole documents; None: all of it
    scored: int = 200  # stretches of held-out text that are filled at the end

    def __post_init__(self) -> None:
        loop.LoopSettings.__post_init__(self)
        loop.positive(self, "length", "train_tokens", "scored")
        _choices(self)


def _choices(settings: Settings) -> span.Settings:
    return span.Settings(settings.length, settings.density, settings.span, settings.seed)


def check(settings: Settings, before: Mapping[str, Any]) -> None:
    """The family has an encoder beside a decoder, and the tokenizer has names for what is taken out."""
    shape = settings.model.shape(before["tokenizer"].vocab_size, settings.length, 0)
    weights.decoder(settings.model.family).config(shape)
    if settings.start == "bigram":
        bigram.check(shape, "span.start")
    if before["tokenizer"].special != "span":
        raise ConfigError(
            Words(
                f"設定「tokenizer.special」が {before['tokenizer'].special} です。",
                f"The setting 'tokenizer.special' is {before['tokenizer'].special}.",
            ),
            found=Words("抜いた区間の目印（<extra_id_0> など）が要ります。", "Spans that are taken out need <extra_id_0> and its like."),
            todo=Words("tokenizer.special=span にしてください。", "Give tokenizer.special=span."),
        )


def inputs(settings: Settings) -> list[Path]:
    return []


def run(settings: Settings, context: Context) -> dict[str, Any]:
    tokenizer = fast.load(context.before("tokenizer") / "files")
    train, held = (pretrain.corpus_ids(context, tokenizer, part) for part in ("train", "validation"))
    documents, boundary = pretrain.Head(train, settings.train_tokens), tokenizer.special[seq2seq.BOUNDARY]
    sentinels = [tokenizer.special[name] for name in fast.SENTINELS]
    objective, scored = (span.Objective(_choices(settings), some, sentinels, boundary, boundary) for some in (documents, held))
    shape, where = settings.model.shape(tokenizer.vocab_size, settings.length, boundary), device.choose(context.recipe.head.device)
    model = EncoderDecoder(shape).initialise(settings.seed).to(where)

    def start(model: EncoderDecoder) -> None:
        loss = bigram.fit(model.decoder, bigram.count(documents, boundary, tokenizer.vocab_size))
        context.watch.notice(
            Words(
                f"トークンの二つ組を数え、埋め込みと出力層をそれに合わせました（損失 {loss:.3f}）。",
                f"Counted pairs of tokens and fitted embedding and head to them (loss {loss:.3f}).",
            )
        )

    outcome = loop.train(
        model,
        objective,
        settings,
        context.directory,
        recipe=context.recipe.values,
        family=settings.model.family,
        write_extras=lambda path: seq2seq.write_extras(path, tokenizer),
        start=start if settings.start == "bigram" or (settings.start == "auto" and bigram.possible(shape) is None) else None,
        evaluate=lambda model, step: {"validation_loss": held_loss(model, scored)},
        matrix_rate=matrix_rate(where, settings.precision),
        watch=context.watch,
    )
    read = {"parameters": sum(weight.numel() for weight in model.parameters()), "read_documents": len(documents)}
    found = {**asdict(outcome), "train_seconds": outcome.seconds, **read, "read_bytes": int(sum(documents.byte_lengths))}
    with directories.whole(context.recipe.out / "model") as temporary:
        weights.save(weights.load(newest_model(context.directory)), temporary, settings.model.family)
        seq2seq.write_extras(temporary, tokenizer)
    stretches = emptied(settings, held)
    right = [_right(*one) for one in stretches]
    said = written(model, stretches, sentinels, boundary)
    counts = NgramModel.fit(
        (np.append(documents.document(n), boundary) for n in range(len(documents))), tokenizer.vocab_size, ORDER, boundary
    )
    left, both = (
        filling.share(right, [filling.counted(counts, *one, width=width, both=sides) for one in stretches])
        for width, sides in ((1, False), (BEAMS, True))
    )
    rivals = {
        str(Words(f"{ORDER}-gram（左から、長さは知っている）", f"a {ORDER}-gram from the left that knows the length")): asdict(left),
        str(Words(f"{ORDER}-gram（両側から、長さは知っている）", f"a {ORDER}-gram from both sides that knows the length")): asdict(both),
    }
    own = {"score": asdict(filling.share(right, said)), "rivals": rivals, "metric": "filled", "filled": shown(tokenizer, stretches, said)}
    return {**found, **own, "rows": objective.rows, "seed": settings.seed, "validation_loss": held_loss(model, scored)}


def emptied(settings: Settings, held: Documents) -> list[tuple[filling.Ids, filling.Out]]:
    """Whole stretches of held-out text, spread over it, and which of their tokens are out."""
    places = [(d, at) for d, n in enumerate(held.lengths) for at in range(0, int(n) - settings.length + 1, settings.length)]
    found = []
    for document, at in places[:: max(1, len(places) // settings.scored)][: settings.scored]:
        ids = np.asarray(held.document(document)).astype(np.int64)[at : at + settings.length]
        random = np.random.default_rng((settings.seed % 2**64, document, at))
        found.append((ids, span.taken(len(ids), _choices(settings), random)))
    return found


def _right(ids: filling.Ids, out: filling.Out) -> list[list[int]]:
    return [ids[start:stop].tolist() for start, stop in filling.spans(out)]


def written(
    model: EncoderDecoder, stretches: Sequence[tuple[filling.Ids, filling.Out]], sentinels: Sequence[int], boundary: int
) -> list[list[list[int]]]:
    """What the model writes for each span, greedily; nothing where it does not name the span."""
    engine = LocalEngine(model, [boundary], model.context_length, device.of(model))
    found = []
    for ids, out in stretches:
        source, target = span.corrupted(ids, out, np.asarray(sentinels, np.int64))
        asked = Sampling(temperature=0.0, max_tokens=2 * len(target))
        said = [token.id for token in engine.stream([*source.tolist(), boundary], asked) if token.finish != "stop"]
        pieces, current = dict[int, list[int]](), list[int]()
        for id in said:
            if id in sentinels:
                current = pieces.setdefault(id, [])
            else:
                current.append(id)
        found.append([pieces.get(sentinel, []) for sentinel, _ in zip(sentinels, filling.spans(out), strict=False)])
    return found


def shown(
    tokenizer: fast.FastTokenizer, stretches: Sequence[tuple[filling.Ids, filling.Out]], said: Sequence[Sequence[Sequence[int]]]
) -> list[dict[str, str]]:
    """The first stretches: what stays with a blank for each span, what was written, and what stood there."""
    found = []
    for (ids, out), spans in list(zip(stretches, said, strict=True))[:SHOWN]:
        begins = out & ~np.append(False, out[:-1])
        pieces: list[NDArray[np.int64]] = np.split(ids, np.flatnonzero(begins | (~out & np.append(False, out[:-1]))))
        gone = np.split(out, np.flatnonzero(begins | (~out & np.append(False, out[:-1]))))
        text = "".join("＿" if gap[0] else tokenizer.decode(piece.tolist()) for piece, gap in zip(pieces, gone, strict=True) if len(gap))
        say, stood = ("｜".join(tokenizer.decode(one) for one in some) for some in (spans, _right(ids, out)))
        found.append({"source": " ".join(text.split()), "text": " ".join(say.split()), "reference": " ".join(stood.split())})
    return found


@torch.inference_mode()
def held_loss(model: EncoderDecoder, objective: span.Objective) -> float:
    """Nats a target over the first rows of held-out text."""
    nats, targets, place = 0.0, 0, next(model.parameters()).device
    for start in range(0, min(64, objective.rows), 16):
        batch = objective.batch(list(range(start, min(start + 16, objective.rows))))
        nats += float(objective.loss(model, batch.to(place)))
        targets += batch.trained
    return nats / max(1, targets)
