"""What the recurrent layers of before attention have in common: gates made from the input and from the state before.

In: x (..., T, D) and the state after the last token. Out: the hidden state at every token and the state after. Each layer writes
its equation for one token in `step`; whole sequences go through PyTorch's kernel for the same equation.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tsuzuri.model.parts._place import Place
from tsuzuri.types import Past

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape


class Recurrent(nn.Module):
    gates: int  # vectors made at each token
    states = 1  # vectors that are kept

    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        self.layer, self.size = layer, shape.hidden_size
        self.input = nn.Linear(self.size, self.gates * self.size)
        self.state = nn.Linear(self.size, self.gates * self.size)

    @property
    def state_size(self) -> int:
        """Numbers that are kept between tokens."""
        return self.states * self.size

    def forward(self, x: Tensor, place: Place, past: Past) -> Tensor:
        """(..., D) -> (..., D)"""
        return past.recur(self.layer, x, self.scan)

    def scan(self, inputs: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """A Scan by the kernel: (..., T, D) and (..., state_size) -> (..., T, D) and (..., state_size)"""
        rows = inputs.reshape(-1, *inputs.shape[-2:])  # (B, T, D)
        kept = rows.new_zeros(len(rows), self.state_size) if state is None else state.reshape(-1, self.state_size)
        parts = [each.contiguous()[None] for each in torch.split(kept, self.size, -1)]  # (1, B, D) each
        weights = [self.input.weight, self.state.weight, self.input.bias, self.state.bias]
        out, after = self.kernel(rows, parts, weights)
        joined = torch.cat([each[0] for each in after], -1)  # (B, state_size)
        return out.reshape(inputs.shape), joined.reshape(*inputs.shape[:-2], self.state_size)

    def plain(self, inputs: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """The plain twin of `scan`."""
        kept = inputs.new_zeros(*inputs.shape[:-2], self.state_size) if state is None else state
        out = []
        for x in inputs.unbind(-2):
            kept = self.step(x, kept)
            out.append(kept[..., : self.size])
        return torch.stack(out, -2), kept

    @abstractmethod
    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One token: (..., D) and the state before (..., state_size) -> the state after, the hidden state first"""

    @abstractmethod
    def kernel(self, x: Tensor, state: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """(B, T, D), states (1, B, D) -> (B, T, D), states (1, B, D)"""
