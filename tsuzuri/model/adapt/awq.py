"""Scaling before quantisation (AWQ: Lin et al. 2023): inputs that matter are made larger in the weights, where rounding hurts them less.

    W x = (W · diag(s)) (x / s),   s = (mean |x|)^α,   α in 0 … 1 by trial, s divided by √(max s · min s)

What divides x is folded into what makes x: the norm before queries, keys and values, and before gate and up; the rows of `up`
before `down`; the rows of `value` before `output`. So the scaled model computes the same as before, with nothing added to it, and is
then quantised like any other. In: a decoder and some text. Out: the same model, scaled in place. A norm with a bias or one that others
read too, a block whose norms stand elsewhere, and a feed-forward without a gate before `down` are left as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tsuzuri.errors import ConfigError, Words
from tsuzuri.model.adapt import quantize
from tsuzuri.model.past import Causal
from tsuzuri.model.transformer import Transformer

TRIALS = tuple(step / 10 for step in range(11))  # of α; 0 changes nothing
BEFORE = ("pre_norm", "pre_norm_but_first", "parallel", "sandwich")  # blocks in which each part has a norm before it
MOST_ROWS = 512  # inputs that a trial is judged by


@dataclass(frozen=True, slots=True)
class Scaled:
    """One place that was scaled, and what it was worth: mean squared error of the outputs, rounded as it is and rounded after scaling."""

    name: str
    alpha: float
    error_before: float
    error_after: float


@torch.no_grad()
def scale(model: Any, form: str, samples: Sequence[Tensor]) -> list[Scaled]:
    """Scale `model`, not yet quantised, for the form it will be quantised to. `samples`: ids (T,) of ordinary text. Raises ConfigError
    for another form, and for a model that does not continue text."""
    quantize.check(form)
    if not isinstance(model, Transformer) or not model.shape.causal:
        raise ConfigError(
            Words("量子化の前に重みを整えようとしました（AWQ）。", "Scaling the weights before quantisation (AWQ)."),
            found=Words("文章の続きを書くモデルではありません。", "The model is none that continues a text."),
            todo=Words("--calibrate を付けずに量子化してください。", "Quantise without --calibrate."),
        )
    found: list[Scaled] = []
    for name, modules, source, period in _places(model):
        inputs = _inputs(model, modules[0], samples)  # (n, K)
        importance = inputs.abs().mean(0)
        if period:  # what makes these inputs is shared by heads, so their factors repeat
            importance = importance.view(-1, period).mean(0).repeat(len(importance) // period)
        trials = [(_error(modules, inputs, _factors(importance, alpha), form), alpha) for alpha in TRIALS]
        error, alpha = min(trials)
        factors = _factors(importance, alpha)
        for module in modules:
            module.weight.mul_(factors.to(module.weight.dtype))
        for weight in source.parameters():  # of a norm (K,); of a matrix its rows, and its bias
            row = factors[: weight.shape[0]].to(weight.dtype)
            weight.div_(row if weight.dim() == 1 else row[:, None])
        found.append(Scaled(name, alpha, trials[0][0], error))
    return found


def _places(model: Any) -> Iterator[tuple[str, list[nn.Linear], nn.Module, int | None]]:
    """(name, matrices that read the same input, what makes that input, after how many numbers its factors must repeat)"""
    for number, block in enumerate(model.blocks):
        mixer, feed = block.mixer, getattr(block, "feedforward", None)
        if model.shape.block not in BEFORE:
            continue
        if _only_scales(block.mixer_norm) and all(hasattr(mixer, part) for part in ("query", "key", "value", "output")):
            yield f"blocks.{number}.qkv", [mixer.query, mixer.key, mixer.value], block.mixer_norm, None
            yield f"blocks.{number}.output", [mixer.output], mixer.value, mixer.head_size
        if feed is not None and hasattr(feed, "gate") and _only_scales(block.feedforward_norm):
            yield f"blocks.{number}.gate_up", [feed.gate, feed.up], block.feedforward_norm, None
            yield f"blocks.{number}.down", [feed.down], feed.up, None


def _only_scales(norm: nn.Module) -> bool:
    """Whether the last thing a norm does is to multiply by its weight."""
    return type(norm).__module__.rpartition(".")[2] in ("rms_norm", "layer_norm_scale")


def _inputs(model: Any, module: nn.Module, samples: Sequence[Tensor]) -> Tensor:
    """(n, K) float32: what the module reads, of at most MOST_ROWS tokens spread over the samples."""
    seen: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, given: seen.append(given[0].float()))
    try:
        for ids in samples:
            model.hidden(ids, Causal(torch.arange(len(ids))))
    finally:
        hook.remove()
    rows = torch.cat(seen)
    return rows[:: max(1, len(rows) // MOST_ROWS)][:MOST_ROWS]


def _factors(importance: Tensor, alpha: float) -> Tensor:
    factors = importance.clamp_min(1e-4) ** alpha
    return factors / (factors.max() * factors.min()).sqrt()


def _error(modules: Sequence[nn.Linear], inputs: Tensor, factors: Tensor, form: str) -> float:
    """Mean squared difference of the outputs when the scaled matrices are rounded; a matrix that is kept adds nothing."""
    total = 0.0
    for module in modules:
        weight = module.weight.float()
        if weight.shape[1] % quantize.GROUP == 0:
            rounded = quantize.dequantised(form, *quantize.FORMS[form](weight * factors)) / factors
            total += float((inputs @ (rounded - weight).T).square().mean())
    return total
