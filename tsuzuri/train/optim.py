"""Gradients to steps: AdamW for vectors, embeddings and the head; Muon for the matrices between; schedules; clipping.

In: a model whose parameters have gradients. Out: changed parameters. Where the parameters are bfloat16, a float32
master copy takes the step and the parameter is its rounding. All state is in named tensors, for the checkpoint.
Sharded parameters (FSDP2) work alike: what is element by element stays on the shard, Muon gathers its matrix first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from tsuzuri import device
from tsuzuri.errors import ConfigError, FormatError, Words
from tsuzuri.model.transformer import query_shares


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimSettings:
    optimizer: Literal["muon", "adamw"] = "muon"
    learning_rate: float = 3e-3  # of AdamW
    muon_learning_rate: float = 0.02
    momentum: float = 0.95  # of Muon
    betas: tuple[float, ...] = (0.9, 0.95)
    epsilon: float = 1e-10
    weight_decay: float = 0.1  # decoupled, times the learning rate; never on vectors
    clip: float = 1.0  # on the norm of all gradients; 0: none
    schedule: Literal["wsd", "cosine", "constant"] = "wsd"
    warmup: float = 0.02  # a share of all steps
    decay: float = 0.4  # of all steps, at the end, for wsd
    final: float = 0.05  # learning rate at the end, as a share of the highest

    def __post_init__(self) -> None:
        bounds = {"learning_rate": (0, 10), "muon_learning_rate": (0, 10), "momentum": (0, 1), "epsilon": (0, 1), "weight_decay": (0, 100)}
        for name, (low, high) in {**bounds, "clip": (0, math.inf), "warmup": (0, 1), "decay": (0, 1), "final": (0, 1)}.items():
            value = getattr(self, name)
            if not low <= value <= high:
                found = Words(
                    f"{name} が {value} です。{low} から {high} までの数が要ります。", f"{name} is {value}; it must lie in {low} … {high}."
                )
                raise _wrong(found)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise _wrong(
                Words(
                    f"betas が {self.betas} です。0 以上 1 未満の数が二つ要ります。",
                    f"betas is {self.betas}; it takes two numbers in [0, 1).",
                )
            )
        if self.schedule == "wsd" and self.warmup + self.decay > 1:
            raise _wrong(Words("warmup と decay の和が 1 を超えています。", "warmup and decay together exceed 1."))

    def factor(self, step: int, steps: int) -> float:
        """What the learning rate is multiplied by at `step` of `steps`. wsd: warm-up, stable, linear decay (Hu et al. 2024)."""
        warmup = self.warmup * steps
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.schedule == "cosine":
            done = (step - warmup) / max(1, steps - warmup)
            return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))
        decay = self.decay * steps
        if self.schedule == "wsd" and decay and step > steps - decay:
            return self.final + (1 - self.final) * (steps - step) / decay
        return 1.0


def _wrong(found: Words) -> ConfigError:
    return ConfigError(
        Words("学習の設定に問題があります。", "Checking the optimizer's settings."),
        found=found,
        todo=Words("設定ファイルを直してください。", "Correct the recipe."),
    )


class Optimizer:
    """Holds masters and moments for the parameters of one model; `step` applies one update from their `.grad`."""

    def __init__(self, model: nn.Module, settings: OptimSettings) -> None:
        self.settings = settings
        self.named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.muon = [name for name, weight in self.named.items() if settings.optimizer == "muon" and is_matrix(name, weight)]
        self.adamw = [name for name in self.named if name not in set(self.muon)]
        narrow = (torch.bfloat16, torch.float16)
        self.state: dict[str, Tensor] = {}
        for name, weight in self.named.items():
            if weight.dtype in narrow:
                self.state[f"master.{name}"] = weight.detach().float()
            wide = self.master(name)
            self.state[f"first.{name}"] = torch.zeros_like(wide)
            if name in self.adamw:
                self.state[f"second.{name}"] = torch.zeros_like(wide)
        self.shares = query_shares(model)
        self.steps = 0

    def master(self, name: str) -> Tensor:
        """The wide tensor that takes the step: the float32 copy, or the parameter itself where it is wide already."""
        return self.state.get(f"master.{name}", self.named[name].detach())

    @torch.no_grad()
    def step(self, factor: float) -> float:
        """One update at `factor` times the learning rates; returns the norm of the gradients before clipping. Where that
        is not a number nothing is changed: the caller stops the run."""
        names = [name for name, weight in self.named.items() if weight.grad is not None]
        gradients = {name: self._wide(name) for name in names}
        norm = total_norm(list(gradients.values()))
        if not math.isfinite(norm):
            return norm
        if self.settings.clip and norm > self.settings.clip:
            torch._foreach_mul_(list(gradients.values()), self.settings.clip / norm)
        self.steps += 1
        muon = set(self.muon)
        for name in names:
            if name not in muon:
                self._adamw(name, gradients[name], factor * self.settings.learning_rate)
        self._orthogonalised([name for name in self.muon if name in gradients], gradients, factor * self.settings.muon_learning_rate)
        narrow = [name for name in names if f"master.{name}" in self.state]
        if narrow:
            torch._foreach_copy_([self.named[name].detach() for name in narrow], [self.state[f"master.{name}"] for name in narrow])
        for name in names:
            self.named[name].grad = None
        return norm

    def _wide(self, name: str) -> Tensor:
        gradient = self.named[name].grad
        assert gradient is not None
        return gradient.to(self.master(name).dtype)

    def _adamw(self, name: str, gradient: Tensor, rate: float) -> None:
        """Loshchilov & Hutter 2019, algorithm 2, with bias correction."""
        (b1, b2), weight = self.settings.betas, self.master(name)
        first, second = self.state[f"first.{name}"], self.state[f"second.{name}"]
        first.lerp_(gradient, 1 - b1)
        second.lerp_(gradient.square(), 1 - b2)
        spread = (second / (1 - b2**self.steps)).sqrt_().add_(self.settings.epsilon)
        if weight.dim() > 1:
            weight.mul_(1 - rate * self.settings.weight_decay)
        weight.sub_(first / spread * (rate * self.shares.get(name, 1.0) / (1 - b1**self.steps)))

    def _orthogonalised(self, names: Sequence[str], gradients: Mapping[str, Tensor], rate: float) -> None:
        """Muon (Jordan et al. 2024): Nesterov momentum, then the nearest orthogonal matrix, scaled to the shape.

        Matrices of one shape are orthogonalised together. The scale √max(1, rows / columns) keeps the size of the
        change of the output the same for wide and tall matrices.
        """
        by_shape: dict[torch.Size, list[str]] = {}
        for name in names:
            by_shape.setdefault(gradients[name].shape, []).append(name)
        for shape, group in by_shape.items():
            slopes = [gradients[name] for name in group]
            first, weight = [self.state[f"first.{name}"] for name in group], [self.master(name) for name in group]
            torch._foreach_lerp_(first, slopes, 1 - self.settings.momentum)
            ahead = torch._foreach_lerp(slopes, first, self.settings.momentum)
            turned = orthogonal(torch.stack([whole(each) for each in ahead]))
            sizes = [rate * math.sqrt(max(1.0, shape[0] / shape[1])) * self.shares.get(name, 1.0) for name in group]
            updates = torch._foreach_mul(list(turned.to(weight[0].dtype).unbind()), sizes)
            torch._foreach_mul_(weight, 1 - rate * self.settings.weight_decay)
            torch._foreach_sub_(weight, [_like(update, old) for update, old in zip(updates, weight, strict=True)])

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor a resumed run needs, by name; sharded ones gathered (all ranks must call it)."""
        return {name: whole(value).cpu() for name, value in self.state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor], steps: int) -> None:
        """Take over a saved state. Raises FormatError when it belongs to another model or optimizer."""
        same = [n for n in state if n in self.state and (state[n].shape, state[n].dtype) == (self.state[n].shape, self.state[n].dtype)]
        different = sorted((set(state) | set(self.state)) - set(same))[:3]
        if different:
            raise FormatError(
                Words("途中保存から最適化の状態を戻そうとしました。", "Restoring the optimizer from a checkpoint."),
                found=Words(
                    f"別の形のモデルか設定のものです（{'、'.join(different)}）。",
                    f"It belongs to another model or setting ({', '.join(different)}).",
                ),
                todo=Words(
                    "同じ設定で再開するか、別の出力先で始めてください。", "Resume with the same recipe, or start in another directory."
                ),
            )
        for name, value in self.state.items():
            value.copy_(_like(state[name].to(value.device), value))
        self.steps = steps


def is_matrix(name: str, weight: Tensor) -> bool:
    """Whether Muon may take it: a matrix that maps hidden to hidden, not a table of vectors (embedding, positions, head)
    and not a narrow factor of one."""
    return weight.dim() == 2 and not any(word in name for word in ("embedding", "table", "head", "lora"))


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """The orthogonal factor of each matrix, approximately: singular values become 0.68 … 1.21. (..., R, C) -> the same in
    bfloat16 where the machine computes in it, which blurs that by a few hundredths, else in float32; float64 stays, so that
    a run in float64 is exact throughout.

    A quintic Newton–Schulz iteration with the coefficients of Jordan et al. 2024: a x + b x³ + c x⁵ applied to the
    singular values. The plain twin is U Vᵀ from the singular value decomposition.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices if matrices.dtype == torch.float64 else matrices.to(device.dtype("auto", matrices.device))
    tall = x.shape[-2] > x.shape[-1]
    x = x.transpose(-2, -1) if tall else x
    x = x / (_at_least_float32(x).norm(dim=(-2, -1), keepdim=True).to(x.dtype) + 1e-7)
    for _ in range(steps):
        square = x @ x.transpose(-2, -1)
        x = a * x + (b * square + c * square @ square) @ x
    turned: Tensor = x.transpose(-2, -1) if tall else x
    return turned


def total_norm(gradients: Sequence[Tensor]) -> float:
    """The Euclidean norm over all gradients together, whole ones and shards."""
    norms = torch._foreach_norm([_at_least_float32(gradient) for gradient in gradients]) if gradients else []
    return float(torch.stack([whole(norm) for norm in norms]).norm()) if norms else 0.0


def _at_least_float32(value: Tensor) -> Tensor:
    return value if value.dtype == torch.float64 else value.float()


def whole(value: Tensor) -> Tensor:
    """A sharded tensor gathered; any other as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _like(value: Tensor, other: Tensor) -> Tensor:
    """`value` cut into shards the way `other` is."""
    if not isinstance(other, DTensor):
        return value
    cut: Tensor = distribute_tensor(value, other.device_mesh, other.placements)
    return cut
