"""safetensors files that may come from anywhere: the header is checked to the last byte before anything is allocated.

In: a path. Out: tensors. A file whose header and contents do not fit each other is a FormatError, never a crash and never
an allocation larger than the file. Format: 8 bytes length, JSON header, data (huggingface/safetensors, format.md).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import safetensors
import safetensors.torch
from torch import Tensor

from tsuzuri.errors import FormatError, MissingError, Words

MAX_HEADER = 100_000_000  # bytes, the format's own bound
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorInfo:
    dtype: str
    shape: tuple[int, ...]
    start: int  # of its bytes, from the end of the header
    stop: int


def header(path: Path) -> dict[str, TensorInfo]:
    """Name -> what the header says, checked: known dtypes, sizes that multiply out, data covered without gap or overlap."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(8)
            length = int.from_bytes(first, "little")
            if len(first) < 8 or length > min(MAX_HEADER, size - 8):
                _refuse(path, "header length")
            text = file.read(length)
    except (OSError, ValueError) as error:  # ValueError: no name that a file can have
        why = getattr(error, "strerror", None) or error
        raise MissingError(
            Words(f"{path.name} を読もうとしました。", f"Reading {path.name}."),
            found=Words(f"開けません（{why}）。", f"It cannot be opened ({why})."),
            todo=Words("パスと権限を確かめてください。", "Check the path and the permissions."),
        ) from error
    try:
        table = json.loads(text.decode("utf-8"), object_pairs_hook=_no_twice)
        if not isinstance(table, dict):
            raise ValueError("no object")
        _check_metadata(table.pop("__metadata__", {}))
        found = {name: _info(entry) for name, entry in table.items()}
    except (ValueError, KeyError, TypeError, RecursionError):
        _refuse(path, "header")
    _check_cover(path, found.values(), size - 8 - length)
    return found


def read(path: Path, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """The tensors (all, or those named), memory-mapped, after the header was checked."""
    known = header(path)
    wanted = list(known) if names is None else list(names)
    missing = [name for name in wanted if name not in known]
    if missing:
        _refuse(path, f"{missing[0]}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in wanted}
    except (safetensors.SafetensorError, ValueError) as error:
        raise _wrong(path, str(error)) from error


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Contiguous tensors, no two sharing memory, to a file. Raises OSError, as every other way of writing does."""
    try:
        safetensors.torch.save_file(dict(tensors), path, metadata=dict(metadata) if metadata else None)
    except safetensors.SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A name that stands twice would be read differently by different readers."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("twice")
    return found


def _check_metadata(value: Any) -> None:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ValueError("metadata")


def _info(entry: dict[str, Any]) -> TensorInfo:
    if set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError("keys")
    dtype, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
    numbers = [*shape, start, stop]
    if dtype not in BITS or not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers) or len(shape) > 64 or not isinstance(shape, list):
        raise ValueError("values")
    if stop - start != math.prod(shape) * BITS[dtype] // 8:
        raise ValueError("size")
    return TensorInfo(dtype, tuple(shape), start, stop)


def _check_cover(path: Path, found: Iterable[TensorInfo], size: int) -> None:
    end = 0
    for info in sorted(found, key=lambda info: (info.start, info.stop)):
        if info.start != end:
            _refuse(path, "offsets")
        end = info.stop
    if end != size:
        _refuse(path, "size")


def _refuse(path: Path, what: str) -> NoReturn:
    raise _wrong(path, what)


def _wrong(path: Path, what: str) -> FormatError:
    return FormatError(
        Words(f"{path.name} を safetensors として読もうとしました。", f"Reading {path.name} as safetensors."),
        found=Words(f"ヘッダと中身が合いません（{what}）。", f"Header and contents do not fit ({what})."),
        todo=Words("途中で切れたか壊れています。入手し直してください。", "It is cut off or damaged: fetch it again."),
    )
