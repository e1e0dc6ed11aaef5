"""What a config.json says about its Mamba-2 layers <-> `StateSpace`: the same fields under the names of each family.

In: the fields of a config.json. Out: a `StateSpace`, and the names of a layer's weights. `time_step_limit` holds an infinity,
which JSON does not have: it comes as `Infinity`, as null or as {"__float__": "Infinity"}.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families._fields import Fields
from tsuzuri.model.parts.mamba2 import StateSpace
from tsuzuri.model.transformer import Shape

LIMIT = "time_step_limit"


@dataclass(frozen=True, slots=True)
class Called:
    """How a family calls each field, and what it is where the config.json does not say it."""

    num_heads: str
    head_dim: str
    expand: str
    state_size: str
    n_groups: str
    conv_kernel: str
    bias: str
    conv_bias: str
    usual: Mapping[str, Any]


MAMBA2 = Called(
    "num_heads", "head_dim", "expand", "state_size", "n_groups", "conv_kernel", "use_bias", "use_conv_bias",
    {"num_heads": 128, "state_size": 128, "n_groups": 8},
)  # fmt: skip
BAMBA = Called(
    "mamba_n_heads", "mamba_d_head", "mamba_expand", "mamba_d_state", "mamba_n_groups", "mamba_d_conv", "mamba_proj_bias",
    "mamba_conv_bias", {"num_heads": 128, "state_size": 256, "n_groups": 1},
)  # fmt: skip


def read(fields: Fields, hidden_size: int, called: Called) -> StateSpace:
    """Raises ConfigError naming the field."""
    heads, expand = fields.whole(called.num_heads, called.usual["num_heads"]), fields.whole(called.expand, 2)
    size = fields.optional(called.head_dim)
    if size not in (None, "auto") and size != expand * hidden_size / heads:
        text = f"{called.expand} × hidden_size / {called.num_heads}"
        raise fields.wrong(called.head_dim, Words(f"{size!r} ですが、{text} でなければなりません。", f"It is {size!r}; it must be {text}."))
    least, largest = _limit(fields)
    return StateSpace(
        expand=expand,
        num_heads=heads,
        state_size=fields.whole(called.state_size, called.usual["state_size"]),
        n_groups=fields.whole(called.n_groups, called.usual["n_groups"]),
        conv_kernel=fields.whole(called.conv_kernel, 4),
        conv_bias=fields.flag(called.conv_bias, True),
        bias=fields.flag(called.bias, False),
        least_step=least,
        largest_step=largest,
    )


def _limit(fields: Fields) -> tuple[float, float | None]:
    value = fields.optional(LIMIT)
    if value is None:
        return 0.0, None
    ends = [_number(each) for each in value] if isinstance(value, list | tuple) else []
    if len(ends) != 2 or any(math.isnan(each) for each in ends) or not 0 <= ends[0] < math.inf:
        raise fields.wrong(LIMIT, Words(f"{value!r} です。0 以上の数二つが要ります。", f"It is {value!r}; it takes two numbers from 0 on."))
    return ends[0], None if ends[1] == math.inf else ends[1]


def _number(value: Any) -> float:
    """NaN for what is no number."""
    if isinstance(value, Mapping) and set(value) == {"__float__"}:
        return math.inf if value["__float__"] == "Infinity" else math.nan
    if value is None:
        return math.inf
    return math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)


def write(shape: Shape, called: Called) -> dict[str, Any]:
    told = shape.state_space or StateSpace()
    heads, inner = told.heads(shape.hidden_size), told.expand * shape.hidden_size
    largest = {"__float__": "Infinity"} if told.largest_step is None else told.largest_step
    return {
        called.num_heads: heads,
        called.head_dim: inner // heads,
        called.expand: told.expand,
        called.state_size: told.state_size,
        called.n_groups: told.n_groups,
        called.conv_kernel: told.conv_kernel,
        called.bias: told.bias,
        called.conv_bias: told.conv_bias,
        LIMIT: [told.least_step, largest],
    }


def names(shape: Shape, ours: str, theirs: str) -> dict[str, str]:
    """Of one layer."""
    told = shape.state_space or StateSpace()
    table = {
        "input.weight": "in_proj.weight", "conv.weight": "conv1d.weight", "decay": "A_log", "step_bias": "dt_bias", "skip": "D",
        "norm": "norm.weight", "output.weight": "out_proj.weight",
    }  # fmt: skip
    if told.bias:
        table |= {"input.bias": "in_proj.bias", "output.bias": "out_proj.bias"}
    if told.conv_bias:
        table["conv.bias"] = "conv1d.bias"
    return {f"{ours}.{our}": f"{theirs}.{their}" for our, their in table.items()}
