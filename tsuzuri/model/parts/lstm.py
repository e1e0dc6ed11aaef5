"""Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).

    i, f, o = σ(W x + U h)      g = tanh(W_g x + U_g h)      c ← f · c + i · g      h = o · tanh(c)

The cell c is only ever multiplied by f and added to: what it holds fades slowly, and so does its gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tsuzuri.model.parts._recurrent import Recurrent

KIND = "mixer"


class Part(Recurrent):
    gates, states = 4, 2

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """The forget gate starts open (Gers et al. 2000; Jozefowicz et al. 2015, section 2.2)."""
        self.input.bias[self.size : 2 * self.size] = 1.0

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        h, cell = state.chunk(2, -1)
        write, keep, new, show = (self.input(x) + self.state(h)).chunk(4, -1)
        cell = keep.sigmoid() * cell + write.sigmoid() * new.tanh()
        return torch.cat([show.sigmoid() * cell.tanh(), cell], -1)

    def kernel(self, x: Tensor, state: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        out, *after = torch.lstm(x, state, weights, True, 1, 0.0, False, False, True)
        return out, after
