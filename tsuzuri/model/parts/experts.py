"""Experts: of several gated feed-forwards each token goes through the few its router finds most probable.

    p = softmax(W x);   y = Σ over the k largest  p_e / (their sum) · expert_e(x)

Shazeer et al. 2017, section 2; renormalised over the chosen ones as in Mixtral (Jiang et al. 2024, section 2.1). Tokens are
sorted by expert, so that each expert is one product; the plain twin, a token at a time, is `one_by_one`. While it is trained,
the part keeps what the router said of the last call: `train/balance.py` makes a loss of it (Fedus et al. 2022, eq. 4–6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from tsuzuri.model.parts import gated

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "feedforward"


class Routed(NamedTuple):
    """What a router said of the tokens of one call."""

    probability: Tensor  # (..., X) of each expert
    chosen: Tensor  # (..., k) int64


class Part(nn.Module):
    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        self.router = nn.Linear(shape.hidden_size, shape.num_experts, bias=False)
        self.experts = nn.ModuleList(gated.Part(shape, layer) for _ in range(shape.num_experts))
        self.each = shape.num_experts_per_tok  # k
        self.coefficient = shape.router_aux_loss_coef
        self.routed: Routed | None = None  # of the last call, where it is trained and uneven use costs something

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        weight, chosen = self.route(x)  # (..., k) each
        flat, weight, chosen = x.reshape(-1, x.shape[-1]), weight.flatten(0, -2), chosen.flatten(0, -2)
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            token, rank = (chosen == number).nonzero(as_tuple=True)  # (M,): who goes to this expert
            if len(token) or torch.is_grad_enabled():  # in training all take part, so that every process has the same gradients
                out.index_add_(0, token, (expert(flat[token]) * weight[token, rank, None]).to(out.dtype))
        return out.view_as(x)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(..., D) -> of the chosen experts the weights, summing to 1, and the numbers (..., k)"""
        scores = self.router(x)  # (..., X)
        probability = (scores if scores.dtype == torch.float64 else scores.float()).softmax(-1)
        top, chosen = probability.topk(self.each, -1)  # (..., k)
        if self.coefficient and torch.is_grad_enabled():
            self.routed = Routed(probability, chosen)
        return top / top.sum(-1, keepdim=True), chosen

    def one_by_one(self, x: Tensor) -> Tensor:
        """The plain twin of `forward`: (..., D) -> (..., D)"""
        rows = []
        for token in x.reshape(-1, x.shape[-1]):
            weight, chosen = self.route(token)
            parts = [share * self.experts[number](token) for share, number in zip(weight, chosen.tolist(), strict=True)]
            rows.append(torch.stack(parts).sum(0).to(x.dtype))
        return torch.stack(rows).view_as(x)
