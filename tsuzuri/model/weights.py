"""A model directory in Hugging Face's layout <-> a model.

In: config.json and safetensors, whole or in shards with an index; both are untrusted and checked (`safe.py`).
Out: the same. Which name means which weight is the family's business (`families/`); nothing here knows a tokenizer.
A quantised model has a `quantization_config` of the method "tsuzuri" and keeps our names, since only tsuzuri reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from tsuzuri.errors import ConfigError, FormatError, MissingError, Words
from tsuzuri.folder import find, names
from tsuzuri.model import safe
from tsuzuri.model.adapt import quantize
from tsuzuri.model.transformer import Transformer

FAMILIES = "tsuzuri.model.families"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # that one can compute in
METHOD = "quantization_config"
MAX_JSON_BYTES = 64 << 20  # an index of the largest public models is about 10 MB


def load(directory: Path, *, dtype: torch.dtype | None = None, device: str | torch.device = "cpu") -> Transformer:
    """The model of a directory, in `dtype` (None: as stored). Raises MissingError, FormatError and ConfigError."""
    config = read_json(directory / "config.json")
    if METHOD in config:
        return _load_quantised(directory, config, dtype, device)
    family = decoder(_model_type(config))
    shape = family.shape(config)
    stored = _stored(directory, family.names(shape))
    model = Transformer(shape, device="meta")
    _check_shapes(model, stored, directory)
    wanted = dtype or reduce(torch.promote_types, {value.dtype for value in stored.values()})  # of several, the one that holds all
    model.load_state_dict({name: value.to(device=device, dtype=wanted) for name, value in stored.items()}, assign=True)
    return model.requires_grad_(False)


def restore(model: Transformer, directory: Path, family: str) -> None:
    """Fill an existing model of the same shape with the weights of a directory (resuming a run)."""
    stored = _stored(directory, decoder(family).names(model.shape))
    _check_shapes(model, stored, directory)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(stored[name])


def save(model: Transformer, directory: Path, family: str = "llama", state: Mapping[str, Tensor] | None = None) -> None:
    """Write config.json and model.safetensors into an existing directory. `state`: weights gathered from shards."""
    if quantize.form_of(model) is not None:
        assert state is None, "a model that trains is not quantised"
        _save_quantised(model, directory, family)
        return
    module = decoder(family)
    config = module.config(model.shape)  # first: a shape that the family cannot say has no names either
    weights = dict(model.named_parameters()) if state is None else state
    tensors = {theirs: weights[ours].detach().contiguous().cpu() for ours, theirs in module.names(model.shape).items()}
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    config |= {"dtype": dtype, "torch_dtype": dtype}
    (directory / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    safe.write(directory / WEIGHTS, tensors, {"format": "pt"})


def family_of(directory: Path) -> ModuleType:
    """The family module of a model directory."""
    return find(FAMILIES, _model_type(read_json(directory / "config.json")))


def _model_type(config: Mapping[str, Any]) -> str:
    """The name of the family. Raises ConfigError where there is none."""
    if config.get("model_type") is None:
        known = names(FAMILIES)
        raise ConfigError(
            Words("config.json からモデルの系統を知ろうとしました。", "Looking for the model's family in config.json."),
            found=Words("model_type の項目がありません。", "The field model_type is missing."),
            todo=Words(
                f"config.json を入手し直すか、model_type を書き足してください（{'、'.join(known)} のどれか）。",
                f"Fetch config.json again, or add model_type: one of {', '.join(known)}.",
            ),
        )
    return str(config["model_type"])


def read_json(path: Path) -> dict[str, Any]:
    """An untrusted JSON object, bounded in size. Raises MissingError (not there, or not to be opened) and FormatError."""
    asked = Words(f"{path.name} を読もうとしました。", f"Reading {path.name}.")
    try:
        if not path.is_file():
            raise MissingError(
                asked,
                found=Words(f"{path.parent} にありません。", f"It is not in {path.parent}."),
                todo=Words("モデルのディレクトリを指定してください。", "Name a model directory."),
            )
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError("too large")
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("not an object")
    except OSError as error:
        raise MissingError(
            asked,
            found=Words(f"開けません（{error.strerror}）。", f"It cannot be opened ({error.strerror})."),
            todo=Words("パスと権限を確かめてください。", "Check the path and the permissions."),
        ) from error
    except (ValueError, RecursionError) as error:
        raise FormatError(
            asked,
            found=Words("JSON として読めません。", "It is not a JSON object that can be read."),
            todo=Words("ファイルを入手し直してください。", "Fetch the file again."),
        ) from error
    return value


def decoder(name: str) -> ModuleType:
    """A family that says how its weights are called. One that keeps no such table (counts, not layers) loads itself."""
    family = find(FAMILIES, name)
    if not hasattr(family, "names"):
        raise ConfigError(
            Words(f"{name} のモデルの重みを扱おうとしました。", f"Handling the weights of a model of the family {name}."),
            found=Words(
                "層を重ねたモデルではないので、この読み書きはできません。", "It has no layers; it is not read and written this way."
            ),
            todo=Words(
                f"層を重ねたモデルを指定するか、Python から tsuzuri.model.families.{name} で開いてください。",
                f"Name a model of layers, or open it from Python with tsuzuri.model.families.{name}.",
            ),
        )
    return family


def _stored(directory: Path, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Our name -> tensor, from one file or from the shards of an index. Every name must be there and no other."""
    found: dict[str, Tensor] = {}
    for file in _files(directory):
        part = safe.read(file)
        for name in set(part) & set(found):
            raise _mixed(directory, Words(f"重み {name} が二つのファイルにあります。", f"The weight {name} is in two files."))
        found.update(part)
    missing = sorted(set(names.values()) - set(found))
    extra = sorted(set(found) - set(names.values()))
    extra = [name for name in extra if not name.endswith("rotary_emb.inv_freq")]  # derived, in old checkpoints
    if "head.weight" not in names and _same(found, "lm_head.weight", names["embedding.weight"]):
        extra.remove("lm_head.weight")  # a copy of the tied embedding, in old checkpoints
    if missing or extra:
        some = "、".join((missing or extra)[:3])
        ja, en = ("足りない", "missing") if missing else ("知らない", "unknown")
        raise _mixed(directory, Words(f"{ja}重みがあります：{some}", f"Weights are {en}: {some}"))
    return {ours: found[theirs] for ours, theirs in names.items()}


def _same(found: Mapping[str, Tensor], one: str, other: str) -> bool:
    if one not in found or other not in found or found[one].dtype != found[other].dtype:
        return False
    return found[one].dtype in DTYPES and torch.equal(found[one], found[other])


def _files(directory: Path) -> list[Path]:
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if not (directory / INDEX).is_file():
        raise MissingError(
            Words(f"{directory.name} の重みを読もうとしました。", f"Reading the weights of {directory.name}."),
            found=Words(f"{WEIGHTS} も {INDEX} もありません。", f"There is neither {WEIGHTS} nor {INDEX}."),
            todo=Words("safetensors 形式のモデルを指定してください。", "Name a model in safetensors format."),
        )
    table = read_json(directory / INDEX).get("weight_map")
    files = sorted(set(table.values())) if isinstance(table, dict) and all(isinstance(v, str) for v in table.values()) else []
    if not files or any(Path(name).name != name or not name.endswith(".safetensors") for name in files):
        raise FormatError(
            Words(f"{INDEX} を読もうとしました。", f"Reading {INDEX}."),
            found=Words(
                "weight_map がないか、このディレクトリの外を指しています。", "weight_map is missing or points outside this directory."
            ),
            todo=Words("ファイルを入手し直してください。", "Fetch the file again."),
        )
    return [directory / name for name in files]


def _check_shapes(model: Transformer, stored: Mapping[str, Tensor], directory: Path) -> None:
    for name, weight in model.named_parameters():
        if stored[name].shape != weight.shape or stored[name].dtype not in DTYPES:
            text = f"{name}: {tuple(stored[name].shape)} {stored[name].dtype}, config.json: {tuple(weight.shape)}"
            found = Words(f"形が config.json と合いません（{text}）。", f"A shape differs from config.json ({text}).")
            raise _mixed(directory, found)


def _mixed(directory: Path, found: Words) -> FormatError:
    return FormatError(
        Words(f"{directory.name} の重みを読もうとしました。", f"Reading the weights of {directory.name}."),
        found=found,
        todo=Words("config.json と重みが同じモデルのものか確かめてください。", "Check that config.json and the weights belong together."),
    )


# ── quantised: for every matrix NAME.values (int8 (rows, K), or uint8 (rows, K/2) of nibbles) and NAME.scales (float16 (rows, K/32))


def _save_quantised(model: Transformer, directory: Path, family: str) -> None:
    config = decoder(family).config(model.shape)
    narrow = {name: module for name, module in model.named_modules() if isinstance(module, quantize.Quantised)}
    tensors = {name: weight.detach().contiguous().cpu() for name, weight in model.named_parameters()}
    for name, module in narrow.items():
        tensors |= {f"{name}.values": module.values.contiguous().cpu(), f"{name}.scales": module.scales.contiguous().cpu()}
    dtype = str(next(module.like.dtype for module in narrow.values())).removeprefix("torch.")
    method = {"quant_method": quantize.METHOD, "format": quantize.form_of(model), "group_size": quantize.GROUP}
    config |= {"dtype": dtype, "torch_dtype": dtype, METHOD: method}
    (directory / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    safe.write(directory / WEIGHTS, tensors, {"format": "pt"})


def _load_quantised(directory: Path, config: dict[str, Any], dtype: torch.dtype | None, device: str | torch.device) -> Transformer:
    """As it was saved: mapped into memory, nothing is quantised again."""
    form = quantize.described(config.pop(METHOD))
    model = Transformer(decoder(_model_type(config)).shape(config), device="meta")
    found = safe.read(directory / WEIGHTS)
    wide = [value.dtype for name, value in found.items() if not name.endswith((".values", ".scales"))]
    given = dtype or getattr(torch, str(config.get("dtype")), None) or reduce(torch.promote_types, wide, torch.bfloat16)
    wanted = given if given in DTYPES else torch.float32
    state: dict[str, Tensor] = {}
    for name, module in list(model.named_modules()):
        for own, weight in list(module._parameters.items()):
            if weight is None:
                continue
            place = f"{name}.{own}".removeprefix(".")
            values, scales = (found.pop(f"{name}.{part}", None) for part in (("values", "scales") if own == "weight" else ("", "")))
            if values is None or scales is None:
                state[place] = _plain(found, place, weight, directory).to(device=device, dtype=wanted)
                continue
            problem = quantize.problem(form, weight, values, scales)
            if problem:
                raise _mixed(directory, Words(f"{place} の量子化された値が合いません（{problem}）。", f"{place} does not fit ({problem})."))
            module._parameters[own] = torch.nn.Parameter(torch.empty_like(weight, dtype=wanted), requires_grad=False)
            quantize.become(module, form, values.to(device), scales.to(device))
            module.like = torch.empty(0, dtype=wanted, device=device)
            state |= {f"{name}.values": module.values, f"{name}.scale_bits": module.scale_bits}
    if found:
        raise _mixed(directory, Words(f"知らない重みがあります：{sorted(found)[0]}", f"Weights are unknown: {sorted(found)[0]}"))
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False)


def _plain(found: dict[str, Tensor], name: str, weight: Tensor, directory: Path) -> Tensor:
    """The stored tensor of a weight that is not quantised."""
    if name not in found:
        raise _mixed(directory, Words(f"足りない重みがあります：{name}", f"Weights are missing: {name}"))
    value = found.pop(name)
    if value.shape != weight.shape or value.dtype not in DTYPES:
        text = f"{name}: {tuple(value.shape)} {value.dtype}, config.json: {tuple(weight.shape)}"
        raise _mixed(directory, Words(f"形が config.json と合いません（{text}）。", f"A shape differs from config.json ({text})."))
    return value
