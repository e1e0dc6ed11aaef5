"""Quantisation: the matrices of a model in 8 or 4 bits, groups of 32 inputs of a row sharing a scale.

    q8_0   w ≈ d · n          n = -127 … 127     d = max|w| / 127            8.5 bits a weight
    q4_0   w ≈ d · (n - 8)    n = 0 … 15         d = (w of max |w|) / -8     4.5 bits a weight
    nf4    w ≈ d · t[n]       t = 16 quantiles of a normal distribution (Dettmers et al. 2023, appendix E), d = max|w|   4.5 bits

q8_0 and q4_0 are GGML's, number for number. In: a built model. Out: the same model, whose matrices (embedding and head too) are
kept narrow and multiplied out where they are used: that is the plain twin of the native kernels, and it needs nothing but PyTorch.
A matrix whose rows are no multiple of 32 stays as it is and is named in the record.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tsuzuri.errors import ConfigError, Words
from tsuzuri.folder import suggestion

METHOD = "tsuzuri"  # `quant_method` of a config.json
GROUP = 32
BITS = {"q8_0": 8.5, "q4_0": 4.5, "nf4": 4.5}  # a weight, its share of the scale included
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Record:
    """What was done to a model, and what was not."""

    form: str
    narrowed: tuple[str, ...]  # names of weights
    kept: tuple[str, ...]  # matrices whose rows are no multiple of 32
    bytes_before: int
    bytes_after: int


def quantize(model: nn.Module, form: str) -> Record:
    """Narrow every matrix of `model`, in place, to the nearest number of `form`. Raises ConfigError for another form, and for a
    model in which there is nothing to narrow."""
    check(form)
    narrowed: list[str] = []
    kept: list[str] = []
    before = _size(model) if isinstance(model, nn.Module) else 0
    for name, module in model.named_modules() if isinstance(model, nn.Module) else ():
        weight = module._parameters.get("weight")
        if weight is None or weight.dim() != 2:
            continue
        if weight.shape[1] % GROUP:
            kept.append(f"{name}.weight")
            continue
        become(module, form, *FORMS[form](weight.detach()))
        narrowed.append(f"{name}.weight")
    if not narrowed:
        raise ConfigError(
            Words(f"モデルを {form} に量子化しようとしました。", f"Quantising the model to {form}."),
            found=Words(
                f"縮められる行列（入力の数が {GROUP} で割り切れるもの）がありません。",
                f"It has no matrix to narrow, whose inputs are a multiple of {GROUP}.",
            ),
            todo=Words("量子化せずに使ってください。", "Use it without quantisation."),
        )
    return Record(form, tuple(narrowed), tuple(kept), before, _size(model))


def check(form: str) -> None:
    if form not in BITS:
        known = list(BITS)
        raise ConfigError(
            Words(f"量子化の形式「{form}」が指定されました。", f"The quantisation '{form}' was asked for."),
            found=Words(f"あるのは {'、'.join(known)} です。", f"There is {', '.join(known)}."),
            todo=suggestion(form, known),
        )


def form_of(model: nn.Module) -> str | None:
    """The form of a model's matrices, None where they are numbers as PyTorch computes with them."""
    return next((module.form for module in model.modules() if isinstance(module, Quantised)), None)


def count(model: nn.Module) -> int:
    """Weights, however they are kept."""
    narrow = (module for module in model.modules() if isinstance(module, Quantised))
    return sum(weight.numel() for weight in model.parameters()) + sum(module.scales.numel() * GROUP for module in narrow)


def widened(model: nn.Module) -> dict[str, Tensor]:
    """Every weight by name, the narrow ones multiplied out."""
    wide = {f"{name}.weight": module.weight for name, module in model.named_modules() if isinstance(module, Quantised)}
    return {name: weight.detach() for name, weight in model.named_parameters()} | wide


def described(config: Any) -> str:
    """The form that a `quantization_config` of a config.json names. Raises ConfigError for one that is not ours."""
    known = {"quant_method": METHOD, "group_size": GROUP}
    if not isinstance(config, dict) or set(config) != {*known, "format"} or config["format"] not in BITS or {**config, **known} != config:
        raise ConfigError(
            Words("config.json の quantization_config を読もうとしました。", "Reading quantization_config of config.json."),
            found=Words(
                f"{str(config)[:80]} です。この量子化には対応していません。",
                f"It is {str(config)[:80]}; this quantisation cannot be computed.",
            ),
            todo=Words(
                "量子化していないモデルを使い、読み込むときに量子化してください（--quantize）。",
                "Use the model before quantisation, and quantise it on loading (--quantize).",
            ),
        )
    return str(config["format"])


def problem(form: str, weight: Tensor, values: Tensor, scales: Tensor) -> str | None:
    """What is wrong with stored `values` and `scales` for this weight."""
    rows, inputs = weight.shape if weight.dim() == 2 else (0, 0)
    dtype, width = (torch.int8, inputs) if form == "q8_0" else (torch.uint8, inputs // 2)
    if inputs % GROUP or (values.dtype, tuple(values.shape)) != (dtype, (rows, width)):
        return f"values {tuple(values.shape)} {values.dtype}, weight {tuple(weight.shape)}"
    if (scales.dtype, tuple(scales.shape)) != (torch.float16, (rows, inputs // GROUP)):
        return f"scales {tuple(scales.shape)} {scales.dtype}, weight {tuple(weight.shape)}"
    return "values -128" if form == "q8_0" and values.numel() and int(values.min()) == -128 else None


# ── the forms


def q8_0(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, K) -> int8 (rows, K), float16 (rows, K/32)"""
    groups = _grouped(weight.float())  # (rows, K/32, 32)
    scales = groups.abs().amax(-1, keepdim=True) / 127
    scaled = groups * torch.where(scales > 0, 1 / scales, 0)
    values = (scaled.abs() + 0.5).floor().copysign(scaled)  # to nearest, halves away from zero, as C's roundf
    return values.to(torch.int8).flatten(-2), scales.squeeze(-1).half()


def q4_0(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, K) -> uint8 (rows, K/2), byte i of the 16 of a group holding inputs i and i + 16; float16 (rows, K/32)"""
    groups = _grouped(weight.float())
    scales = groups.gather(-1, groups.abs().argmax(-1, keepdim=True)) / -8
    values = (groups * torch.where(scales != 0, 1 / scales, 0) + 8.5).clamp(0, 15).to(torch.uint8)  # truncated
    return _nibbles(values), scales.squeeze(-1).half()


def nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The same bytes as q4_0; a nibble is the place of a quantile."""
    groups = _grouped(weight.float())
    scales = groups.abs().amax(-1, keepdim=True)
    table = torch.tensor(NF4, device=weight.device)
    between = (table[1:] + table[:-1]) / 2
    values = torch.bucketize(groups * torch.where(scales > 0, 1 / scales, 0), between).to(torch.uint8)
    return _nibbles(values), scales.squeeze(-1).half()


FORMS = {"q8_0": q8_0, "q4_0": q4_0, "nf4": nf4}


def dequantised(form: str, values: Tensor, scales: Tensor) -> Tensor:
    """float32 (rows, K)"""
    if form == "q8_0":
        numbers = values.float()
    else:
        packed = _grouped(values, GROUP // 2)
        places = torch.cat((packed & 15, packed >> 4), -1).flatten(-2)  # (rows, K)
        numbers = places.float() - 8 if form == "q4_0" else torch.tensor(NF4, device=values.device)[places.int()]
    return (_grouped(numbers) * scales.float().unsqueeze(-1)).flatten(-2)


def _grouped(rows: Tensor, size: int = GROUP) -> Tensor:
    """(..., K) -> (..., K / size, size)"""
    return rows.reshape(*rows.shape[:-1], -1, size)


def _nibbles(values: Tensor) -> Tensor:
    low, high = values.chunk(2, -1)  # inputs 0 … 15 and 16 … 31
    return (low | high << 4).flatten(-2)


# ── a module that keeps its matrix narrow


class Quantised(nn.Module):
    """What any module with a matrix becomes: `weight` is multiplied out when it is asked for."""

    form: str
    values: Tensor
    scale_bits: Tensor  # float16 as int16: `model.to(dtype)` must not round them
    like: Tensor  # empty; `model.to(dtype)` says by it what `weight` is to be

    @property
    def scales(self) -> Tensor:
        """float16 (rows, K/32)"""
        return self.scale_bits.view(torch.float16)

    @property
    def weight(self) -> Tensor:
        """(rows, K)"""
        return dequantised(self.form, self.values, self.scales).to(self.like.dtype)


class QuantisedEmbedding(Quantised):
    """Only the rows that are looked up are multiplied out."""

    def forward(self, ids: Tensor) -> Tensor:
        rows = dequantised(self.form, self.values[ids].flatten(0, -2), self.scales[ids].flatten(0, -2))
        return rows.to(self.like.dtype).view(*ids.shape, -1)


def become(module: nn.Module, form: str, values: Tensor, scales: Tensor) -> None:
    """The module keeps its class and its other weights; its matrix becomes `values` and `scales`, which it does not train."""
    weight = module._parameters.pop("weight")
    assert weight is not None
    module.__class__ = _quantised(type(module))  # type: ignore[arg-type]  # a class can be a key; mypy takes it for its instances
    assert isinstance(module, Quantised)
    module.form = form
    module.register_buffer("values", values)
    module.register_buffer("scale_bits", scales.contiguous().view(torch.int16))
    module.register_buffer("like", torch.empty(0, dtype=weight.dtype, device=values.device), persistent=False)


@functools.cache
def _quantised(kind: type[nn.Module]) -> type[Any]:
    return type(f"Quantised{kind.__name__}", (QuantisedEmbedding if issubclass(kind, nn.Embedding) else Quantised, kind), {})


def _size(model: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
