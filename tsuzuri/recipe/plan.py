"""What a run will cost, before anything is spent: parameters, memory by component, FLOPs, time, energy, money, disk.

In: a recipe. Out: a `Plan`, from the shape alone and a probe of one real step. The run prints planned against actual.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from tsuzuri import device as devices
from tsuzuri.errors import ConfigError, Words
from tsuzuri.folder import find
from tsuzuri.model import weights
from tsuzuri.model.encoder_decoder import PairShape
from tsuzuri.model.transformer import Shape
from tsuzuri.recipe.measure import Power, matrix_rate, power
from tsuzuri.recipe.recipe import STAGES, Recipe
from tsuzuri.recipe.stages import _task, masked
from tsuzuri.recipe.stages.pretrain import is_counted
from tsuzuri.text import fast
from tsuzuri.train.data import IGNORED, Batch, Pairs
from tsuzuri.train.loop import LoopSettings
from tsuzuri.train.loss import at_targets, given_source, next_token
from tsuzuri.train.optim import Optimizer
from tsuzuri.train.watch import clock

STEP = 0.05  # of the share of a training that does not fit
STATES = ("mamba2", "rnn", "gru", "lstm")  # mixers that keep a state and look back at nothing
PROBE_SECONDS = 8.0  # of steps, unless four take longer
BODIES = ("pretrain", "masked", "span", "seq2seq")  # stages that make a model; the first of them in a recipe is what is planned


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One training stage; None where the data must be there to know (epochs over text not yet cut)."""

    stage: str
    steps: int | None
    tokens_per_step: int
    flops: float | None  # 6 · parameters · tokens (Kaplan et al. 2020, section 2.1), and 12 · L · H · E · T a token for attention
    seconds: float | None
    about: bool = False  # the steps are guessed from the length of the data in characters: there is no tokenizer yet


@dataclass(frozen=True, slots=True)
class Plan:
    parameters: int
    by_component: dict[str, int]  # parameters
    memory: dict[str, int]  # bytes
    disk: int  # bytes: checkpoints kept and the model
    stages: list[StagePlan]
    matrix_rate: float  # FLOP/s
    mfu: float  # of the probe
    seconds: float  # of all training stages whose length is known
    watts: float
    watts_how: str
    kwh: float
    yen: float
    share: float  # of the training the recipe asks for: less than 1 where `minutes` would not hold it

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def plan(recipe: Recipe) -> Plan:
    """Counts on a model without memory, and one probe step of the real shape (a few seconds). Raises ConfigError where
    nothing is trained."""
    if not trains(recipe):
        raise ConfigError(
            Words("費用を見積もろうとしました。", "Planning a run."),
            found=Words(
                "この設定ファイルには、学習するモデルがありません（pretrain・masked・span・seq2seq の段階がないか、数えて作る系統です）。",
                "The recipe trains nothing: it has no stage pretrain, masked, span or seq2seq, or a family that is made by counting.",
            ),
            todo=Words("tsuzuri run でそのまま実行できます。", "It can be run as it is, with tsuzuri run."),
        )
    devices.threads(recipe.head.threads)
    where = devices.choose(recipe.head.device)
    settings = recipe.sections[body(recipe) or ""]
    shape = _shape(recipe)
    family = weights.decoder(_family(settings, recipe))
    empty = weights.build(family, shape, device="meta")
    parameters = sum(weight.numel() for weight in empty.parameters())
    rate = matrix_rate(where, settings.precision)
    speed = _probe(family, shape, settings, where)
    share = _share(recipe.head.minutes, _seconds(_stages(recipe, parameters, shape, speed)))
    stages = _stages(recipe.shortened(share), parameters, shape, speed)
    seconds = _seconds(stages)
    drawn: Power = power(recipe.head.watts)
    kwh = drawn.watts * seconds / 3.6e6
    memory = _memory(shape, parameters, settings)
    checkpoint = memory["weights"] + memory["masters"] + memory["moments"]
    return Plan(
        parameters,
        _components(empty),
        memory,
        checkpoint * settings.keep * len(stages) + memory["weights"],
        stages,
        rate,
        6 * parameters * speed / rate,
        seconds,
        drawn.watts,
        str(drawn.how),
        kwh,
        kwh * recipe.head.yen_per_kwh,
        share,
    )


def trains(recipe: Recipe) -> bool:
    """Whether there is anything to plan."""
    found = body(recipe)
    return found is not None and not is_counted(_family(recipe.sections[found], recipe))


def body(recipe: Recipe) -> str | None:
    """The stage that makes the model, or teaches a finished one, which the stages after it train further."""
    return next((name for name in recipe.head.stages if name in BODIES or _begins(recipe.sections[name])), None)


def _begins(settings: Any) -> bool:
    """Whether it is a task that starts from a finished encoder."""
    return isinstance(settings, _task.Settings) and settings.start is not None


def _family(settings: Any, recipe: Recipe) -> str:
    return _task.family(settings, recipe.sections) if _begins(settings) else str(settings.model.family)


def _shape(recipe: Recipe) -> Any:
    """Of the model that this stage makes."""
    name = body(recipe)
    settings = recipe.sections[name or ""]
    if _begins(settings):
        return _task.shape(settings, recipe.sections)
    if name == "seq2seq":
        return settings.model.shape(settings.vocab_size, max(settings.length, settings.source_length), 0)
    vocab_size = recipe.sections["tokenizer"].vocab_size
    if name == "span":
        return settings.model.shape(vocab_size, settings.length, 0)
    if name == "masked":
        return masked.shape_of(settings, vocab_size, fast.ENCODER.index("[PAD]"))
    return settings.model.shape(vocab_size, settings.length)


def _share(minutes: float | None, seconds: float) -> float:
    """How much of the training fits: all of it, or a multiple of 0.05, so that the same machine comes to the same share again."""
    if minutes is None or seconds <= minutes * 60:
        return 1.0
    return max(1, math.floor(minutes * 60 / seconds / STEP)) * STEP


def _seconds(stages: list[StagePlan]) -> float:
    return sum(stage.seconds or 0.0 for stage in stages)


def _stages(recipe: Recipe, parameters: int, shape: Any, speed: float) -> list[StagePlan]:
    trained = [name for name in recipe.head.stages if isinstance(recipe.sections[name], LoopSettings)]
    return [_stage(name, recipe.sections[name], parameters, shape, speed) for name in trained]


def _components(model: Any) -> dict[str, int]:
    """Parameters of embedding, attention, feed-forward, norms and head."""
    found: dict[str, int] = {}
    for name, weight in model.named_parameters():
        kind = next((k for k in ("norm", "mixer", "feedforward", "embedding", "head", "position") if k in name), "other")
        found[kind] = found.get(kind, 0) + weight.numel()
    return found


def _memory(shape: Any, parameters: int, settings: Any) -> dict[str, int]:
    """Bytes while training. Activations: what autograd keeps of one micro-batch, counted from the block's tensors."""
    width = devices.dtype(settings.precision).itemsize
    rows = settings.micro_batch or settings.batch
    return {
        "weights": parameters * width,
        "gradients": parameters * width,
        "masters": parameters * 4 if width == 2 else 0,
        "moments": parameters * 4 * 2,
        "activations": _activations(shape, rows, settings.length) * width,
        "logits": 512 * shape.vocab_size * 4 + shape.vocab_size * getattr(shape, "hidden_size", 0) * 4,
    }


def _attending(shape: Any) -> int:
    """How many layers look back at every token."""
    mixers = [shape.mixer(layer) for layer in range(shape.num_hidden_layers)] if isinstance(shape, Shape) else []
    return sum(mixer not in STATES for mixer in mixers)


def _activations(shape: Any, rows: int, length: int) -> int:
    """Numbers kept of `rows` rows."""
    if not isinstance(shape, Shape):
        return rows * length * int(shape.kept)
    scores = _attending(shape) * rows * shape.num_attention_heads * length**2 * 2  # and weights
    return rows * length * shape.num_hidden_layers * (8 * shape.hidden_size + 4 * shape.intermediate_size) + scores


def _stage(name: str, settings: Any, parameters: int, shape: Any, speed: float) -> StagePlan:
    """A stage whose rows differ in length says how long they are (`expected_length`); the others fill theirs."""
    module, steps = find(STAGES, name), settings.steps
    length = module.expected_length(settings) if hasattr(module, "expected_length") else settings.length
    per_step = round(settings.batch * length)
    if steps is None:
        if not hasattr(module, "expected_rows"):
            return StagePlan(name, None, per_step, None, None)
        steps = settings.total(module.expected_rows(settings))
    attention = 12 * _attending(shape) * shape.num_attention_heads * shape.head_size * length if _attending(shape) else 0
    flops = (6.0 * parameters + attention) * per_step * steps
    return StagePlan(name, steps, per_step, flops, per_step * steps / speed, about=settings.steps is None)


def _probe(family: ModuleType, shape: Any, settings: Any, where: torch.device) -> float:
    """Tokens a second of a real step on random ids: forward, backward, optimizer. The median after a warm-up, over some
    seconds: on a shared machine the quickest step is not what a run gets."""
    model = weights.build(family, shape).initialise(0).to(where).to(devices.dtype(settings.precision, where))
    optimizer = Optimizer(model, settings)
    batch, loss = _random(shape, settings)
    batch = batch.to(where)
    seconds: list[float] = []
    while len(seconds) < 4 or (sum(seconds) < PROBE_SECONDS and len(seconds) < 50):
        begun = time.perf_counter()
        for part in batch.split(settings.micro_batch or settings.batch):
            (loss(model, part) / batch.trained).backward()  # type: ignore[no-untyped-call]
        optimizer.step(0.0)
        seconds.append(time.perf_counter() - begun)
    return batch.tokens.numel() / statistics.median(seconds[1:])


def _random(shape: Any, settings: Any) -> tuple[Batch, Callable[[Any, Any], Tensor]]:
    """A batch of random ids, two documents a row, and the loss of the stage: what comes next, what is hidden, or what a source says."""
    ids = torch.randint(shape.vocab_size, (settings.batch, settings.length + 1))
    positions = torch.arange(settings.length).expand(settings.batch, -1)
    tokens, targets, documents = ids[:, :-1], ids[:, 1:], (positions >= settings.length // 2).long()
    if isinstance(shape, PairShape):
        room = getattr(settings, "source_length", settings.length)
        source = torch.randint(shape.source_vocab_size, (settings.batch, room))
        places = torch.arange(room).expand(settings.batch, -1)
        own = (places >= room // 2).long()
        return Pairs(tokens, targets, positions, documents, source=source, source_positions=places, source_documents=own), given_source
    if isinstance(shape, Shape) and not shape.causal:
        hidden = torch.rand(tokens.shape) < getattr(settings, "share", 0.15)
        return Batch(tokens, torch.where(hidden, targets, IGNORED), positions, documents), at_targets
    return Batch(tokens, targets, positions, documents), next_token


def describe(plan: Plan) -> str:
    """The plan as a person reads it."""
    memory = ", ".join(f"{name} {size / 1e6:,.0f}" for name, size in plan.memory.items())
    parts = ", ".join(f"{name} {count:,}" for name, count in plan.by_component.items())
    lines = [
        str(Words("見積もり", "Plan")),
        f"  {Words('パラメータ', 'parameters')}: {plan.parameters:,} ({parts})",
        f"  {Words('メモリ', 'memory')}: {sum(plan.memory.values()) / 1e6:,.0f} MB ({memory})",
        f"  {Words('ディスク', 'disk')}: {plan.disk / 1e6:,.0f} MB",
    ]
    for stage in plan.stages:
        if stage.seconds is None or stage.flops is None:
            told = str(Words("長さはデータを読んでから決まります", "its length follows from the data"))
        else:
            about = str(Words("約 ", "about ")) if stage.about else ""
            told = f"{about}{stage.steps:,} {Words('ステップ', 'steps')}, {stage.flops / 1e12:,.1f} TFLOP, {clock(stage.seconds)}"
        lines.append(f"  {stage.stage}: {told}")
    if plan.share < 1:
        part = f"{plan.share:.0%}"
        lines.append(
            f"  {Words(f'minutes に収まるよう、学習を設定の {part} に減らします。減らさずに学習するなら minutes=null を付けてください。', f'To hold minutes, {part} of the training is done. With minutes=null nothing is left out.')}"
        )
    rate, share = f"{plan.matrix_rate / 1e9:,.0f} GFLOP/s", f"{plan.mfu:.0%}"
    lines += [
        f"  {Words('速さ', 'speed')}: {Words(f'行列積 {rate} の {share}', f'{share} of the matrix product, {rate}')} (MFU)",
        f"  {Words('電力・電気代', 'power and cost')}: {plan.watts:.0f} W ({plan.watts_how}), {plan.kwh:.4f} kWh, {plan.yen:.2f} {Words('円', 'yen')}",
    ]
    return "\n".join(lines)


def load(path: Path, recipe: Recipe) -> Plan | None:
    """The plan saved when a run began, if it was made for this recipe."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["recipe"] != json.loads(json.dumps(recipe.values)):
            return None
        values = saved["plan"]
        return Plan(**{**values, "stages": [StagePlan(**stage) for stage in values["stages"]]})
    except (OSError, ValueError, KeyError, TypeError):
        return None
