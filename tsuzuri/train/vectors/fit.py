"""The epochs of Word2Vec and GloVe: stoppable at any batch, and then going on to the same numbers to the last bit.

In: `Lines`, settings, a directory. Out: a vector for each word, and in that directory a checkpoint after every epoch and where
a person stopped it. What is drawn at random is a function of seed and epoch, so no generator's state need be kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tsuzuri.errors import StopRequested, TrainingError, Words
from tsuzuri.train import checkpoint, loop
from tsuzuri.train.vectors import glove, word2vec
from tsuzuri.train.vectors.lines import Lines
from tsuzuri.train.watch import Metrics, Watch

TOLD = 100  # times an epoch: the loss is measured and shown
KEPT = ("epoch", "batch", "seconds", "measured", "losses")  # of a run, in a checkpoint
LAST_RATE = 1e-4  # of the learning rate, at the end of its fall (Mikolov's program)
OF_METHOD = {  # what a method takes, and what it is where the recipe does not say
    "skip-gram": {"window": 5, "epochs": 5, "learning_rate": 0.025, "negative": 5, "sample": 1e-4},
    "cbow": {"window": 5, "epochs": 5, "learning_rate": 0.075, "negative": 5, "sample": 1e-4},
    "glove": {"window": 10, "epochs": 25, "learning_rate": 0.05, "x_max": 100.0},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorSettings:
    """Names as in the programs of the authors. What stands as null is filled in by the method, and refused where it has none."""

    method: Literal["skip-gram", "cbow", "glove"] = "skip-gram"
    vector_size: int = 100
    window: int | None = None  # words to either side, at most
    min_count: int = 5  # a rarer word has no vector
    max_words: int = 100_000  # in the vocabulary: the most frequent
    epochs: int | None = None
    learning_rate: float | None = None  # word2vec: falls to nothing in a straight line; glove: AdaGrad's
    negative: int | None = None  # K, random words for each pair
    sample: float | None = None  # t: words more frequent than this share of the text are thinned out; 0: none
    x_max: float | None = None  # from this count on, all weigh the same
    seed: int = 1

    def __post_init__(self) -> None:
        taken = OF_METHOD[self.method]
        for name in sorted({name for one in OF_METHOD.values() for name in one}):
            value = getattr(self, name)
            if name not in taken and value is not None:
                ja = f"method が {self.method} のとき、{name} は使われませんが、{value} が指定されています。"
                raise loop.wrong(Words(ja, f"With method {self.method}, {name} has no use, but it was given {value}."))
            if value is None and name in taken:
                object.__setattr__(self, name, taken[name])
        loop.positive(self, "vector_size", "window", "min_count", "max_words", "epochs", "learning_rate", "negative", "x_max")
        for name, least, most in (("sample", 0, 1), ("window", 1, 100), ("vector_size", 1, 4096), ("seed", 0, (1 << 62) - 1)):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise loop.wrong(
                    Words(f"{name} が {value} です。{least} から {most} までです。", f"{name} is {value}; it lies in {least} … {most}.")
                )


@dataclass(frozen=True, slots=True)
class Outcome:
    vectors: Tensor  # (V, D) float32
    seconds: float  # of the steps, over all resumed parts
    losses: list[float]  # of each epoch, a pair (word2vec) or a cell (glove)
    words_per_second: float  # of the text, those that were thinned out included
    resumed_at: int  # epochs that were done before


class _Method(Protocol):
    """What differs between the two."""

    state: dict[str, Tensor]  # changed in place

    def epoch(self, number: int) -> Any: ...  # the batches: they have a length
    def step(self, batch: Any, left: float, measure: bool) -> float: ...  # `left`: the share of the run that is to come
    def vectors(self) -> Tensor: ...


def fit(lines: Lines, settings: VectorSettings, directory: Path, *, watch: Watch | None = None) -> Outcome:
    """Run or resume. Raises StopRequested after SIGINT or SIGTERM, with a checkpoint written; TrainingError where the vectors
    are no longer numbers; what `checkpoint.latest` raises."""
    assert settings.epochs is not None
    watch = watch or Watch()
    method = _Glove(lines, settings, watch) if settings.method == "glove" else _Word2Vec(lines, settings)
    run = _Run(method, settings.epochs, directory / "checkpoints", watch)
    resumed_at = run.resume()
    watch.begin(settings.epochs * TOLD, run.epoch * TOLD)
    try:
        with loop.stop_requests() as stopped:
            while run.epoch < settings.epochs:
                run.read(len(lines), stopped.is_set)
    finally:
        watch.end()
    return Outcome(method.vectors(), run.seconds, run.losses, settings.epochs * len(lines) / max(run.seconds, 1e-9), resumed_at)


@dataclass(slots=True)
class _Run:
    """How far it is: what a checkpoint holds beside the state of the method."""

    method: _Method
    epochs: int
    root: Path
    watch: Watch
    epoch: int = 0  # done
    batch: int = 0  # done, of the epoch after those
    batches: int = 0  # done in all
    seconds: float = 0.0
    measured: list[float] = field(default_factory=list)  # losses of this epoch
    losses: list[float] = field(default_factory=list)  # of the epochs done

    def resume(self) -> int:
        """Take over the newest good checkpoint; the number of epochs it holds."""
        found, notices = checkpoint.latest(self.root)
        for notice in notices:
            self.watch.notice(notice)
        if found:
            state = checkpoint.load(found)
            for name, value in self.method.state.items():
                value.copy_(state.tensors[name])
            self.batches = state.step
            for name in KEPT:
                setattr(self, name, state.values[name])
        return self.epoch

    def read(self, words: int, stop: Callable[[], bool]) -> None:
        """The rest of one epoch over so many words of text."""
        batches = self.method.epoch(self.epoch)
        count = len(batches)
        every = max(1, count // TOLD)
        begun, first = time.perf_counter(), self.batch
        for number, batch in enumerate(batches):
            if number < first:
                continue  # done before it was stopped; what it drew at random has been drawn again
            loss = self.method.step(batch, 1 - (self.epoch + number / count) / self.epochs, number % every == 0)
            self.batch, self.batches = number + 1, self.batches + 1
            if number % every == 0:
                speed = words * (self.batch - first) / count / (time.perf_counter() - begun)
                self._tell(loss, speed, TOLD * self.batch // count)
            if stop() and self.batch < count:
                self.seconds += time.perf_counter() - begun
                self._save()
                raise self._stopped()
        self.seconds += time.perf_counter() - begun
        self.losses.append(sum(self.measured) / len(self.measured))
        self.measured, self.epoch, self.batch = [], self.epoch + 1, 0
        self._save()
        if stop() and self.epoch < self.epochs:
            raise self._stopped()

    def _tell(self, loss: float, speed: float, part: int) -> None:
        """Shows the loss; raises TrainingError where it is no number."""
        if not math.isfinite(loss):
            raise TrainingError(
                Words(f"{self.epoch + 1} 巡目の学習で止まりました。", f"Training, epoch {self.epoch + 1}."),
                found=Words("損失が数でなくなりました。", "The loss is no longer a number."),
                todo=Words("learning_rate を下げてください。", "Lower learning_rate."),
            )
        self.measured.append(loss)
        done = self.epoch * TOLD + part
        self.watch.step(Metrics(done, loss, math.nan, 1.0, 0, speed, None, 0.0), self.epochs * TOLD)

    def _save(self) -> None:
        values = {name: getattr(self, name) for name in KEPT}
        checkpoint.save(self.root, checkpoint.State(self.batches, self.method.state, values), lambda _: None)

    def _stopped(self) -> StopRequested:
        return StopRequested(
            Words("単語ベクトルの学習を止めました。", "Training of word vectors was stopped."),
            found=Words(
                f"{self.epochs} 巡のうち {self.epoch} 巡とその続きまで保存してあります。",
                f"{self.epoch} of {self.epochs} epochs and part of the next are saved.",
            ),
            todo=Words("同じコマンドで続きから再開できます。", "The same command resumes from there."),
        )


class _Word2Vec:
    def __init__(self, lines: Lines, settings: VectorSettings) -> None:
        self.lines, self.settings = lines, settings
        self.inner, self.outer = word2vec.initial(len(lines.words), settings.vector_size, settings.seed)
        self.state = {"inner": self.inner, "outer": self.outer}

    def epoch(self, number: int) -> word2vec.Epoch:
        settings = self.settings
        assert settings.window is not None and settings.sample is not None
        return word2vec.Epoch(self.lines, settings.window, settings.sample, np.random.default_rng([settings.seed, number]))

    def step(self, batch: word2vec.Batch, left: float, measure: bool) -> float:
        settings = self.settings
        assert settings.method != "glove" and settings.negative is not None and settings.learning_rate is not None
        rate = settings.learning_rate * max(LAST_RATE, left)
        return word2vec.step(settings.method, self.inner, self.outer, batch, settings.negative, rate, measure=measure)

    def vectors(self) -> Tensor:
        return self.inner


class _Glove:
    def __init__(self, lines: Lines, settings: VectorSettings, watch: Watch) -> None:
        assert settings.window is not None and settings.x_max is not None
        self.settings = settings
        counts = glove.count(lines, settings.window)
        watch.notice(
            Words(
                f"近くに立つ語の組を数えました（{len(counts):,} 組）。",
                f"Counted which words stand near each other ({len(counts):,} pairs).",
            )
        )
        self.cells = glove.Cells(counts, settings.x_max)
        self.tables = glove.initial(len(lines.words), settings.vector_size, settings.seed)
        self.state = {
            f"{side}.{name}": getattr(table, name)
            for side, table in zip(("inner", "outer"), self.tables, strict=True)
            for name in table.__slots__
        }

    def epoch(self, number: int) -> list[tuple[int, NDArray[np.int64]]]:
        """Every row of X twice: once for either table."""
        random = np.random.default_rng([self.settings.seed, number])
        order = random.permutation(self.cells.size)
        pieces = [order[begin : begin + self.cells.rows_a_step] for begin in range(0, len(order), self.cells.rows_a_step)]
        return [(side, rows) for rows in pieces for side in (0, 1)]

    def step(self, batch: tuple[int, NDArray[np.int64]], left: float, measure: bool) -> float:
        side, rows = batch
        assert self.settings.learning_rate is not None
        loss = glove.step(self.tables[side], self.tables[1 - side], self.cells, rows, self.settings.learning_rate)
        cells = int((self.cells.starts[rows + 1] - self.cells.starts[rows]).sum())
        return loss / max(1, cells)

    def vectors(self) -> Tensor:
        return self.tables[0].vectors + self.tables[1].vectors
