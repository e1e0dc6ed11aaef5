"""What uneven use of experts costs: a router left alone sends everything to the few experts that learned first.

In: a model whose experts kept what their routers said of the last call, and the batch of that call. Out: something to add to
the summed nats of the batch. It changes the gradients alone: its value is zero, so that a loss stays a loss in nats.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsuzuri.model.parts.experts import Part, Routed
from tsuzuri.train.data import Batch


def price(model: object, batch: Batch) -> Tensor | float:
    """0, with the gradient of coefficient × (mean of `uneven` over the layers) × (targets of the batch); padding is not
    counted. Shape's `router_aux_loss_coef` is the coefficient; without experts, or where it is 0, there is no gradient."""
    if not isinstance(model, nn.Module):  # counts have no experts
        return 0.0
    watched = [part for part in model.modules() if isinstance(part, Part) and part.routed is not None]
    if not watched:
        return 0.0
    real = None if batch.documents is None else batch.documents != -1  # (B, T)
    costs = []
    for part in watched:
        assert part.routed is not None
        costs.append(part.coefficient * uneven(part.routed, real))
        part.routed = None
    cost = torch.stack(costs).mean() * batch.trained
    return cost - cost.detach()


def uneven(routed: Routed, real: Tensor | None) -> Tensor:
    """X · Σ_e f_e P_e (Fedus et al. 2022, eq. 4): f_e how often a token goes to expert e, P_e its mean probability. k where all
    X experts are used alike, X where all tokens go to the same. real (...) bool: which tokens count; None: all."""
    probability = routed.probability if real is None else routed.probability[real]  # (..., X)
    chosen = routed.chosen if real is None else routed.chosen[real]  # (..., k)
    experts, tokens = probability.shape[-1], probability[..., 0].numel()
    often = F.one_hot(chosen, experts).flatten(0, -2).sum(0) / tokens  # (X,)
    total: Tensor = experts * (often * probability.flatten(0, -2).mean(0)).sum()
    return total
