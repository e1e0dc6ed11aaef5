"""The gated recurrent unit (Cho et al. 2014), two gates and one state.

    r = σ(W_r x + U_r h)      z = σ(W_z x + U_z h)      n = tanh(W_n x + r · (U_n h + d_n))      h ← (1 − z) · n + z · h

As PyTorch and cuDNN compute it: r after the product with U_n, where the paper has U_n (r · h).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tsuzuri.model.parts._recurrent import Recurrent

KIND = "mixer"


class Part(Recurrent):
    gates = 3

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        from_input, from_state = self.input(x).chunk(3, -1), self.state(state).chunk(3, -1)
        reset, update = (torch.sigmoid(a + b) for a, b in zip(from_input[:2], from_state[:2], strict=True))
        new = torch.tanh(from_input[2] + reset * from_state[2])
        return (1 - update) * new + update * state

    def kernel(self, x: Tensor, state: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        out, after = torch.gru(x, state[0], weights, True, 1, 0.0, False, False, True)
        return out, [after]
