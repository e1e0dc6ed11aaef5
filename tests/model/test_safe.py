"""safetensors from anywhere: what fits is read as others read it, everything else is a FormatError and costs no memory."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tsuzuri.errors import FormatError, MissingError
from tsuzuri.model import safe

DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32,
    torch.float64, torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint32, torch.uint64,
]  # fmt: skip
SHAPES = [(), (0,), (3,), (2, 3), (2, 0, 5), (1, 1, 1, 7)]


def tensors() -> dict[str, Tensor]:
    """Every dtype and every kind of shape; bytes are compared, so any bytes will do."""
    generator = torch.Generator().manual_seed(1)
    found = {}
    for number, dtype in enumerate(DTYPES):
        for shape in SHAPES:
            size = math.prod(shape) * dtype.itemsize
            data = torch.randint(2 if dtype == torch.bool else 256, (size,), dtype=torch.uint8, generator=generator)
            found[f"層.{number}.{shape}"] = (data.view(dtype) if size else torch.empty(0, dtype=dtype)).reshape(shape)
    return found


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    def raw(value: Tensor) -> tuple[torch.dtype, torch.Size, bytes]:
        return value.dtype, value.shape, value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()

    return set(one) == set(other) and all(raw(one[name]) == raw(other[name]) for name in one)


@pytest.mark.parametrize("metadata", [None, {"format": "pt", "題": "綴り"}])
def test_files_of_others_are_read_and_ours_are_read_by_others(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    ours, theirs, values = tmp_path / "ours", tmp_path / "theirs", tensors()
    safe.write(ours, values, metadata)
    safetensors.torch.save_file(values, theirs, metadata=metadata)
    assert same(safe.read(theirs), values)
    assert same(safetensors.torch.load_file(ours), values)
    assert same(safe.read(ours), values)
    assert safe.read(ours, ["層.8.(3,)"])["層.8.(3,)"].dtype == torch.float32


def test_an_empty_file_of_no_tensors_is_a_file(tmp_path: Path) -> None:
    safe.write(tmp_path / "a", {})
    assert safe.read(tmp_path / "a") == {}


def test_a_name_that_is_not_there_is_named(tmp_path: Path) -> None:
    safe.write(tmp_path / "a", {"x": torch.zeros(2)})
    with pytest.raises(FormatError, match="層"):
        safe.read(tmp_path / "a", ["x", "層"])


def test_what_cannot_be_opened_is_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(MissingError):
            safe.header(path)


# ── headers that lie


def entry(dtype: Any = "F32", shape: Any = (2, 3), offsets: Any = (0, 24)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def packed(header: str | bytes | dict[str, Any], data: bytes = bytes(24), length: int | None = None) -> bytes:
    """A file with this header; `length` is what it says of itself."""
    text = json.dumps(header).encode() if isinstance(header, dict) else header.encode() if isinstance(header, str) else header
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def test_the_file_that_the_liars_start_from_is_good(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(packed({"a": entry()}))
    assert safe.read(tmp_path / "a")["a"].shape == (2, 3)


TWICE = '{"a": ' + json.dumps(entry()) + ', "a": ' + json.dumps(entry()) + "}"
LIARS = {
    "nothing": b"",
    "seven bytes": bytes(7),
    "length 0": packed("", b""),
    "length 2**60": packed({"a": entry()}, length=2**60),
    "length 2**64 - 1": packed({"a": entry()}, length=2**64 - 1),
    "length of the format's bound": packed({"a": entry()}, length=safe.MAX_HEADER),
    "length one too many": packed({"a": entry()}, b"", length=len(json.dumps({"a": entry()})) + 1),
    "no JSON": packed("{"),
    "no object": packed("[]", b""),
    "a number": packed("3", b""),
    "no UTF-8": packed(b'{"\xff": 1}', b""),
    "deep": packed("[" * 100_000, b""),
    "a long number": packed('{"a": ' + "9" * 10_000 + "}", b""),
    "not a number": packed('{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 24]}}'),
    "names twice": packed(TWICE),
    "keys twice": packed('{"a": {"dtype": "F32", "dtype": "I32", "shape": [2, 3], "data_offsets": [0, 24]}}'),
    "entry is a list": packed({"a": [1, 2]}),
    "a key too few": packed({"a": {"dtype": "F32", "shape": [6]}}),
    "a key too many": packed({"a": {**entry(), "x": 1}}),
    "unknown dtype": packed({"a": entry("F33")}),
    "dtype is a list": packed({"a": entry(["F32"])}),
    "dtype is null": packed({"a": entry(None)}),
    "negative": packed({"a": entry(shape=(-2, -3))}),
    "a fraction": packed({"a": entry(shape=(2.0, 3))}),
    "a boolean": packed({"a": entry(shape=(True, 6))}),
    "shape is a text": packed({"a": entry(shape="", offsets=(0, 4))}, bytes(4)),
    "shape is an object": packed({"a": entry(shape={}, offsets=(0, 4))}, bytes(4)),
    "shape does not multiply out": packed({"a": entry(shape=(2, 4))}),
    "2**64 elements are none": packed({"a": entry(shape=(2**32, 2**32), offsets=(0, 0))}, b""),
    "2**70 bytes": packed({"a": entry("F64", shape=(2**35, 2**35), offsets=(0, 2**73))}),
    "many sides": packed({"a": entry(shape=(1,) * 65, offsets=(0, 4))}, bytes(4)),
    "offsets backwards": packed({"a": entry(offsets=(24, 0))}),
    "one offset": packed({"a": entry(offsets=(24,))}),
    "offsets past the end": packed({"a": entry(offsets=(24, 48))}),
    "overlap": packed({"a": entry(), "b": entry(offsets=(8, 32))}, bytes(32)),
    "the same bytes twice": packed({"a": entry(), "b": entry()}),
    "a gap": packed({"a": entry(), "b": entry(offsets=(28, 52))}, bytes(52)),
    "a gap before": packed({"a": entry(offsets=(4, 28))}, bytes(28)),
    "data left over": packed({"a": entry()}, bytes(25)),
    "data cut": packed({"a": entry()}, bytes(23)),
    "metadata is a list": packed({"__metadata__": [], "a": entry()}),
    "metadata of numbers": packed({"__metadata__": {"a": 1}, "a": entry()}),
}


@pytest.mark.parametrize("name", LIARS)
def test_a_header_that_lies_is_refused_before_anything_is_allocated(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(LIARS[name])
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=r"a\.safetensors"):
            safe.header(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 500_000 + 20 * len(LIARS[name])
    with pytest.raises(FormatError):
        safe.read(path)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One path for every draw."""
    return tmp_path_factory.mktemp("safe") / "a.safetensors"


def read_or_refuse(path: Path, data: bytes) -> dict[str, Tensor] | None:
    """The tensors, never more than the file holds; None where it was refused."""
    path.unlink(missing_ok=True)  # a tensor of an earlier draw may still be mapped
    path.write_bytes(data)
    try:
        found = safe.read(path)
    except FormatError:
        return None
    assert sum(value.nbytes for value in found.values()) <= len(data)
    assert same(found, safetensors.torch.load(data))
    return found


GOOD = safetensors.torch.save({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.int8), "c": torch.zeros(0)}, {"x": "y"})
cuts = st.tuples(st.integers(0, len(GOOD)), st.integers(0, 12), st.binary(max_size=12))


@settings(max_examples=300, deadline=None)
@given(st.lists(cuts, min_size=1, max_size=4))
@example([(0, 0, b"")])
def test_any_bytes_are_read_or_refused(file: Path, changes: list[tuple[int, int, bytes]]) -> None:
    """Pieces of a good file are cut out, overwritten or put in."""
    data = GOOD
    for start, length, put in changes:
        data = data[:start] + put + data[start + length :]
    found = read_or_refuse(file, data)
    assert found or data != GOOD


def test_every_truncation_is_refused(file: Path) -> None:
    assert all(read_or_refuse(file, GOOD[:size]) is None for size in range(len(GOOD)))


numbers = st.integers(-1, 9) | st.sampled_from([2**31, 2**32, 2**61, 2**62, 2**63, 2**64, 10**30, 1.5, True, None, "3"])
dtypes = st.sampled_from([*safe.BITS, "F33", "", None, 3])
entries = st.fixed_dictionaries({"dtype": dtypes, "shape": st.lists(numbers, max_size=4), "data_offsets": st.lists(numbers, max_size=3)})
headers = st.dictionaries(st.sampled_from(["a", "b", "\ud800", "", "__metadata__"]), entries | numbers | st.just({}), max_size=3)


@settings(max_examples=300, deadline=None)
@given(headers, st.binary(max_size=40), st.none() | st.integers(0, 2**64 - 1))
@example({"a": entry("U8", [3], [0, 3])}, b"abc", None)
def test_any_header_is_read_or_refused(file: Path, header: dict[str, Any], data: bytes, length: int | None) -> None:
    read_or_refuse(file, packed(header, data, length))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(safe.BITS)), st.lists(st.integers(0, 4), max_size=3)), max_size=4))
def test_every_header_that_tells_the_truth_is_read(file: Path, wanted: list[tuple[str, list[int]]]) -> None:
    header, end = {}, 0
    for number, (dtype, shape) in enumerate(wanted):
        size = math.prod(shape) * safe.BITS[dtype] // 8
        header[str(number)] = entry(dtype, shape, (end, end + size))
        end += size
    found = read_or_refuse(file, packed(header, bytes(end)))
    assert found is not None
    assert [tuple(value.shape) for _, value in sorted(found.items())] == [tuple(shape) for _, shape in wanted]
