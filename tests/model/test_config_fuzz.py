"""A config.json may come from anywhere: whatever stands in it, it is a shape or an error of ours, and costs no memory.

Every family, by itself: a valid config with one to three of its fields missing, of another kind, negative, huge or renamed.
"""

from __future__ import annotations

import dataclasses
import json
import random
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tsuzuri.errors import ConfigError, FormatError, TsuzuriError
from tsuzuri.folder import find, names
from tsuzuri.model import weights
from tsuzuri.model.families.ngram import NgramModel
from tsuzuri.model.transformer import Shape

FAMILIES = names(weights.FAMILIES)
MOST = 1 << 20  # bytes of any tensor that is not on "meta"; a table of a few constants is no harm
GROWN = 64 << 20  # bytes of the whole process, over all changes to one family
ROUNDS, BUILT = 100, 10  # configs of a family; of those that are a shape so many are built, which takes the longest
WRONG: list[Any] = [
    None, True, False, "", "x", "gelu", [], {}, [1], ["full_attention"], {"rope_type": "yarn"}, {"a": [None]}, 0, 1, 2, 3, 7, -1, -(10**30),
    0.0, 0.5, -1.5, 1e-300, 1e300, float("nan"), float("inf"), float("-inf"), 1 << 16, (1 << 24) - 1, 1 << 24, (1 << 31) - 1, 1 << 31,
    1 << 63, 10**400, "9" * 5000, "\ud800", "../x", [[[]]], {"": {}}, [0.5] * 9, list(range(40)),
]  # fmt: skip


class Largest(TorchDispatchMode):
    """Watches every tensor that is made: the most bytes of one that is really there."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else (found,):
            if isinstance(each, torch.Tensor) and each.device.type != "meta":
                self.bytes = max(self.bytes, each.untyped_storage().nbytes())
        return found


def valid(family: Any) -> dict[str, Any]:
    """The config.json of a small model, as it is read from a file."""
    kind = getattr(family, "SHAPE", Shape)
    small = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    small |= {"max_position_embeddings": 32, "norm_eps": 1e-4}
    known = {field.name for field in dataclasses.fields(kind)}
    shape = kind(**{name: value for name, value in {**small, **family.USUAL}.items() if name in known})
    found: dict[str, Any] = json.loads(json.dumps(family.config(shape)))
    return found


def changed(config: Mapping[str, Any], choose: random.Random) -> dict[str, Any]:
    """One to three changes, one in four of them inside a value."""
    found = json.loads(json.dumps(config))
    for _ in range(choose.randint(1, 3)):
        inner = [value for value in found.values() if isinstance(value, dict) and value]
        place = choose.choice(inner) if inner and choose.random() < 0.25 else found
        name = choose.choice(sorted(place)) if place else "a"
        match choose.randrange(8):
            case 0:
                place.pop(name, None)
            case 1:
                place[f"{name}_"] = place.pop(name, 1)
            case 2 if isinstance(place.get(name), int | float) and place[name] < 1e9:
                place[name] = choose.choice([-1, 2, 3, 0.5, 1 << 20]) * place[name]
            case _:
                place[name] = choose.choice(WRONG)
    return found


@pytest.mark.parametrize("name", [name for name in FAMILIES if hasattr(find(weights.FAMILIES, name), "shape")])
def test_any_config_is_a_model_that_takes_no_memory_or_an_error_of_ours(name: str) -> None:
    family, choose = find(weights.FAMILIES, name), random.Random(f"{name} 1")
    start, taken = valid(family), 0
    with Largest():  # what is only loaded at the first use of "meta" is no cost of a config
        weights.build(family, family.shape(start), device="meta")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Largest() as seen:
        for _ in range(ROUNDS):
            config = changed(start, choose)
            try:
                shape = family.shape(config)
                if taken < BUILT and getattr(shape, "num_hidden_layers", 1) <= 8:
                    model = weights.build(family, shape, device="meta")
                    weights.packed(family, shape)
                    assert {*family.names(shape)} <= {weight for weight, _ in model.named_parameters()}
                taken += 1
            except (ConfigError, FormatError):
                continue
            except Exception as error:
                raise AssertionError(f"{ascii(config)[:2000]}") from error
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert seen.bytes <= MOST and grown <= GROWN
    assert 0 < taken < ROUNDS


def test_any_config_of_a_model_of_counts_is_that_model_or_an_error_of_ours(tmp_path: Path) -> None:
    NgramModel.fit([numpy.array([1, 2, 3, 1, 2])], 5, 2).save(tmp_path)
    path, choose = tmp_path / "config.json", random.Random(1)
    start, refused = json.loads(path.read_text(encoding="utf-8")), 0
    for _ in range(ROUNDS):
        path.write_text(json.dumps(changed(start, choose)), encoding="utf-8")
        try:
            NgramModel.load(tmp_path)
        except TsuzuriError:
            refused += 1
    assert refused > ROUNDS / 2
    path.write_text(json.dumps(start), encoding="utf-8")
    assert NgramModel.load(tmp_path).order == 2


def test_every_family_is_tried() -> None:
    assert {name for name in FAMILIES if not hasattr(find(weights.FAMILIES, name), "shape")} == {"ngram"}
