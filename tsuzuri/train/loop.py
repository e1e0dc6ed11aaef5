"""The only training loop: batches of any objective -> a trained model, stoppable and resumable at any moment.

In: a model, an objective, settings, a directory. Out: checkpoints and metrics in that directory, the model trained in place.
What it does each step: draw rows by (seed, step), sum the nats of the micro-batches, divide by the targets of the whole
batch, step, write down. It knows no text, no recipe and no family; saving, evaluating and showing are handed in.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor

from tsuzuri import device as devices
from tsuzuri.errors import ConfigError, StopRequested, TrainingError, Words
from tsuzuri.model import weights
from tsuzuri.model.adapt import lora
from tsuzuri.model.encoder_decoder import EncoderDecoder
from tsuzuri.model.transformer import Transformer
from tsuzuri.train import checkpoint
from tsuzuri.train.data import Batch, order
from tsuzuri.train.loss import fused
from tsuzuri.train.optim import Optimizer, OptimSettings, whole
from tsuzuri.train.shard import shard
from tsuzuri.train.watch import Journal, Metrics, Watch
from tsuzuri.types import Past


class Objective(Protocol):
    """What a file of `objectives/` provides."""

    @property
    def rows(self) -> int: ...
    def batch(self, indices: list[int]) -> Batch: ...
    def loss(self, model: Any, batch: Any) -> Tensor: ...  # a model and batches of the objective's own kind


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings(OptimSettings):
    """How long, how much at once, how exactly, and what is kept. Everything else is the objective's or the model's."""

    steps: int | None = None  # optimizer steps; or
    epochs: float | None = None  # passes over all rows
    batch: int = 16  # rows a step
    micro_batch: int | None = None  # rows at once; None: the whole batch. The result does not depend on it
    compiled: bool = False  # the blocks of a step, by torch.compile: half a minute at the start, then on CUDA twice the speed
    precision: str = "auto"  # of weights and activations: bfloat16 where the machine computes in it, else float32; or by name
    seed: int = 1
    evaluate_every: int = 0  # steps between scores on the way; 0: none. The last score is the caller's
    checkpoint_every: int = 200  # steps; 0: only at the end and when stopped
    keep: int = 2  # checkpoints

    def __post_init__(self) -> None:
        OptimSettings.__post_init__(self)
        if (self.steps is None) == (self.epochs is None):
            raise wrong(
                Words("steps と epochs のどちらか一つだけを指定してください。", "Give either steps or epochs, not both or neither.")
            )
        positive(self, "steps", "epochs", "batch", "micro_batch", "keep")
        for name in ("evaluate_every", "checkpoint_every"):
            value = getattr(self, name)
            if value < 0:
                raise wrong(Words(f"{name} が {value} です。0 以上の数が要ります。", f"{name} is {value}; it must be at least 0."))
        if not 0 <= self.seed < 1 << 63:
            raise wrong(
                Words(f"seed が {self.seed} です。0 以上 2^63 未満の整数が要ります。", f"seed is {self.seed}; it lies in 0 … 2^63.")
            )
        devices.dtype(self.precision)

    def total(self, rows: int) -> int:
        """Steps of the whole run over an objective with so many rows an epoch."""
        return self.steps if self.steps is not None else max(1, math.ceil((self.epochs or 0) * rows / self.batch))


def positive(settings: object, *names: str) -> None:
    """Raises ConfigError naming the first of these that is given and not positive."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not value > 0:
            raise wrong(Words(f"{name} が {value} です。正の数が要ります。", f"{name} is {value}; it must be positive."))


def wrong(found: Words) -> ConfigError:
    return ConfigError(
        Words("学習の設定に問題があります。", "Checking the training settings."),
        found=found,
        todo=Words("設定ファイルを直してください。", "Correct the recipe."),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    steps: int
    tokens: int  # trained targets, all epochs
    seconds: float  # of the start and the steps, over all resumed parts
    loss: float  # of the last step
    resumed_at: int  # 0: it ran in one go


def train(
    model: Transformer | EncoderDecoder,
    objective: Objective,
    settings: LoopSettings,
    directory: Path,
    *,
    recipe: dict[str, Any],
    family: str = "llama",
    write_extras: Callable[[Path], None] = lambda _: None,
    start: Callable[[Any], None] | None = None,
    evaluate: Callable[[Any, int], dict[str, float | str]] | None = None,
    matrix_rate: float | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Run or resume. `recipe` is saved with each checkpoint; `write_extras` adds tokenizer and template to its model
    directory; `start` changes the model before the first step, when nothing is resumed; `evaluate(model, step)` gives numbers, and what it says, for the journal; `matrix_rate` in FLOP/s makes MFU known.

    Raises TrainingError when the loss is not a number, StopRequested after SIGINT or SIGTERM, with a checkpoint written.
    """
    rank, _ = devices.rank()
    watch = watch if watch and rank == 0 else Watch()
    if objective.rows == 0:
        raise TrainingError(
            Words("学習を始めようとしました。", "Starting to train."),
            found=Words("学習するデータが一行もありません。", "There is not one row to train on."),
            todo=Words(
                "corpus/text/report.json で、何が除かれたかを確かめてください。", "See in corpus/text/report.json what was left out."
            ),
        )
    directory.mkdir(parents=True, exist_ok=True)
    run = _Run(model, objective, settings, directory, recipe, family, write_extras)
    resumed_at = run.resume(watch, start)
    journal = Journal(directory / "metrics.jsonl", resumed_at=resumed_at) if rank == 0 else None
    steps = settings.total(objective.rows)
    watch.begin(steps, resumed_at)
    try:
        with stop_requests() as stopped:
            while run.step < steps:
                metrics = run.advance(steps, matrix_rate)
                due = settings.evaluate_every and run.step % settings.evaluate_every == 0 and run.step < steps
                scores = evaluate(model, run.step) if evaluate and due else {}
                for said in (score for score in scores.values() if isinstance(score, str)):
                    watch.notice(f"  {run.step}: {said}")
                if journal:
                    journal.add({**asdict(metrics), **scores})
                watch.step(metrics, steps)
                stop = run.agree(stopped.is_set())
                if stop or run.step == steps or (settings.checkpoint_every and run.step % settings.checkpoint_every == 0):
                    run.save()
                if stop:
                    raise _stopped(run.step, steps)
    finally:
        watch.end()
    return Outcome(run.step, run.tokens, run.seconds, run.loss, resumed_at)


class _Run:
    """The state of a run: what a checkpoint holds."""

    def __init__(
        self,
        model: Transformer | EncoderDecoder,
        objective: Objective,
        settings: LoopSettings,
        directory: Path,
        recipe: dict[str, Any],
        family: str,
        write_extras: Callable[[Path], None],
    ) -> None:
        self.model, self.objective, self.settings, self.root = model, objective, settings, directory / "checkpoints"
        self.recipe, self.family, self.write_extras = recipe, family, write_extras
        self.rank, self.world = devices.rank()
        self.parameters = sum(weight.numel() for weight in model.parameters())
        self.device = next(model.parameters()).device
        self.step, self.tokens, self.seconds, self.loss = 0, 0, 0.0, math.nan
        devices.seed_all(settings.seed)
        self.adapters = [name for name, _ in model.named_parameters() if lora.is_adapter(name)]
        for name, weight in model.named_parameters():
            weight.requires_grad_(not self.adapters or name in self.adapters)  # an adapted model trains its adapters alone
        model.to(devices.dtype(settings.precision, self.device))
        self.optimizer: Optimizer | None = None
        self.hidden = _compiled(model, self.world) if settings.compiled else None

    def resume(self, watch: Watch, start: Callable[[Any], None] | None) -> int:
        """Take over the newest good checkpoint; the step it was written at, 0 without one. Shards the model where several run."""
        found, notices = checkpoint.latest(self.root)
        for notice in notices:
            watch.notice(notice)
        if found:
            weights.restore(self.model, found / "model", self.family)
            self._restore_adapters(checkpoint.load(found).tensors)
        elif start:
            begun = time.perf_counter()
            start(self.model)
            self.seconds = time.perf_counter() - begun
        if self.world > 1:
            shard(self.model)
        self.optimizer = Optimizer(self.model, self.settings)
        if found:
            state = checkpoint.load(found)
            own = {name.removeprefix("optimizer."): value for name, value in state.tensors.items() if name.startswith("optimizer.")}
            self.optimizer.load_state_dict(own, state.step)
            self.step, self.tokens = state.step, int(state.values["tokens"])
            self.seconds, self.loss = float(state.values["seconds"]), float(state.values["loss"])
            checkpoint.restore_rng({n: v for n, v in state.tensors.items() if n.startswith("rng.")}, state.values["rng"])
        return self.step

    def advance(self, steps: int, matrix_rate: float | None) -> Metrics:
        """One optimizer step."""
        assert self.optimizer is not None
        begun = time.perf_counter()
        settings = self.settings
        indices = order(self.objective.rows, settings.seed, self.step * settings.batch, settings.batch)
        batch = self.objective.batch(indices)
        targets = batch.trained
        nats = torch.zeros((), dtype=torch.float64, device=self.device)
        mine = _share(batch, self.rank, self.world)
        with _shadowed(self.model, hidden=self.hidden), nullcontext() if self.hidden is None else fused():
            for part in mine.split(settings.micro_batch or settings.batch):
                loss = self.objective.loss(self.model, part.to(self.device))
                (loss * (self.world / max(1, targets))).backward()  # type: ignore[no-untyped-call]
                nats += loss.detach().double()
        if self.world > 1:
            torch.distributed.all_reduce(nats)
        factor = settings.factor(self.step, steps)
        norm = self.optimizer.step(factor)
        self.loss = float(nats) / max(1, targets)  # read now, not before: on an accelerator to read is to wait
        if not (math.isfinite(norm) and math.isfinite(self.loss)):
            raise _diverged(self.step)
        seconds = time.perf_counter() - begun
        self.step, self.tokens, self.seconds = self.step + 1, self.tokens + targets, self.seconds + seconds
        speed = batch.tokens.numel() / seconds
        mfu = 6 * self.parameters * speed / matrix_rate if matrix_rate else None
        return Metrics(self.step, self.loss, norm, factor, self.tokens, speed, mfu, seconds)

    def agree(self, stop: bool) -> bool:
        """Whether any process was asked to stop: all must stop after the same step, or they wait for each other for ever."""
        if self.world == 1:
            return stop
        asked = torch.tensor(float(stop))
        torch.distributed.all_reduce(asked)
        return bool(asked)

    def save(self) -> None:
        """A checkpoint of this moment; all ranks gather, the first writes."""
        assert self.optimizer is not None
        tensors = {f"optimizer.{name}": value for name, value in self.optimizer.state_dict().items()}
        gathered = {name: whole(weight.detach()) for name, weight in self.model.named_parameters()}
        if self.rank == 0:
            random_tensors, random_values = checkpoint.rng_state()
            values = {"tokens": self.tokens, "seconds": self.seconds, "loss": self.loss, "rng": random_values, "recipe": self.recipe}
            beside = {f"adapter.{name}": gathered[name] for name in self.adapters}
            state = checkpoint.State(self.step, {**tensors, **random_tensors, **beside}, values)
            checkpoint.save(self.root, state, lambda path: self._write_model(path, gathered), keep=self.settings.keep)
        if self.world > 1:
            torch.distributed.barrier()

    def _restore_adapters(self, tensors: Mapping[str, Tensor]) -> None:
        weight = dict(self.model.named_parameters())
        with torch.no_grad():
            for name in self.adapters:
                weight[name].copy_(tensors[f"adapter.{name}"])

    def _write_model(self, path: Path, gathered: dict[str, Tensor]) -> None:
        weights.save(self.model, path, self.family, gathered)
        self.write_extras(path)


def _compiled(model: Transformer | EncoderDecoder, world: int) -> Callable[[Tensor, Past], Tensor]:
    """`hidden` of the model, compiled at its first call."""
    if not isinstance(model, Transformer) or world > 1:
        raise wrong(
            Words(
                "compiled が使えるのは、一つの積み重ねのモデルを一つのプロセスで学習するときだけです。",
                "compiled is for one stack of blocks, trained by one process.",
            )
        )
    return torch.compile(model.hidden, dynamic=False)


@contextmanager
def _shadowed(model: Any, **methods: Any) -> Iterator[None]:
    """The model with these in place of its methods of the same names; None leaves one as it is."""
    there = {name: method for name, method in methods.items() if method is not None}
    for name, method in there.items():
        object.__setattr__(model, name, method)
    try:
        yield
    finally:
        for name in there:
            object.__delattr__(model, name)


def _share(batch: Batch, rank: int, world: int) -> Batch:
    """The rows of this process: every `world`-th."""
    if world == 1:
        return batch
    if len(batch.tokens) % world:
        raise wrong(Words(f"batch がプロセス数 {world} で割り切れません。", f"batch is not a multiple of the {world} processes."))
    return batch.some(slice(rank, None, world))


def _stopped(step: int, steps: int) -> StopRequested:
    return StopRequested(
        Words("学習を止めました。", "Training was stopped."),
        found=Words(f"{step} / {steps} ステップまで保存してあります。", f"{step} of {steps} steps are saved."),
        todo=Words("同じコマンドで続きから再開できます。", "The same command resumes from there."),
    )


def _diverged(step: int) -> TrainingError:
    return TrainingError(
        Words(f"{step + 1} ステップ目の学習で止まりました。", f"Training step {step + 1}."),
        found=Words("損失か勾配が数でなくなりました。", "The loss or its gradient is no longer a number."),
        todo=Words(
            "学習率を下げてください。直前の途中保存は残っています。", "Lower the learning rate. The last checkpoint is still there."
        ),
    )


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """SIGINT and SIGTERM set the event instead of ending the process; a second one ends it at once."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def note(number: int, frame: FrameType | None) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
