"""LoRA (Hu et al. 2022, eq. 3): W x + (α / r) · B A x, where only A (r, in) and B (out, r) are trained.

In: a built model. Out: the same model with adapted linear layers; merged, it is a plain model again. An adapter is saved and read
in PEFT's layout: adapter_config.json and adapter_model.safetensors. B starts as zero, so that nothing changes at first.
Over a quantised matrix W stays narrow and is multiplied out at each use (QLoRA: Dettmers et al. 2023); merged, it becomes wide.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsuzuri.errors import ConfigError, FormatError, Words
from tsuzuri.model import safe, weights
from tsuzuri.model.adapt import quantize

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # of every name in PEFT's files
# Fields of PEFT's config that change the result where they are not so.
PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",), "bias": ("none",), "use_rslora": (False,), "use_dora": (False,), "fan_in_fan_out": (False,),
    "lora_bias": (False,), "rank_pattern": ({}, None), "alpha_pattern": ({}, None), "modules_to_save": (None, []),
    "layer_replication": (None,), "trainable_token_indices": (None,), "alora_invocation_tokens": (None,), "use_qalora": (False,),
    "target_parameters": (None, []), "exclude_modules": (None, []), "use_bdlora": (None, False), "arrow_config": (None,),
}  # fmt: skip
FREE = {
    "r", "lora_alpha", "target_modules", "lora_dropout", "task_type", "base_model_name_or_path", "inference_mode", "revision", "auto_mapping",
    "init_lora_weights", "layers_to_transform", "layers_pattern", "megatron_config", "megatron_core", "loftq_config", "eva_config",
    "corda_config", "peft_version", "runtime_config", "qalora_group_size", "ensure_weight_tying", "velora_config", "lora_ga_config",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """How large the adapter is, and what it adapts."""

    rank: int = 8
    alpha: float = 16.0  # what B A is multiplied by, times rank
    targets: tuple[str, ...] = ("query", "key", "value", "output", "gate", "up", "down")  # linear layers of a block, by our names

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= 4096 or not 0 < self.alpha < math.inf or not self.targets:
            raise _wrong(
                Words(
                    f"rank が {self.rank}、alpha が {self.alpha}、対象が {len(self.targets)} 個です。どれも正でなければなりません。",
                    f"rank is {self.rank}, alpha {self.alpha}, with {len(self.targets)} targets; all must be positive.",
                )
            )


class Adapted(nn.Linear):
    """A linear layer and its adapter."""

    def __init__(self, base: nn.Linear, rank: int, scale: float, generator: torch.Generator | None = None) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.scale = base.in_features, base.out_features, scale
        self.bias = base.bias
        if isinstance(base, quantize.Quantised):
            like = base.like
            self.weight = nn.Parameter(like, requires_grad=False)  # gives way to the narrow one
            quantize.become(self, base.form, base.values, base.scales)
        else:
            self.weight = like = base.weight
        drawn = (torch.rand(rank, base.in_features, generator=generator) * 2 - 1) / math.sqrt(base.in_features)
        self.lora_down = nn.Parameter(drawn.to(like))  # A
        self.lora_up = nn.Parameter(torch.zeros(base.out_features, rank).to(like))  # B

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)"""
        return F.linear(x, self.weight, self.bias) + F.linear(F.linear(x, self.lora_down), self.lora_up) * self.scale

    def merged(self) -> nn.Linear:
        """The plain layer that computes the same."""
        plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        plain.weight = nn.Parameter(self.weight.detach() + self.scale * (self.lora_up.detach() @ self.lora_down.detach()))
        plain.bias = self.bias
        return plain


def attach(model: nn.Module, settings: LoraSettings, seed: int = 0) -> None:
    """Adapt every linear layer of the blocks that `targets` names. Raises ConfigError when there is none of a name."""
    generator = torch.Generator().manual_seed(seed)
    places = [place for place in _linears(model) if place[2] in settings.targets]
    missing = set(settings.targets) - {name for _, _, name, _ in places}
    if missing:
        known = sorted({name for _, _, name, _ in _linears(model)})
        raise _wrong(
            Words(
                f"targets の {sorted(missing)[0]} がこのモデルにありません。あるのは {'、'.join(known)} です。",
                f"This model has no {sorted(missing)[0]} for targets. There is {', '.join(known)}.",
            )
        )
    for _, parent, name, layer in places:
        setattr(parent, name, Adapted(layer, settings.rank, settings.alpha / settings.rank, generator))


def merge(model: nn.Module) -> None:
    """Adapters into the weights: plain layers again."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Adapted):
                setattr(parent, name, layer.merged())


def is_adapter(name: str) -> bool:
    """Whether a weight of this name belongs to an adapter."""
    return name.endswith((".lora_down", ".lora_up"))


def adapted(model: nn.Module) -> dict[str, Adapted]:
    """The adapted layers, by name."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, Adapted)}


def _linears(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Linear]]:
    """(whole name, parent, own name, layer) of the linear layers of the blocks."""
    for path, parent in list(model.named_modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear) and not isinstance(layer, Adapted) and "blocks." in f"{path}.":
                yield f"{path}.{name}", parent, name, layer


def between(tuned: nn.Module, base: nn.Module, rank: int) -> None:
    """Adapt `base` by the best approximation of rank `rank` to what distinguishes `tuned` from it, layer by layer: the largest
    singular values of the difference (Eckart & Young 1936). What differs outside linear layers an adapter cannot say."""
    theirs = {name: layer for name, _, _, layer in _linears(tuned)}
    for path, parent, name, layer in list(_linears(base)):
        change = (theirs[path].weight - layer.weight).detach().float()
        u, s, v = torch.linalg.svd(change, full_matrices=False)
        kept = min(rank, len(s))
        new = Adapted(layer, rank, 1.0)
        with torch.no_grad():
            new.lora_up.zero_()[:, :kept] = u[:, :kept] * s[:kept].sqrt()
            new.lora_down.zero_()[:kept] = s[:kept, None].sqrt() * v[:kept]
        setattr(parent, name, new)


# ── PEFT's layout


def save(model: Any, directory: Path, family: str, base: str) -> None:
    """Write the adapter of a model into an existing directory. `base`: what the base model is called."""
    names = _theirs(family, model.shape)
    tensors: dict[str, Tensor] = {}
    layers = adapted(model)
    for name, layer in layers.items():
        if name not in names:
            raise _wrong(
                Words(
                    f"系統 {family} では {name} が他の重みと一つになっていて、PEFT のアダプタで表せません。",
                    f"The family {family} keeps {name} in one tensor with others, which a PEFT adapter cannot say.",
                )
            )
        tensors[f"{PREFIX}{names[name]}.lora_A.weight"] = layer.lora_down.detach().contiguous().cpu()
        tensors[f"{PREFIX}{names[name]}.lora_B.weight"] = layer.lora_up.detach().contiguous().cpu()
    first = next(iter(layers.values()))
    rank = first.lora_down.shape[0]
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": first.scale * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted({names[name].rpartition(".")[2] for name in layers}),
    }
    (directory / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    safe.write(directory / WEIGHTS, tensors, {"format": "pt"})


def load(model: Any, directory: Path, family: str) -> None:
    """Adapt a model by an adapter in PEFT's layout. Raises ConfigError naming a field whose effect is not computed, MissingError,
    and FormatError for weights that do not fit."""
    config = weights.read_json(directory / CONFIG)
    rank, alpha = _checked(config)
    found = safe.read(directory / WEIGHTS)
    names = {theirs: ours for ours, theirs in _theirs(family, model.shape).items()}
    layers = {name: (parent, own, layer) for name, parent, own, layer in _linears(model)}
    pairs = {name.removesuffix(".lora_A.weight").removesuffix(".lora_B.weight") for name in found}
    used = set()
    for theirs in sorted(pairs):
        ours = names.get(theirs.removeprefix(PREFIX))
        down, up = found.get(f"{theirs}.lora_A.weight"), found.get(f"{theirs}.lora_B.weight")
        if ours not in layers or down is None or up is None:
            raise _unfit(directory, theirs)
        parent, own, layer = layers[ours]
        if down.shape != (rank, layer.in_features) or up.shape != (layer.out_features, rank):
            raise _unfit(directory, theirs)
        new = Adapted(layer, rank, alpha / rank)
        with torch.no_grad():
            new.lora_down.copy_(down)
            new.lora_up.copy_(up)
        setattr(parent, own, new)
        used.add(theirs)
    if not used:
        raise _unfit(directory, "lora_A")


def _checked(config: Mapping[str, Any]) -> tuple[int, float]:
    for name, allowed in PLAIN.items():
        if name in config and config[name] not in allowed:
            raise _field(name, config[name])
    off: tuple[Any, ...] = (None, False, [], {})  # how PEFT writes a variant that is not used; it gains new ones with every version
    unknown = sorted(name for name in set(config) - set(PLAIN) - FREE if config[name] not in off)
    if unknown:
        raise _field(unknown[0], config[unknown[0]])
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or not 1 <= rank <= 4096:
        raise _field("r", rank)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < math.inf:
        raise _field("lora_alpha", alpha)
    return rank, float(alpha)


def _theirs(family: str, shape: Any) -> dict[str, str]:
    """Our layer -> theirs, without the weights that hold several of ours."""
    table = weights.decoder(family).names(shape)
    return {ours.removesuffix(".weight"): theirs.removesuffix(".weight") for ours, theirs in table.items() if ours.endswith(".weight")}


def _field(name: str, value: object) -> ConfigError:
    return ConfigError(
        Words(f"{CONFIG} の {name} に問題があります。", f"Reading {name} of {CONFIG}."),
        found=Words(f"{value!r} です。この指定には対応していません。", f"It is {value!r}, which is not supported."),
        todo=Words("素の LoRA（bias=none）のアダプタを使ってください。", "Use an adapter of plain LoRA (bias=none)."),
    )


def _unfit(directory: Path, name: str) -> FormatError:
    return FormatError(
        Words(f"アダプタ {directory.name} をモデルに付けようとしました。", f"Adapting the model by {directory.name}."),
        found=Words(f"{name} がモデルと合いません。", f"{name} does not fit the model."),
        todo=Words("アダプタを作ったのと同じモデルを使ってください。", "Use the model that the adapter was made for."),
    )


def _wrong(found: Words) -> ConfigError:
    return ConfigError(
        Words("LoRA のアダプタを扱おうとしました。", "Handling a LoRA adapter."),
        found=found,
        todo=Words("設定を直すか、アダプタを使わずに書き出してください。", "Correct the settings, or export without an adapter."),
    )
