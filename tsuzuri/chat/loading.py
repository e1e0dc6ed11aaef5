"""A model directory opened: its weights in the form asked for, its tokenizer and template, and an engine over them.

In: a directory, and how its weights are to be computed. Out: `Opened`, for `local.py` to ask. It asks the model nothing.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tsuzuri import device as devices
from tsuzuri.chat import labels, template
from tsuzuri.engine.constrain import Vocabulary
from tsuzuri.engine.engine import LocalEngine
from tsuzuri.errors import ConfigError, FormatError, MissingError, Words, why
from tsuzuri.model import compiled, weights
from tsuzuri.model.adapt import quantize as quantisation
from tsuzuri.text import fast

BOUNDARY = "<|endoftext|>"
ENDS = (template.END, BOUNDARY)  # end an answer, where the directory does not say what does


@dataclass(frozen=True, slots=True)
class Opened:
    """What a directory holds, ready to be asked."""

    name: str
    model: Any
    engine: LocalEngine  # of the model, or of what it was compiled to
    tokenizer: fast.FastTokenizer
    template: template.Template
    source_end: list[int]  # of what an encoder-decoder reads


def opened(directory: str | Path, *, dtype: str | None, quantize: str | None, threads: int | None, device: str, lookup: int) -> Opened:
    """As `local.load` says. Raises MissingError, FormatError and ConfigError."""
    path = _existing(Path(directory))
    if threads is not None:
        devices.threads(_count(threads))
    place = devices.choose(device)
    model = weights.load(path, dtype=None if dtype is None else devices.dtype(dtype, place), device=place, quantised=True)
    if labels.is_encoder(model):
        raise _encoder(path.name)
    if quantize is not None:
        _quantised(model, quantize)
    native = compiled.made(model, torch.get_num_threads()) if place.type == "cpu" else None
    stored = list(model.parameters())  # none of a model of counts
    if dtype is None and stored:
        model.to(devices.fit(stored[0].dtype, place))
    tokenizer, context = fast.load(path), model.context_length
    vocabulary = Vocabulary(tokenizer.token_bytes, tokenizer.vocab_size, frozenset(tokenizer.special.values()))
    ends = _eos_ids(path, tokenizer)
    engine = LocalEngine(native or model, ends, context, place, vocabulary=vocabulary, lookup=lookup)
    if tokenizer.vocab_size > model.vocab_size:
        raise _larger(path.name, tokenizer.vocab_size, model.vocab_size)
    return Opened(path.resolve().name, model, engine, tokenizer, template.load(path), source_end(path) if engine.reads_source else [])


def _encoder(name: str) -> ConfigError:
    return ConfigError(
        Words(f"モデル {name} に文章を書かせようとしました。", f"Having the model {name} write text."),
        found=Words("文章を読むためのエンコーダで、続きは書けません。", "It is an encoder, which reads texts and cannot continue them."),
        todo=Words(
            "tsuzuri label を使うか、Python からは tsuzuri.load_encoder で開いてください。",
            "Use tsuzuri label, or open it from Python with tsuzuri.load_encoder.",
        ),
    )


def _existing(path: Path) -> Path:
    asked = Words(f"モデル {path} を読もうとしました。", f"Loading the model {path}.")
    try:
        there = path.is_dir()
    except OSError as error:
        raise MissingError(
            asked,
            found=Words(f"開けません（{why(error).ja}）。", f"It cannot be opened ({why(error).en})."),
            todo=Words("パスと権限を確かめてください。", "Check the path and the permissions."),
        ) from error
    if not there:
        raise MissingError(
            asked,
            found=Words("そのディレクトリはありません。", "There is no such directory."),
            todo=Words(
                "make tiny で作るか、モデルのディレクトリを指定してください。", "Make one with make tiny, or name a model directory."
            ),
        )
    return path


def _eos_ids(directory: Path, tokenizer: fast.FastTokenizer) -> set[int]:
    """What ends a text: `eos_token_id` of generation_config.json and config.json, and the ends that we know."""
    found = {tokenizer.special[name] for name in ENDS if name in tokenizer.special}
    for name in ("generation_config.json", "config.json"):
        value = weights.read_json(directory / name).get("eos_token_id") if (directory / name).is_file() else None
        found |= {id for id in (value if isinstance(value, list) else [value]) if isinstance(id, int)}
    return found


def source_end(directory: Path) -> list[int]:
    """What ends the source of an encoder-decoder: the first `eos_token_id`, as its tokenizer would add it."""
    for name in ("generation_config.json", "config.json"):
        value = weights.read_json(directory / name).get("eos_token_id") if (directory / name).is_file() else None
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, int) and not isinstance(first, bool):
            return [first]
    return []


def _quantised(model: torch.nn.Module, form: str) -> None:
    """Raises ConfigError for a model that is quantised otherwise already: a second rounding would be a third model."""
    stored = quantisation.form_of(model)
    if stored == form:
        return
    if stored is not None:
        raise ConfigError(
            Words(f"モデルを {form} に量子化しようとしました。", f"Quantising the model to {form}."),
            found=Words(f"すでに {stored} に量子化されています。", f"It is quantised to {stored} already."),
            todo=Words(
                "量子化していないモデルを使うか、quantize を外してください。", "Use the model before quantisation, or leave quantize out."
            ),
        )
    quantisation.quantize(model, form)


def whole_number(value: Any) -> int | None:
    """A whole number of any library; None for what only looks like one: nothing is rounded."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def _count(threads: object) -> int:
    found = whole_number(threads)
    if found is None:
        shown = repr(threads)[:40]
        raise ConfigError(
            Words(f"スレッド数に {shown} が指定されました。", f"threads was given {shown}."),
            found=Words("整数ではありません。", "It is no whole number."),
            todo=Words("threads を直してください。", "Correct threads."),
        )
    return found


def _larger(name: str, said: int, known: int) -> FormatError:
    return FormatError(
        Words(f"モデル {name} を読もうとしました。", f"Loading the model {name}."),
        found=Words(
            f"トークナイザの語彙 {said} がモデルの {known} より大きいです。", f"The tokenizer has {said} tokens, the model {known}."
        ),
        todo=Words("同じモデルのファイルを揃えてください。", "Put files of the same model together."),
    )
