"""The shared library: found or not, and which of its variants computes.

In: `libtsuzuri.so` beside this file, and the environment variable TSUZURI_NATIVE: off, or the name of a variant (scalar, avx2,
avx512, avx512vnni, neon); without it the widest that this processor can run. Out: `load()`, a `Library` or the
reason why there is none. It computes nothing: `program.py` does.
"""

from __future__ import annotations

import ctypes
import functools
import os
from ctypes import POINTER, c_char_p, c_float, c_int32, c_int64, c_void_p
from typing import NamedTuple

from tsuzuri.errors import ConfigError, Words
from tsuzuri.folder import suggestion
from tsuzuri.native import build

VARIABLE = "TSUZURI_NATIVE"
OFF = "off"
OLD = Words("古いものが残っています。導入し直してください。", "It is of an older version: install again.")
VARIANTS = ("scalar", "avx2", "avx512", "avx512vnni", "neon")


class Operation(ctypes.Structure):
    """`Operation` of source/program.h, field by field."""

    _fields_ = (
        ("kind", c_int32), ("format", c_int32), ("rows", c_int64), ("columns", c_int64), ("weights", c_void_p),
        ("bias", c_void_p), ("norm_weight", c_void_p), ("norm_bias", c_void_p), ("input", c_void_p), ("output", c_void_p),
        ("input_stride", c_int64), ("output_stride", c_int64), ("norm", c_int32), ("epsilon", c_float), ("gate", c_int32),
        ("shape", c_int32), ("add", c_int32), ("chosen", c_int32), ("factor", c_float), ("cap", c_float),
        ("heads", c_int32), ("kv_heads", c_int32), ("head_size", c_int32), ("padded", c_int32), ("page_size", c_int32),
        ("kv_format", c_int32), ("turned", c_int32), ("pairing", c_int32), ("cos", c_void_p), ("sin", c_void_p),
        ("query_norm", c_void_p), ("key_norm", c_void_p), ("slopes", c_void_p), ("keys", c_void_p), ("values", c_void_p),
        ("window", c_int64), ("scale", c_float), ("score_cap", c_float),
    )  # fmt: skip


class Step(ctypes.Structure):
    """`Step` of source/program.h."""

    _fields_ = (
        ("count", c_int32), ("chosen_count", c_int32), ("ids", c_void_p), ("positions", c_void_p), ("sequences", c_void_p),
        ("pages", c_void_p), ("pages_stride", c_int64), ("chosen", c_void_p),
    )  # fmt: skip


class Library(NamedTuple):
    calls: ctypes.CDLL
    variant: str
    kernels: int  # address of the variant's table
    variants: tuple[str, ...]  # that this processor can run, the widest first


def load() -> Library | Words:
    """The library with the variant to use, or why there is none. Raises ConfigError for a TSUZURI_NATIVE that cannot be."""
    return _load(os.environ.get(VARIABLE) or None)


@functools.cache
def _load(wanted: str | None) -> Library | Words:
    if wanted == OFF:
        return Words(f"{VARIABLE}=off で止めています。", f"Switched off by {VARIABLE}=off.")
    if wanted is not None and wanted not in VARIANTS:
        raise _refused(wanted, (OFF, *VARIANTS), Words("その名前のものはありません。", "There is nothing of that name."))
    calls = _open()
    if isinstance(calls, Words):
        return calls
    names = (calls.tsuzuri_variant(i) for i in range(len(VARIANTS)))
    known = tuple(name.decode() for name in names if name)
    if wanted is not None and wanted not in known:
        raise _refused(wanted, known, Words("このプロセッサでは動きません。", "This processor cannot run it, or it was not built."))
    variant = wanted or known[0]
    return Library(calls, variant, calls.tsuzuri_kernels(variant.encode()), known)


@functools.cache
def _open() -> ctypes.CDLL | Words:
    if not build.LIBRARY.is_file():
        return Words(
            "導入したときに C++ のコンパイラがなかったので、作られていません。",
            "It was not built: there was no C++ compiler at installation.",
        )
    if stale():
        return OLD
    try:
        calls = ctypes.CDLL(str(build.LIBRARY))
        _declare(calls)
        sizes = (c_int64(), c_int64())
        calls.tsuzuri_sizes(ctypes.byref(sizes[0]), ctypes.byref(sizes[1]))
    except (OSError, AttributeError) as error:
        return Words(f"読み込めません（{error}）。", f"It cannot be loaded ({error}).")
    return calls if [size.value for size in sizes] == [ctypes.sizeof(Operation), ctypes.sizeof(Step)] else OLD


def stale() -> bool:
    """Whether it was built from other sources than those that lie here. Read from the file: what is loaded stays loaded."""
    return build.fingerprint().encode() not in build.LIBRARY.read_bytes()


def _declare(calls: ctypes.CDLL) -> None:
    for name, result, arguments in (
        ("tsuzuri_build", c_char_p, ()),
        ("tsuzuri_sizes", None, (POINTER(c_int64), POINTER(c_int64))),
        ("tsuzuri_variant", c_char_p, (c_int32,)),
        ("tsuzuri_kernels", c_void_p, (c_char_p,)),
        ("tsuzuri_pool", c_void_p, (c_int32,)),
        ("tsuzuri_pool_free", None, (c_void_p,)),
        ("tsuzuri_program", c_void_p, (c_void_p, c_void_p, POINTER(Operation), c_int32)),
        ("tsuzuri_program_free", None, (c_void_p,)),
        ("tsuzuri_run", c_int32, (c_void_p, POINTER(Step))),
        ("tsuzuri_allocate", c_void_p, (c_int64,)),
        ("tsuzuri_free", None, (c_void_p,)),
    ):
        function = getattr(calls, name)
        function.restype, function.argtypes = result, arguments


def _refused(wanted: str, known: tuple[str, ...], found: Words) -> ConfigError:
    return ConfigError(
        Words(f"{VARIABLE} に「{wanted}」が指定されました。", f"{VARIABLE} was given '{wanted}'."),
        found=Words(f"{found.ja}使えるのは {'、'.join(known)} です。", f"{found.en} There is {', '.join(known)}."),
        todo=suggestion(wanted, list(known)),
    )
