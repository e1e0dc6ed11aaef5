"""What a config.json says about rotary positions <-> `rope_theta` and `Scaling`, as version 4 (`rope_theta`, `rope_scaling`)
and version 5 (`rope_parameters`) of transformers write it.

In: the fields of a config.json. Out: theta, the scaling, the share of a head that turns. A key that no kind of scaling uses is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from tsuzuri.config import dump
from tsuzuri.errors import ConfigError, Words
from tsuzuri.model.families._fields import Fields
from tsuzuri.model.parts.rotary import Scaling
from tsuzuri.model.transformer import Shape

NEEDS = {
    "linear": {"factor"},
    "dynamic": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
    "yarn": {"factor", "original_max_position_embeddings"},
    "longrope": {"short_factor", "long_factor", "original_max_position_embeddings"},
}
MAY = {
    "dynamic": {"original_max_position_embeddings"},
    "yarn": {"beta_fast", "beta_slow", "truncate", "attention_factor", "mscale", "mscale_all_dim"},
    "longrope": {"factor", "attention_factor"},
}
OLD = {"su": "longrope"}  # earlier names


class Rotary(NamedTuple):
    theta: float
    scaling: Scaling | None
    share: float  # partial_rotary_factor


def read(fields: Fields, longest: int, *, theta: float = 10000.0, share: float = 1.0) -> Rotary:
    """Defaults are those of the family. `longest`: max_position_embeddings. Raises ConfigError naming the field."""
    theta = fields.number("rope_theta", theta)
    share = fields.number("partial_rotary_factor", share)
    found: dict[str, Any] = {}
    for name in ("rope_scaling", "rope_parameters"):
        value = fields.optional(name)
        if value is None:
            continue
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise _wrong(fields, value)
        found |= value
    return of(fields, found, longest, theta=theta, share=share)


def of(fields: Fields, found: Mapping[str, Any], longest: int, *, theta: float, share: float) -> Rotary:
    """One mapping of `rope_parameters`."""
    inner = Fields({**found, "model_type": fields.config.get("model_type")})
    theta, share = inner.number("rope_theta", theta), inner.number("partial_rotary_factor", share)
    given = {key: value for key, value in found.items() if key not in ("rope_theta", "partial_rotary_factor", "type", "rope_type")}
    kind = found.get("rope_type", found.get("type", "default"))
    kind = OLD.get(kind, kind) if isinstance(kind, str) else kind
    if kind in ("default", None) and not given:
        return Rotary(theta, None, share)
    if not isinstance(kind, str) or kind not in NEEDS:
        raise _wrong(fields, dict(found))
    values = {key: value for key, value in given.items() if value is not None}
    unknown, missing = set(values) - NEEDS[kind] - MAY.get(kind, set()), NEEDS[kind] - set(values)
    if kind == "yarn" and missing == {"factor"}:
        values["factor"], missing = longest / inner.whole("original_max_position_embeddings"), set()
    if unknown or missing:
        raise _wrong(fields, dict(found))
    try:
        return Rotary(theta, _scaling(kind, values, longest), share)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise _wrong(fields, dict(found)) from error


def _scaling(kind: str, values: dict[str, Any], longest: int) -> Scaling:
    for key in ("factor", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim"):
        if key in values and (isinstance(values[key], bool) or not 0 < float(values[key]) < math.inf):
            raise ValueError(key)
    original = values.pop("original_max_position_embeddings", longest)
    if type(original) is not int or original < 2:
        raise ValueError("original_max_position_embeddings")
    if kind == "dynamic":
        original = longest  # what transformers computes with, whatever else stands there
    mscale, mscale_all = values.pop("mscale", None), values.pop("mscale_all_dim", None)
    factor = float(values.pop("factor", longest / original))
    if kind == "llama3" and not values["low_freq_factor"] < values["high_freq_factor"]:
        raise ValueError("high_freq_factor")
    if kind == "longrope":
        for key in ("short_factor", "long_factor"):
            values[key] = tuple(float(each) for each in values[key])
            if not all(0 < each < math.inf for each in values[key]):
                raise ValueError(key)
    if kind in ("yarn", "longrope") and values.get("attention_factor") is None:
        values["attention_factor"] = _longer(kind, factor, original, mscale, mscale_all)
    known = None if kind == "linear" else original
    return Scaling(rope_type=kind, factor=factor, original_max_position_embeddings=known, **values)  # type: ignore[arg-type]


def _longer(kind: str, factor: float, original: int, mscale: float | None, mscale_all: float | None) -> float:
    """How much longer queries and keys become, where the config does not say it."""
    if factor <= 1:
        return 1.0
    if kind == "longrope":
        return math.sqrt(1 + math.log(factor) / math.log(original))
    if mscale and mscale_all:
        return (0.1 * mscale * math.log(factor) + 1) / (0.1 * mscale_all * math.log(factor) + 1)
    return 0.1 * math.log(factor) + 1


def write(shape: Shape) -> dict[str, Any]:
    """`rope_theta` and `rope_parameters`, so that version 4 and version 5 read the same."""
    scaling = {key: value for key, value in dump(shape.rope_scaling).items() if value is not None} if shape.rope_scaling else {}
    if shape.rope_scaling and shape.rope_scaling.rope_type == "dynamic":
        del scaling["original_max_position_embeddings"]  # it is max_position_embeddings
    parameters = {"rope_type": "default", **scaling, "rope_theta": shape.rope_theta}
    if shape.partial_rotary_factor != 1:
        parameters["partial_rotary_factor"] = shape.partial_rotary_factor
    return {"rope_theta": shape.rope_theta, "rope_parameters": parameters} | ({"rope_scaling": scaling} if scaling else {})


def _wrong(fields: Fields, value: object) -> ConfigError:
    return fields.wrong(
        "rope_scaling",
        Words(f"{value!r} です。この rope_scaling には対応していません。", f"It is {value!r}; this scaling cannot be computed."),
    )
