"""Rotary positions (Su et al. 2021, eq. 34): each pair (i, i + R/2) of a head turns by position · theta^(−2i/R).

The pairing is the half-split one of Llama's published weights, not the interleaved one of the paper: the two differ by a
permutation of the rows of the query and key projections. R is the whole head, or the share `partial_rotary_factor` of it.
Scalings for texts longer than those of training change the frequencies (`Scaling`), and some the length of what is turned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from tsuzuri.model.parts._place import Place
from tsuzuri.types import Past

if TYPE_CHECKING:
    from tsuzuri.model.transformer import Shape

KIND = "position"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """`rope_scaling` of a config.json, in its words. What a kind does not use is None.

    linear    angles / factor (Chen et al. 2023)
    dynamic   theta grows with the length of the text once that exceeds the original one ("NTK-aware")
    llama3    long wavelengths / factor, short ones kept, in between a blend (Llama 3.1)
    yarn      the same by dimension, and queries and keys grow (Peng et al. 2023)
    longrope  a factor for each frequency, one set for short and one for long texts (Ding et al. 2024)
    """

    rope_type: Literal["linear", "dynamic", "llama3", "yarn", "longrope"]
    factor: float
    original_max_position_embeddings: int | None = None  # dynamic, llama3, yarn, longrope
    low_freq_factor: float | None = None  # llama3
    high_freq_factor: float | None = None  # llama3
    beta_fast: float | None = None  # yarn
    beta_slow: float | None = None  # yarn
    truncate: bool | None = None  # yarn
    attention_factor: float | None = None  # yarn, longrope: queries and keys are multiplied by it
    short_factor: tuple[float, ...] | None = None  # longrope, R/2 of them
    long_factor: tuple[float, ...] | None = None  # longrope

    @property
    def grows(self) -> bool:
        """Whether the frequencies depend on the length of the text."""
        return self.rope_type in ("dynamic", "longrope")


class Part(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.theta, self.scaling = shape.rope_theta, shape.rope_scaling
        self.size = shape.rotary_size  # R

    def forward(self, past: Past) -> Place:
        """(...) -> cos and sin (..., 1, R) in float32, or in float64 where the default dtype is"""
        wide = torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32
        extent = past.extent if self.scaling is not None and self.scaling.grows else None
        angles = past.positions[..., None].to(wide) * self.frequencies(past.positions.device, wide, extent)  # (..., R/2)
        angles = torch.cat((angles, angles), -1).unsqueeze(-2)  # (..., 1, R)
        longer = 1.0 if self.scaling is None else self.scaling.attention_factor or 1.0
        return Place(cos=angles.cos() * longer, sin=angles.sin() * longer)

    def frequencies(self, device: torch.device, dtype: torch.dtype, extent: Tensor | None) -> Tensor:
        """Radians a position, (R/2,); where they depend on the length of the text, `extent` (...), (..., R/2)"""
        steps = torch.arange(0, self.size, 2, device=device, dtype=dtype) / self.size  # (R/2,)
        plain, scaling = self.theta**-steps, self.scaling
        if scaling is None:
            return plain
        match scaling.rope_type:
            case "linear":
                return plain / scaling.factor
            case "llama3":
                return llama3(plain, scaling)
            case "yarn":
                return _yarn(plain, scaling, self.theta, self.size)
            case "dynamic":
                assert extent is not None and scaling.original_max_position_embeddings is not None
                times = (extent.to(dtype) / scaling.original_max_position_embeddings).clamp_min(1)[..., None]  # (..., 1)
                theta = self.theta * (scaling.factor * times - (scaling.factor - 1)) ** (self.size / (self.size - 2))
                return theta**-steps
            case _:
                assert extent is not None and scaling.original_max_position_embeddings is not None
                longer = (extent > scaling.original_max_position_embeddings)[..., None]  # (..., 1)
                long, short = (torch.tensor(f, device=device, dtype=dtype) for f in (scaling.long_factor, scaling.short_factor))
                return plain / torch.where(longer, long, short)


def regime(scaling: Scaling | None, extent: int) -> int:
    """Two texts of the same regime have the same frequencies: what was computed for one holds for the other."""
    if scaling is None or not scaling.grows:
        return 0
    original = scaling.original_max_position_embeddings or 0
    return max(extent, original) if scaling.rope_type == "dynamic" else int(extent > original)


def llama3(plain: Tensor, scaling: Scaling) -> Tensor:
    low, high, original = scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_max_position_embeddings
    assert low is not None and high is not None and original is not None
    turns = original * plain / (2 * math.pi)  # of each frequency within the original length
    share = ((turns - low) / (high - low)).clamp(0, 1)  # 1: kept
    return plain * share + plain / scaling.factor * (1 - share)


def _yarn(plain: Tensor, scaling: Scaling, theta: float, size: int) -> Tensor:
    original = scaling.original_max_position_embeddings
    assert original is not None

    def dimension(turns: float) -> float:
        """The pair that turns so often within the original length."""
        return size * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first, last = dimension(scaling.beta_fast or 32), dimension(scaling.beta_slow or 1)
    if scaling.truncate is not False:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, size - 1)
    pairs = torch.arange(size // 2, device=plain.device, dtype=plain.dtype)
    share = 1 - ((pairs - first) / (last - first or 0.001)).clamp(0, 1)  # 1: kept
    return plain * share + plain / scaling.factor * (1 - share)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(..., H, E) with its first R numbers turned by angles (..., 1, R)"""
    size = cos.shape[-1]
    turning, rest = (x, None) if size == x.shape[-1] else (x[..., :size], x[..., size:])
    first, second = turning.chunk(2, -1)
    turned: Tensor = turning * cos.to(x.dtype) + torch.cat((-second, first), -1) * sin.to(x.dtype)
    return turned if rest is None else torch.cat((turned, rest), -1)
