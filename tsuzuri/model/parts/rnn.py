"""The simple recurrent network (Elman 1990): h_t = tanh(W x_t + b + U h_{t−1} + d)."""

from __future__ import annotations

import torch
from torch import Tensor

from tsuzuri.model.parts._recurrent import Recurrent

KIND = "mixer"


class Part(Recurrent):
    gates = 1

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        return torch.tanh(self.input(x) + self.state(state))

    def kernel(self, x: Tensor, state: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        out, after = torch.rnn_tanh(x, state[0], weights, True, 1, 0.0, False, False, True)
        return out, [after]
