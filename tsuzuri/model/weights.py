"""A model directory in Hugging Face's layout <-> a model.

In: config.json and safetensors, whole or in shards with an index; both are untrusted and checked (`safe.py`).
Out: the same. Which name means which weight is the family's business (`families/`); nothing here knows a tokenizer.
A quantised model has a `quantization_config` of the method "tsuzuri" and keeps our names, since only tsuzuri reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from tsuzuri.errors import ConfigError, FormatError, MissingError, Words
from tsuzuri.folder import find, names
from tsuzuri.model import safe
from tsuzuri.model.adapt import quantize
from tsuzuri.model.families._packed import Packed
from tsuzuri.model.transformer import Transformer

FAMILIES = "tsuzuri.model.families"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # that one can compute in
METHOD = "quantization_config"
MAX_JSON_BYTES = 64 << 20  # an index of the largest public models is about 10 MB


def load(directory: Path, *, dtype: torch.dtype | None = None, device: str | torch.device = "cpu", quantised: bool = False) -> Any:
    """The model of a directory, in `dtype` (None: as stored). `quantised`: whether one is welcome whose matrices are narrow; it can be
    asked, but neither trained nor written in another form. Raises MissingError, FormatError and ConfigError."""
    config = read_json(directory / "config.json")
    if config.get(METHOD) is not None and quantised:
        return _load_quantised(directory, config, dtype, device)
    whole(config)
    family = find(FAMILIES, _model_type(config))
    if hasattr(family, "load"):
        return _loads_itself(family, directory, dtype)
    found = _found(directory, family)
    shape = family.shape(config)
    if hasattr(family, "fitted"):
        shape = family.fitted(shape, found)
    model = build(family, shape, device="meta")
    stored = _stored(directory, family, shape, found)
    _check_shapes(model, stored, directory)
    wanted = dtype or reduce(torch.promote_types, {value.dtype for value in stored.values()})  # of several, the one that holds all
    model.load_state_dict({name: value.to(device=device, dtype=wanted).contiguous() for name, value in stored.items()}, assign=True)
    return model.requires_grad_(False)


def whole(config: Mapping[str, Any]) -> None:
    """Raises ConfigError for the config.json of a quantised model: its matrices are no weights that one could go on from."""
    if config.get(METHOD) is not None:
        form = quantize.described(config[METHOD])
        raise ConfigError(
            Words("モデルの重みを扱おうとしました。", "Handling the weights of a model."),
            found=Words(
                f"{form} に量子化されていて、学習も、ほかの形への書き出しもできません。",
                f"It is quantised to {form}: it can neither be trained nor written in another form.",
            ),
            todo=Words("量子化する前のモデルを指定してください。", "Name the model before quantisation."),
        )


def _loads_itself(family: ModuleType, directory: Path, dtype: torch.dtype | None) -> Any:
    if dtype not in (None, torch.float32):
        raise ConfigError(
            Words(
                f"{family.MODEL_TYPE} のモデルを {dtype} で読もうとしました。",
                f"Loading a model of the family {family.MODEL_TYPE} in {dtype}.",
            ),
            found=Words("回数から計算するので、数値の型は選べません。", "It computes from counts; there is no number type to choose."),
            todo=Words("dtype の指定を外してください。", "Leave dtype out."),
        )
    return family.load(directory)


@dataclass(frozen=True, slots=True)
class Body:
    """A model under a head that its directory does not have."""

    model: Any
    new: tuple[str, ...]  # weights, by our names, that were drawn and have to be trained
    left: tuple[str, ...]  # weights of the directory, by its names, that this model has no use for


def load_body(directory: Path, *, seed: int = 1, **choices: Any) -> Body:
    """The model of a directory with another head (`head`, `labels` … of `Shape`), in float32, to be trained further. What the
    directory has of the new head in the same shape is taken; narrow matrices are multiplied out: training begins at the numbers they
    were rounded to. Raises as `load`, and FormatError where the body is incomplete."""
    config = read_json(directory / "config.json")
    family = decoder(_model_type(config))
    shape = replace(shape_of(directory), **choices)
    model = build(family, shape).initialise(seed)
    weights = dict(model.named_parameters())
    if config.get(METHOD) is None:
        stored, names, beside = _body(directory, family, shape)
    else:
        stored = quantize.widened(_load_quantised(directory, config, torch.float32, "cpu"))
        names, beside = {ours: ours for ours in stored}, set[str]()
    taken = {
        ours: value
        for ours, value in stored.items()
        if ours in weights and (not ours.startswith("head.") or value.shape == weights[ours].shape)
    }
    missing = sorted(ours for ours in weights if ours not in taken and not ours.startswith("head."))
    if missing:
        some = "、".join(missing[:3])
        raise _mixed(directory, Words(f"足りない重みがあります：{some}", f"Weights are missing: {some}"))
    for ours, value in taken.items():
        if value.shape != weights[ours].shape or value.dtype not in DTYPES:
            raise _mixed(directory, Words(f"形が config.json と合いません（{ours}）。", f"A shape differs from config.json ({ours})."))
    with torch.no_grad():
        for ours, value in taken.items():
            weights[ours].copy_(value)
    new = tuple(ours for ours in weights if ours not in taken)
    return Body(model, new, tuple(sorted(beside | {theirs for ours, theirs in names.items() if ours not in taken})))


def shape_of(directory: Path) -> Any:
    """The shape that a directory's config.json says, quantised or not."""
    config = read_json(directory / "config.json")
    return decoder(_model_type(config)).shape({name: value for name, value in config.items() if name != METHOD})


def _body(directory: Path, family: ModuleType, shape: Any) -> tuple[dict[str, Tensor], dict[str, str], set[str]]:
    """What a directory has of a model of another head: our name -> tensor, our name -> its name, and its names that mean nothing here."""
    prefix = getattr(family, "PREFIX", "")
    found = {name.removeprefix(prefix): (name, value) for name, value in _found(directory, family).items()}
    stored: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    for ours, theirs in family.names(shape).items():
        if theirs.removeprefix(prefix) in found:
            names[ours], stored[ours] = found.pop(theirs.removeprefix(prefix))
    for each in packed(family, shape):
        if each.theirs.removeprefix(prefix) in found:
            name, value = found.pop(each.theirs.removeprefix(prefix))
            stored |= zip(each.ours, _split(each, value, directory), strict=True)
            names |= dict.fromkeys(each.ours, name)
    return stored, names, {name for name, _ in found.values()}


def _derived(family: ModuleType) -> tuple[str, ...]:
    """Endings of names that are computed from the config, or repeat others."""
    found: tuple[str, ...] = getattr(family, "DERIVED", ("rotary_emb.inv_freq",))
    return found


def build(family: ModuleType, shape: Any, *, device: str | torch.device = "cpu") -> Any:
    """A model of that shape, its weights not yet filled: the family's own class, or the stack of `transformer.py`."""
    return getattr(family, "MODEL", Transformer)(shape, device=device)


def restore(model: Any, directory: Path, family: str) -> None:
    """Fill an existing model of the same shape with the weights of a directory (resuming a run)."""
    module = decoder(family)
    stored = _stored(directory, module, model.shape, _found(directory, module))
    _check_shapes(model, stored, directory)
    with torch.no_grad():
        own = dict(model.named_parameters())
        for name, value in stored.items():  # adapters, where there are any, are kept elsewhere
            own[name].copy_(value)


def save(model: Any, directory: Path, family: str = "llama", state: Mapping[str, Tensor] | None = None) -> None:
    """Write config.json and model.safetensors into an existing directory. `state`: weights gathered from shards."""
    module = find(FAMILIES, family)
    if hasattr(module, "load") and hasattr(model, "save"):
        model.save(directory)
        return
    decoder(family)
    if quantize.form_of(model) is not None:
        assert state is None, "a model that trains is not quantised"
        _save_quantised(model, directory, module)
        return
    config = module.config(model.shape)  # first: a shape that the family cannot say has no names either
    weights = dict(model.named_parameters()) if state is None else state
    tensors = {theirs: weights[ours] for ours, theirs in module.names(model.shape).items()}
    for each in packed(module, model.shape):
        tensors[each.theirs] = each.join([weights[name] for name in each.ours])
    tensors = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    config |= {"dtype": dtype, "torch_dtype": dtype}
    (directory / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    safe.write(directory / WEIGHTS, tensors, {"format": "pt"})


def family(name: str) -> ModuleType:
    """The module of a family. Raises ConfigError with the right names."""
    return find(FAMILIES, name)


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
    """A family that is trained. One of counts has no table of weights: it is fitted, and loads itself."""
    family = find(FAMILIES, name)
    if not hasattr(family, "names"):
        raise ConfigError(
            Words(f"{name} のモデルの重みを扱おうとしました。", f"Handling the weights of a model of the family {name}."),
            found=Words("数えて作るモデルなので、学習する重みがありません。", "It is made by counting and has no weights to train."),
            todo=Words("学習するモデルの系統を指定してください。", "Name a family that is trained."),
        )
    return family


def packed(family: ModuleType, shape: Any) -> list[Packed]:
    """The tensors of this family that hold several of ours, or one of ours turned."""
    found: list[Packed] = family.packed(shape) if hasattr(family, "packed") else []
    return found


def _stored(directory: Path, family: ModuleType, shape: Any, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our name -> tensor. Every name must be there and no other."""
    names, fused = family.names(shape), packed(family, shape)
    wanted = {*names.values(), *(each.theirs for each in fused)}
    found = _prefixed(found, wanted, getattr(family, "PREFIX", ""))
    found = family.otherwise(found, shape) if hasattr(family, "otherwise") else found
    missing = sorted(wanted - set(found))
    extra = [
        name for name in sorted(set(found) - wanted) if not name.endswith(_derived(family)) and not _copied(found, name, family, names)
    ]
    if missing or extra:
        some = "、".join((missing or extra)[:3])
        ja, en = ("足りない", "missing") if missing else ("知らない", "unknown")
        raise _mixed(directory, Words(f"{ja}重みがあります：{some}", f"Weights are {en}: {some}"))
    ours = {ours: found[theirs] for ours, theirs in names.items()}
    for each in fused:
        ours |= zip(each.ours, _split(each, found[each.theirs], directory), strict=True)
    return ours


def _found(directory: Path, family: ModuleType) -> dict[str, Tensor]:
    """Their name -> tensor, as stored; endings that the family calls otherwise today under today's name."""
    found: dict[str, Tensor] = {}
    for file in _files(directory):
        part = safe.read(file)
        for old, new in getattr(family, "OLD", {}).items():
            part = {name.removesuffix(old) + new if name.endswith(old) else name: value for name, value in part.items()}
        for name in set(part) & set(found):
            raise _mixed(directory, Words(f"重み {name} が二つのファイルにあります。", f"The weight {name} is in two files."))
        found.update(part)
    return found


def _split(each: Packed, value: Tensor, directory: Path) -> Sequence[Tensor]:
    try:
        parts = each.split(value)
        if len(parts) != len(each.ours):
            raise IndexError(len(parts))
        return parts
    except (RuntimeError, IndexError) as error:  # a shape that cannot be divided so
        text = f"{each.theirs}: {tuple(value.shape)}"
        raise _mixed(
            directory, Words(f"形が config.json と合いません（{text}）。", f"A shape differs from config.json ({text}).")
        ) from error


def _prefixed(found: dict[str, Tensor], wanted: set[str], prefix: str) -> dict[str, Tensor]:
    """The body of a model saved by itself lacks the prefix that it has inside a model with a head."""
    there, here = (any(name.startswith(prefix) for name in some) for some in (found, wanted))
    if not prefix or there == here:
        return found
    if there:
        return {name.removeprefix(prefix): value for name, value in found.items()}
    return {prefix + name if prefix + name in wanted or name not in wanted else name: value for name, value in found.items()}


def _copied(found: Mapping[str, Tensor], name: str, family: ModuleType, names: Mapping[str, str]) -> bool:
    """Whether it only repeats the embedding: a tied head, written out in old checkpoints."""
    heads = getattr(family, "TIED", ("lm_head.weight",))
    embedding = names.get("embedding.weight") or names.get("decoder.embedding.weight", "")
    return "head.weight" not in names and name in heads and _same(found, name, embedding)


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


def _check_shapes(model: nn.Module, stored: Mapping[str, Tensor], directory: Path) -> None:
    shapes = {name: weight.shape for name, weight in model.named_parameters()}
    for name, value in stored.items():
        if value.shape != shapes[name] or value.dtype not in DTYPES:
            text = f"{name}: {tuple(value.shape)} {value.dtype}, config.json: {tuple(shapes[name])}"
            found = Words(f"形が config.json と合いません（{text}）。", f"A shape differs from config.json ({text}).")
            raise _mixed(directory, found)


def _mixed(directory: Path, found: Words) -> FormatError:
    return FormatError(
        Words(f"{directory.name} の重みを読もうとしました。", f"Reading the weights of {directory.name}."),
        found=found,
        todo=Words("config.json と重みが同じモデルのものか確かめてください。", "Check that config.json and the weights belong together."),
    )


# ── quantised: for every matrix NAME.values (int8 (rows, K), or uint8 (rows, K/2) of nibbles) and NAME.scales (float16 (rows, K/32))


def _save_quantised(model: Any, directory: Path, family: ModuleType) -> None:
    config = family.config(model.shape)
    narrow = {name: module for name, module in model.named_modules() if isinstance(module, quantize.Quantised)}
    tensors = {name: weight.detach().contiguous().cpu() for name, weight in model.named_parameters()}
    for name, module in narrow.items():
        tensors |= {f"{name}.values": module.values.contiguous().cpu(), f"{name}.scales": module.scales.contiguous().cpu()}
    dtype = str(next(module.like.dtype for module in narrow.values())).removeprefix("torch.")
    method = {"quant_method": quantize.METHOD, "format": quantize.form_of(model), "group_size": quantize.GROUP}
    config |= {"dtype": dtype, "torch_dtype": dtype, METHOD: method}
    (directory / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    safe.write(directory / WEIGHTS, tensors, {"format": "pt"})


def _load_quantised(directory: Path, config: dict[str, Any], dtype: torch.dtype | None, device: str | torch.device) -> Any:
    """As it was saved: mapped into memory, nothing is quantised again."""
    form = quantize.described(config.pop(METHOD))
    family, found = decoder(_model_type(config)), safe.read(directory / WEIGHTS)
    shape = family.shape(config)
    if hasattr(family, "fitted"):  # it asks for their names
        there = {name.removesuffix(".values") + ".weight" * name.endswith(".values") for name in found}
        names = family.names(replace(shape, tie_word_embeddings=False))
        shape = family.fitted(shape, {theirs for ours, theirs in names.items() if ours in there})
    model = build(family, shape, device="meta")
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
            module._parameters[own] = torch.nn.Parameter(torch.empty(weight.shape, dtype=wanted, device="meta"), requires_grad=False)
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
