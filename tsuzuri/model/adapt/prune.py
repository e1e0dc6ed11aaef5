"""Pruning: the weights that matter least become zero, and the model stays a model of the same shape.

    score = |w|                  magnitude (Han et al. 2015)
    score = |w_ij| · ‖x_j‖       calibrated (Wanda: Sun et al. 2024, eq. 1), x_j what input j read in some text

A share of the lowest scores goes: of each output's row, of each matrix, or of all matrices together; or a pattern such as 2:4, in
which of every four inputs of a row the two highest stay. In: a built model. Out: the same model, in place. Only linear layers of the
blocks are pruned. Embedding, head, norms, biases, convolutions and the routers of experts stay whole: they are few, or each row of
them is a token or an expert, and is needed when that one comes. It trains nothing back, and no kernel here is faster for a zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tsuzuri.errors import ConfigError, Words
from tsuzuri.folder import suggestion
from tsuzuri.model.past import Bidirectional, Causal
from tsuzuri.model.transformer import Transformer

PATTERNS = {"2:4": (2, 4), "4:8": (4, 8)}  # so many stay, of so many inputs that lie together
SCOPES = ("row", "matrix", "model")
ROUTER = "router"

Scope = Literal["row", "matrix", "model"]
Norms = Mapping[str, Tensor]  # name of a matrix -> (K,) the norm of what each input read


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to go: a share, or a pattern. `scope` is where a share is counted; None: by row when calibrated (as Wanda does), else by
    matrix."""

    sparsity: float | None = None
    pattern: str | None = None
    scope: Scope | None = None

    def __post_init__(self) -> None:
        if (self.sparsity is None) == (self.pattern is None):
            raise _wrong(Words("割合と型のどちらか一つを指定してください。", "Exactly one of a share and a pattern is needed."))
        if self.sparsity is not None and not 0 <= self.sparsity < 1:
            raise _wrong(
                Words(f"割合が {self.sparsity} です。0 以上 1 未満です。", f"The share is {self.sparsity}; it lies in 0 … 1, without 1.")
            )
        if self.pattern is not None and self.pattern not in PATTERNS:
            raise _unknown(Words("型", "pattern"), self.pattern, [*PATTERNS])
        if self.scope is not None and self.scope not in SCOPES:
            raise _unknown(Words("数える範囲", "scope"), self.scope, [*SCOPES])
        if self.pattern is not None and self.scope is not None:
            raise _wrong(Words(f"{self.pattern} では数える範囲を選べません。", f"With {self.pattern} there is no scope to choose."))


@dataclass(frozen=True, slots=True)
class Record:
    """What was done to a model, and what was not."""

    plan: Plan
    zeros: dict[str, int]  # of each matrix that was pruned, by name
    sizes: dict[str, int]  # weights of the same matrices
    kept: tuple[str, ...]  # linear layers of the blocks that stay whole: routers, and rows that a pattern does not divide
    calibrated: tuple[str, ...]  # matrices whose inputs were weighed by what they read
    parameters: int  # of the whole model

    @property
    def sparsity(self) -> float:
        """Zeros among the weights of the matrices that were pruned."""
        return sum(self.zeros.values()) / sum(self.sizes.values())

    @property
    def of_all(self) -> float:
        """The same zeros among all weights of the model."""
        return sum(self.zeros.values()) / self.parameters

    def as_json(self) -> dict[str, Any]:
        scope = self.plan.scope if self.plan.pattern else scope_of(self.plan, bool(self.calibrated))
        return {
            "sparsity": self.plan.sparsity, "pattern": self.plan.pattern, "scope": scope, "calibrated": len(self.calibrated),
            "zeros": sum(self.zeros.values()), "weights": sum(self.sizes.values()), "parameters": self.parameters,
            "share": self.sparsity, "share_of_all": self.of_all, "kept": list(self.kept),
            "matrices": {name: self.zeros[name] / self.sizes[name] for name in self.zeros},
        }  # fmt: skip


@torch.no_grad()
def prune(model: nn.Module, plan: Plan, norms: Norms | None = None) -> Record:
    """Zero what the plan says, in place. `norms`: of `norms_of`; a matrix without them goes by magnitude alone. Raises ConfigError for
    a model in which there is nothing to prune."""
    width = PATTERNS[plan.pattern][1] if plan.pattern else 1
    found, kept = {}, []
    for name, layer in _linears(model):
        if name.endswith(f".{ROUTER}") or layer.in_features % width:
            kept.append(f"{name}.weight")
        else:
            found[f"{name}.weight"] = layer.weight
    if not found:
        raise _nothing()
    given = norms or {}
    scores = {name: weight.float().abs() * given.get(name, torch.ones(())).to(weight.device) for name, weight in found.items()}
    for name, gone in _chosen(scores, plan, bool(given)).items():
        found[name].masked_fill_(gone, 0)
    zeros = {name: int((weight == 0).sum()) for name, weight in found.items()}
    sizes = {name: weight.numel() for name, weight in found.items()}
    weighed = tuple(name for name in found if name in given)
    return Record(plan, zeros, sizes, tuple(kept), weighed, sum(weight.numel() for weight in model.parameters()))


def scope_of(plan: Plan, calibrated: bool) -> Scope:
    return plan.scope or ("row" if calibrated else "matrix")


def _chosen(scores: Mapping[str, Tensor], plan: Plan, calibrated: bool) -> dict[str, Tensor]:
    """Of each matrix a mask of what goes."""
    if plan.pattern is not None:
        stay, width = PATTERNS[plan.pattern]
        return {name: lowest(score.view(-1, width), width - stay).view_as(score) for name, score in scores.items()}
    assert plan.sparsity is not None
    share, scope = plan.sparsity, scope_of(plan, calibrated)
    if scope == "row":
        return {name: lowest(score, round(share * score.shape[1])) for name, score in scores.items()}
    if scope == "matrix":
        return {name: lowest(score.view(1, -1), round(share * score.numel())).view_as(score) for name, score in scores.items()}
    every = torch.cat([score.flatten() for score in scores.values()])
    gone = torch.split(lowest(every[None], round(share * len(every)))[0], [score.numel() for score in scores.values()])
    return {name: part.view_as(scores[name]) for name, part in zip(scores, gone, strict=True)}


def lowest(scores: Tensor, count: int) -> Tensor:
    """(G, n) -> bool (G, n): the `count` lowest of each row; of equals those that come first."""
    order = scores.argsort(dim=-1, stable=True)[:, :count]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, True)


@torch.no_grad()
def norms_of(model: Any, samples: Sequence[Tensor]) -> dict[str, Tensor]:
    """What each input of each linear layer read in `samples`, ids (T,) of ordinary text: ‖x_j‖, float32 (K,) by name of the matrix.

    They are those of the whole model; Wanda measures a block again after those before it were pruned. A layer that read nothing (an
    expert nobody was sent to, a recurrence that is no product) has none. Raises ConfigError for a model that reads no plain text.
    """
    if not isinstance(model, Transformer):
        raise _no_reader()
    squares: dict[str, Tensor] = {}

    def seen(name: str, _: nn.Module, given: tuple[Tensor, ...]) -> None:
        x = given[0].float().flatten(0, -2)  # (n, K)
        squares[name] = squares.get(name, torch.zeros(())) + x.square().sum(0)

    hooks = [layer.register_forward_pre_hook(partial(seen, f"{name}.weight")) for name, layer in _linears(model)]
    past = Causal if model.shape.causal else Bidirectional
    try:
        for ids in samples:
            model.hidden(ids, past(torch.arange(len(ids), device=ids.device)))
    finally:
        for hook in hooks:
            hook.remove()
    read = {name: total.sqrt() for name, total in squares.items()}
    if not read:
        raise _no_reader()
    return read


def _linears(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers of the blocks, of an encoder and of a decoder alike."""
    for name, module in model.named_modules() if isinstance(model, nn.Module) else ():
        if isinstance(module, nn.Linear) and "blocks." in name and "weight" in module._parameters:
            yield name, module


def _unknown(what: Words, given: str, known: list[str]) -> ConfigError:
    return ConfigError(
        Words(f"枝刈りの{what.ja}に「{given}」が指定されました。", f"'{given}' was given as the {what.en} of pruning."),
        found=Words(f"あるのは {'、'.join(known)} です。", f"There is {', '.join(known)}."),
        todo=suggestion(given, known),
    )


def _wrong(found: Words) -> ConfigError:
    return ConfigError(
        Words("枝刈りの仕方を決めようとしました。", "Planning what to prune."),
        found=found,
        todo=Words("--sparsity 0.5 か --pattern 2:4 のように指定してください。", "Say it as in --sparsity 0.5 or --pattern 2:4."),
    )


def _nothing() -> ConfigError:
    return ConfigError(
        Words("モデルの枝刈りをしようとしました。", "Pruning the model."),
        found=Words("枝刈りできる行列がありません。", "It has no matrix that could be pruned."),
        todo=Words("量子化していない、学習で作ったモデルを指定してください。", "Name a model that was trained and is not quantised."),
    )


def _no_reader() -> ConfigError:
    return ConfigError(
        Words("入力の大きさを文章から測ろうとしました。", "Measuring what the inputs read in a text."),
        found=Words("このモデルでは測れる行列がありません。", "In this model there is no matrix whose inputs could be measured."),
        todo=Words("--calibrate を付けずに枝刈りしてください。", "Prune without --calibrate."),
    )
