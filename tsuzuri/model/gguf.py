"""GGUF files (ggml's format, version 3): what llama.cpp and its relatives load. The container alone: metadata and tensors.

In: a path that may come from anywhere; every length is checked against the file before anything is allocated.
Out: metadata and tensors, and back. Types: f32, f16, bf16, q8_0 and q4_0 in blocks of 32 numbers. Which name means which
weight of which architecture is in `gguf_models.py`. Layout: magic, version, counts, key-value pairs, tensor table, data.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsuzuri.errors import FormatError, MissingError, Words

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
BLOCK = 32  # numbers that share a scale
MAX_TENSORS, MAX_KEYS, MAX_TEXT, MAX_ITEMS = 1 << 16, 1 << 12, 1 << 24, 1 << 22
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
TEXT, ARRAY = 8, 9
TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8, "bf16": 30}  # ggml_type
FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "bf16": 32}  # general.file_type
SIZES = {"f32": (1, 4), "f16": (1, 2), "bf16": (1, 2), "q8_0": (BLOCK, 34), "q4_0": (BLOCK, 18)}  # numbers and bytes of a block
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of the table."""

    kind: str
    shape: tuple[int, ...]  # rows first, as torch says it; the file says it the other way round
    start: int  # of its bytes, in the file


class File:
    """An open GGUF file: `metadata`, `entries`, and `tensor(name)` in float32, read when asked for."""

    def __init__(self, path: Path) -> None:
        """Raises MissingError and FormatError."""
        self.path = path
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                reader = _Reader(file, size)
                self.metadata, self.entries = _header(reader)
            self._data: Bytes = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
        except OSError as error:
            raise MissingError(
                Words(f"{path.name} を読もうとしました。", f"Reading {path.name}."),
                found=Words(f"開けません（{error.strerror}）。", f"It cannot be opened ({error.strerror})."),
                todo=Words("パスと権限を確かめてください。", "Check the path and the permissions."),
            ) from error
        except (ValueError, UnicodeDecodeError, struct.error, OverflowError) as error:
            raise wrong(path, str(error)) from error

    def tensor(self, name: str) -> Tensor:
        """A tensor in float32. Raises FormatError where the file has none of that name."""
        if name not in self.entries:
            raise wrong(self.path, f"{name} is missing")
        entry = self.entries[name]
        raw = self._data[entry.start : entry.start + _length(entry.kind, entry.shape)]
        return torch.from_numpy(UNPACK[entry.kind](raw)).reshape(entry.shape)


def wrong(path: Path, what: str) -> FormatError:
    return FormatError(
        Words(f"{path.name} を GGUF として読もうとしました。", f"Reading {path.name} as GGUF."),
        found=Words(f"この形式のファイルとして読めません（{what}）。", f"It is not a file of this format that can be read ({what})."),
        todo=Words("途中で切れたか、壊れているか、対応していない型です。", "It is cut off, damaged, or of a type that is not supported."),
    )


class _Reader:
    """Reads forward, never past the end of the file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size

    def take(self, count: int) -> bytes:
        if count > self.size - self.file.tell():
            raise ValueError("it ends too early")
        return self.file.read(count)

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self) -> str:
        length = self.number("<Q")
        if length > MAX_TEXT:
            raise ValueError("a text is too long")
        return self.take(length).decode("utf-8")

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == TEXT:
            return self.text()
        if kind != ARRAY or depth > 2:
            raise ValueError(f"value type {kind}")
        inner, count = self.number("<I"), self.number("<Q")
        least = struct.calcsize(SCALARS[inner]) if inner in SCALARS else 8
        if count > MAX_ITEMS or count * least > self.size - self.file.tell():
            raise ValueError("an array is too long")
        if inner in SCALARS:
            return np.frombuffer(self.take(count * least), SCALARS[inner].replace("?", "B")).tolist()
        return [self.value(inner, depth + 1) for _ in range(count)]


def _header(reader: _Reader) -> tuple[dict[str, Any], dict[str, Entry]]:
    if reader.take(4) != MAGIC:
        raise ValueError("magic")
    version = reader.number("<I")
    if version not in (2, VERSION):
        raise ValueError(f"version {version}")
    tensors, keys = reader.number("<Q"), reader.number("<Q")
    if tensors > MAX_TENSORS or keys > MAX_KEYS:
        raise ValueError("counts")
    metadata: dict[str, Any] = {}
    for _ in range(keys):
        key = reader.text()
        if key in metadata:
            raise ValueError(f"{key} twice")
        metadata[key] = reader.value(reader.number("<I"))
    table = [_row(reader) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= 1 << 16 or alignment % 8:
        raise ValueError("alignment")
    return metadata, _placed(table, -(-reader.file.tell() // alignment) * alignment, alignment, reader.size)


def _row(reader: _Reader) -> tuple[str, str, tuple[int, ...], int]:
    name, dimensions = reader.text(), reader.number("<I")
    if dimensions > 4:
        raise ValueError(f"{name}: {dimensions} dimensions")
    shape = tuple(reader.number("<Q") for _ in range(dimensions))[::-1]
    number, offset = reader.number("<I"), reader.number("<Q")
    kind = next((kind for kind, value in TYPES.items() if value == number), None)
    if kind is None:
        raise ValueError(f"{name}: type {number}")
    return name, kind, shape, offset


def _placed(table: Sequence[tuple[str, str, tuple[int, ...], int]], base: int, alignment: int, size: int) -> dict[str, Entry]:
    """Every tensor lies in the file, whole, and no two of them share a byte."""
    found: dict[str, Entry] = {}
    end = base
    for name, kind, shape, offset in sorted(table, key=lambda row: row[3]):
        length = _length(kind, shape)
        start = base + offset
        if name in found or offset % alignment or start < end or start + length > size:
            raise ValueError(f"{name}: place")
        found[name], end = Entry(kind, shape, start), start + length
    return found


def _length(kind: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor. Rows are whole blocks."""
    block, width = SIZES[kind]
    if not shape or shape[-1] % block:
        raise ValueError("a row is not a multiple of the block")
    total = 1
    for side in shape:
        total *= side
    return total // block * width


# ── writing


def write(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, tuple[str, Tensor]]) -> None:
    """`tensors`: name -> (type, tensor). Whole numbers become uint32, lists of text and numbers arrays. Raises OSError."""
    for name, (kind, value) in tensors.items():
        assert value.shape[-1] % SIZES[kind][0] == 0, f"{name}: a row of {value.shape[-1]} has no whole blocks of {kind}"
    with path.open("wb") as file:
        file.write(MAGIC + struct.pack("<IQQ", VERSION, len(tensors), len(metadata)))
        for key, item in metadata.items():
            file.write(_text(key) + _value(item))
        offset = 0
        for name, (kind, value) in tensors.items():
            sides = tuple(value.shape)[::-1]
            file.write(_text(name) + struct.pack(f"<I{len(sides)}QIQ", len(sides), *sides, TYPES[kind], offset))
            offset = _aligned(offset + _length(kind, value.shape))
        for kind, value in tensors.values():
            file.write(b"\0" * (_aligned(file.tell()) - file.tell()))
            PACK[kind](value.detach().float().contiguous().cpu().numpy().reshape(-1)).tofile(file)


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _text(text: str) -> bytes:
    raw = text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def _value(item: Any) -> bytes:
    if isinstance(item, list):
        kind = {4: 5}.get(_kind(item[0]), _kind(item[0])) if item else TEXT  # whole numbers of an array are int32
        return struct.pack("<IIQ", ARRAY, kind, len(item)) + b"".join(_bare(kind, each) for each in item)
    kind = _kind(item)
    return struct.pack("<I", kind) + _bare(kind, item)


def _kind(item: Any) -> int:
    """bool, uint32, float32 or text"""
    return 7 if isinstance(item, bool) else 4 if isinstance(item, int) else 6 if isinstance(item, float) else TEXT


def _bare(kind: int, item: Any) -> bytes:
    return _text(item) if kind == TEXT else struct.pack(SCALARS[kind], item)


# ── numbers


def _pack_bf16(x: NDArray[np.float32]) -> Bytes:
    narrow: Bytes = torch.from_numpy(x).bfloat16().view(torch.uint8).numpy()
    return narrow


def _unpack_bf16(raw: Bytes) -> NDArray[np.float32]:
    wide: NDArray[np.float32] = torch.from_numpy(raw.copy()).view(torch.bfloat16).float().numpy()
    return wide


def _pack_q8(x: NDArray[np.float32]) -> Bytes:
    """Scale (f16) = largest |x| of a block / 127, then x / scale rounded, halves away from zero."""
    blocks = x.reshape(-1, BLOCK)
    scale = np.abs(blocks).max(1, keepdims=True) / np.float32(127)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
    rounded = np.trunc(blocks * inverse + np.copysign(np.float32(0.5), blocks)).astype(np.int8)
    return np.concatenate([scale.astype("<f2").view(np.uint8), rounded.view(np.uint8)], 1).reshape(-1)


def _unpack_q8(raw: Bytes) -> NDArray[np.float32]:
    blocks = raw.reshape(-1, 34)
    scale = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    return scale * np.ascontiguousarray(blocks[:, 2:]).view(np.int8).astype(np.float32)


def _pack_q4(x: NDArray[np.float32]) -> Bytes:
    """Scale (f16) = the number of largest size of a block / −8, then 0 … 15 for −8 … 7; numbers i and i + 16 share a byte."""
    blocks = x.reshape(-1, BLOCK)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)
    scale = largest / np.float32(-8)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    rounded = np.minimum(15, np.trunc(blocks * inverse + np.float32(8.5))).astype(np.uint8)
    return np.concatenate([scale.astype("<f2").view(np.uint8), rounded[:, :16] | rounded[:, 16:] << 4], 1).reshape(-1)


def _unpack_q4(raw: Bytes) -> NDArray[np.float32]:
    blocks = raw.reshape(-1, 18)
    scale = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    both = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], 1)
    return scale * (both.astype(np.float32) - 8)


PACK: dict[str, Callable[[NDArray[np.float32]], Any]] = {
    "f32": lambda x: x.astype("<f4"),
    "f16": lambda x: x.astype("<f2"),
    "bf16": _pack_bf16,
    "q8_0": _pack_q8,
    "q4_0": _pack_q4,
}
UNPACK: dict[str, Callable[[Bytes], NDArray[np.float32]]] = {
    "f32": lambda raw: raw.copy().view("<f4"),
    "f16": lambda raw: raw.copy().view("<f2").astype(np.float32),
    "bf16": _unpack_bf16,
    "q8_0": _unpack_q8,
    "q4_0": _unpack_q4,
}
