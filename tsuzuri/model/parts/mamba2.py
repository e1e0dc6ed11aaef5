"""Mamba-2 (Dao & Gu 2024, SSD): a short convolution, then a memory that decays by how much each token asks for.

    S_t = exp(A Δ_t) S_{t−1} + Δ_t x_t ⊗ B_t        a matrix (P, N) for each head; A < 0, Δ_t > 0 from the token itself
    y_t = S_t C_t + D x_t                            then gated by silu(z_t) and normalised by groups

`recurrence` is this, token by token. `chunked` computes the same as products of matrices, a chunk at a time (section 6 of
the paper), for whole sequences. The state of a sequence is one row of numbers: the last inputs of the convolution, then S.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsuzuri.model.parts._place import Place
from tsuzuri.types import Past

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "mixer"
CHUNK = 64  # tokens at a time: work within a chunk grows with its square
HEAD = 64  # numbers of a head, where nothing is said
STEPS = (1e-3, 1e-1)  # Δ before the first step of training, evenly spread over its logarithm


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSpace:
    """What a Mamba-2 layer is told, in the words of Hugging Face's config.json."""

    expand: int = 2  # inner width / hidden_size
    num_heads: int | None = None  # None: one for every 64 numbers of the inner width
    state_size: int = 64  # N
    n_groups: int = 1  # heads of a group share B and C
    conv_kernel: int = 4
    conv_bias: bool = True
    bias: bool = False  # of the projections in and out
    least_step: float = 0.0  # bounds of Δ
    largest_step: float | None = None  # None: no bound

    def heads(self, hidden_size: int) -> int:
        return self.num_heads or max(1, self.expand * hidden_size // HEAD)


class Part(nn.Module):
    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        told = shape.state_space or StateSpace()
        inner, self.heads = told.expand * shape.hidden_size, told.heads(shape.hidden_size)
        self.layer, self.groups, self.states, self.inner = layer, told.n_groups, told.state_size, inner
        self.size, self.eps = inner // self.heads, shape.norm_eps  # P
        self.bounds = (told.least_step, told.largest_step)
        self.channels = inner + 2 * told.n_groups * told.state_size  # C: what the convolution runs over, x, B and C side by side
        self.input = nn.Linear(shape.hidden_size, inner + self.channels + self.heads, bias=told.bias)
        self.conv = nn.Conv1d(self.channels, self.channels, told.conv_kernel, groups=self.channels, bias=told.conv_bias)
        self.decay = nn.Parameter(torch.empty(self.heads))  # log(−A)
        self.step_bias = nn.Parameter(torch.empty(self.heads))
        self.skip = nn.Parameter(torch.empty(self.heads))  # D
        self.norm = nn.Parameter(torch.empty(inner))
        self.output = nn.Linear(inner, shape.hidden_size, bias=told.bias)

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """A = −1, −2, … a head, Δ as `STEPS` says (Dao & Gu 2024; Gu et al. 2022, S4D-real)."""
        low, high = (math.log(each) for each in STEPS)
        step = torch.exp(low + (high - low) * torch.rand(self.heads, generator=generator))
        self.step_bias.copy_(step + torch.log(-torch.expm1(-step)))  # the inverse of softplus
        self.decay.copy_(torch.arange(1, self.heads + 1).log())
        self.skip.fill_(1.0)

    def forward(self, x: Tensor, place: Place, past: Past) -> Tensor:
        """(..., D) -> (..., D)"""
        gate, rest = self.input(x).split([self.inner, self.channels + self.heads], -1)
        out: Tensor = self.output(self._gated(past.recur(self.layer, rest, self.scan), gate))
        return out

    def _gated(self, y: Tensor, gate: Tensor) -> Tensor:
        """RMSNorm of y · silu(gate), each group by itself: (..., inner) twice -> (..., inner)"""
        wide = _wide(y) * F.silu(_wide(gate))
        grouped = torch.unflatten(wide, -1, (self.groups, -1))
        scaled = grouped * torch.rsqrt(grouped.square().mean(-1, keepdim=True) + self.eps)
        out: Tensor = self.norm * scaled.flatten(-2).to(y.dtype)
        return out

    def scan(self, inputs: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """A Scan: (..., T, C + H) and the state (..., (K − 1) C + H P N) -> (..., T, inner) and the state after."""
        rows = inputs.reshape(-1, *inputs.shape[-2:])  # (B, T, C + H)
        width, kept = self.conv.kernel_size[0] - 1, _wide(rows[:1, :1]).dtype
        size = width * self.channels + self.heads * self.size * self.states
        held = rows.new_zeros(len(rows), size, dtype=kept) if state is None else state.reshape(-1, size)
        tail, memory = torch.split(held, [width * self.channels, size - width * self.channels], -1)
        fresh, asked = torch.split(rows, [self.channels, self.heads], -1)
        line = torch.cat([tail.view(-1, width, self.channels).to(rows.dtype), fresh], 1)  # (B, K − 1 + T, C)
        mixed = F.silu(self.conv(line.transpose(1, 2)).transpose(1, 2))  # (B, T, C)
        y, memory = self._remember(_wide(mixed), _wide(asked), memory.view(-1, self.heads, self.size, self.states))
        after = torch.cat([line[:, line.shape[1] - width :].reshape(len(rows), -1).to(kept), memory.flatten(1)], -1)
        return y.to(inputs.dtype).reshape(*inputs.shape[:-1], self.inner), after.reshape(*inputs.shape[:-2], size)

    def _remember(self, mixed: Tensor, asked: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """x, B and C (B, T, C), Δ before its bias (B, T, H), S (B, H, P, N) -> y (B, T, inner), S"""
        x, b, c = torch.split(mixed, [self.inner, *[self.groups * self.states] * 2], -1)
        x = torch.unflatten(x, -1, (self.heads, self.size))  # (B, T, H, P)
        b, c = (torch.unflatten(each, -1, (self.groups, self.states)) for each in (b, c))  # (B, T, G, N)
        step = F.softplus(asked + self.step_bias).clamp(*self.bounds)  # (B, T, H)
        fading = -self.decay.to(step.dtype).exp() * step  # (B, T, H): log of what is kept
        run = recurrence if x.shape[1] == 1 else chunked
        y, memory = run(x * step[..., None], fading, b, c, memory)
        return (y + self.skip[:, None] * x).flatten(-2), memory


def recurrence(x: Tensor, fading: Tensor, b: Tensor, c: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """The plain twin: S ← exp(fading) S + x ⊗ B, y = S C, one token after another.

    x (B, T, H, P), fading (B, T, H), b and c (B, T, G, N), memory (B, H, P, N) -> y (B, T, H, P), memory
    """
    b, c = (each.repeat_interleave(x.shape[2] // each.shape[2], 2) for each in (b, c))  # (B, T, H, N)
    out = []
    for t in range(x.shape[1]):
        memory = fading[:, t, :, None, None].exp() * memory + x[:, t, :, :, None] * b[:, t, :, None, :]
        out.append((memory @ c[:, t, :, :, None]).squeeze(-1))  # (B, H, P)
    return torch.stack(out, 1), memory


def chunked(x: Tensor, fading: Tensor, b: Tensor, c: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """The same numbers by products of matrices: within a chunk as attention with scores C Bᵀ that fade, from chunk to chunk
    by the state (Dao & Gu 2024, section 6). Shapes as `recurrence`."""
    time, heads, groups = x.shape[1], x.shape[2], b.shape[2]
    by_group = (groups, heads // groups)
    x, fading, b, c = (_cut(each) for each in (x, fading, b, c))
    x, fading = (torch.unflatten(each, 3, by_group) for each in (x, fading))  # (B, c, L, G, R, …)
    memory = torch.unflatten(memory, 1, by_group)  # (B, G, R, P, N)
    kept = _kept_between(fading.permute(0, 1, 3, 4, 2))  # (B, c, G, R, L, L)
    scores = torch.einsum("zclgn,zcsgn->zcgls", c, b)  # (B, c, G, L, L)
    y = torch.einsum("zcgrls,zcsgrp->zclgrp", scores[:, :, :, None] * kept, x)
    made = torch.einsum("zcgrs,zcsgn,zcsgrp->zcgrpn", kept[..., -1, :], b, x)  # what each chunk adds to the state
    since = fading.cumsum(2).exp()  # (B, c, L, G, R): what is left of the state that a chunk began with
    before = []
    for number in range(x.shape[1]):
        before.append(memory)
        memory = since[:, number, -1, :, :, None, None] * memory + made[:, number]
    y = y + since[..., None] * torch.einsum("zclgn,zcgrpn->zclgrp", c, torch.stack(before, 1))
    return y.flatten(3, 4).flatten(1, 2)[:, :time], memory.flatten(1, 2)


def _cut(x: Tensor) -> Tensor:
    """(B, T, …) -> (B, c, L, …), the last chunk filled with zeros: they add nothing and let nothing fade"""
    filled = F.pad(x, (0, 0) * (x.dim() - 2) + (0, -x.shape[1] % CHUNK))
    return torch.unflatten(filled, 1, (-1, CHUNK))


def _kept_between(fading: Tensor) -> Tensor:
    """(..., L) -> (..., L, L): exp of the sum over s < i ≤ l, 0 where s > l. Sums, not differences of sums: nothing cancels."""
    size = fading.shape[-1]
    later = torch.ones(size, size, dtype=torch.bool, device=fading.device).tril(-1)  # s < i
    sums = fading[..., None].expand(*fading.shape, size).masked_fill(~later, 0).cumsum(-2)  # (..., L, L)
    return sums.masked_fill(~(later | torch.eye(size, dtype=torch.bool, device=fading.device)), -math.inf).exp()


def _wide(x: Tensor) -> Tensor:
    """In float32 at least: a memory is a sum over all that came."""
    return x if x.dtype == torch.float64 else x.float()
