"""The functions that config.json calls `hidden_act`, by its names."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def relu2(x: Tensor) -> Tensor:
    """relu(x)² (So et al. 2021, Primer)"""
    return F.relu(x).square()


def gelu_tanh(x: Tensor) -> Tensor:
    """The approximation of GELU by a tanh that GPT was trained with (Hendrycks & Gimpel 2016, section 2)."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,  # x · sigmoid(x) (Elfwing et al. 2018)
    "gelu": F.gelu,  # x · Φ(x) (Hendrycks & Gimpel 2016)
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": F.relu,
    "relu2": relu2,
    "tanh": F.tanh,
}
