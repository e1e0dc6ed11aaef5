"""A program and its steps: what `source/program.h` runs, written from Python.

In: packed matrices and the operations of one step, in order. Out: `run`, which computes all of them in one call of the library, with
its own threads and without Python's lock. Everything an operation points to is checked here, before the call: the library
checks nothing. It knows no model and makes no cache: whoever calls it says where keys and values lie.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tsuzuri.errors import SpaceError, Words
from tsuzuri.native.layout import FORMATS, GROUP, ROWS, Format, block_bytes
from tsuzuri.native.library import Library, Operation, Step

EMBED, MATMUL, ATTEND, NORM = range(4)
NORMS = {None: 0, "rms_norm": 1, "layer_norm": 2}
GATES = {None: 0, "silu": 1, "gelu": 2, "gelu_tanh": 3}
SHAPES = {None: 0, "gelu": 1, "relu2": 2, "silu": 3, "gelu_tanh": 4}
KEYS = 16  # a page holds a multiple of as many tokens
MOST_OPERATIONS = 4000  # each is at most two of the phases that the pool has room for


@dataclass(frozen=True, slots=True)
class Matrix:
    """Packed by `layout.packed`."""

    blocks: Tensor  # uint8 (blocks, bytes of a block)
    form: Format
    rows: int
    columns: int
    bias: Tensor | None = None  # float32, one a row of the blocks


@dataclass(frozen=True, slots=True)
class Norm:
    kind: str  # "rms_norm" or "layer_norm"
    weight: Tensor  # float32
    epsilon: float
    bias: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    heads: int
    kv_heads: int
    head_size: int
    keys: Tensor  # (pages, K, page_size / 16, E, 16) float32 or bfloat16: a lane is a token
    values: Tensor  # (pages, K, page_size, E up to a multiple of 16)
    cos: Tensor | None = None  # (positions, turned / 2) float32
    sin: Tensor | None = None
    interleaved: bool = False  # pairs (2i, 2i + 1) turn, instead of (i, i + turned / 2)
    query_norm: Tensor | None = None  # (E,)
    key_norm: Tensor | None = None
    epsilon: float = 0.0
    slopes: Tensor | None = None  # (H,) ALiBi
    window: int | None = None
    scale: float | None = None  # None: 1 / sqrt(E)
    cap: float | None = None  # cap · tanh(score / cap)


class Pool:
    """Threads of the library. They sleep while nothing runs, and end with the pool."""

    def __init__(self, library: Library, threads: int) -> None:
        self.library, self.threads, self.process = library, threads, os.getpid()
        self.address = library.calls.tsuzuri_pool(threads)
        if not self.address:
            raise _no_room(Words(f"スレッドを {threads} 本作れません。", f"{threads} threads cannot be had."))
        weakref.finalize(self, _free_pool, library, self.address, self.process)


class Program:
    """Operations in the order in which they were added, for at most `most` tokens a step."""

    def __init__(self, pool: Pool, most: int) -> None:
        self.pool, self.most = pool, most
        self._operations: list[Operation] = []
        self._kept: list[object] = []  # what the operations point to
        self._address: int | None = None
        self._alone = threading.Lock()
        self._checked: tuple[Tensor | None, int | None] = (None, None)  # the table of pages that was looked through last
        self._limits = {"id": 1 << 31, "position": 1 << 31, "page": 1 << 31, "page_size": 1}
        self._ints = (ctypes.c_int32 * (4 * most))()  # ids, positions, sequences, chosen
        ids = ctypes.addressof(self._ints)
        self._step = Step(ids=ids, positions=ids + 4 * most, sequences=ids + 8 * most, chosen=ids + 12 * most)

    def buffer(self, width: int) -> Tensor:
        """float32 (most, width) that operations hand on."""
        return torch.zeros(self.most, -(-width // ROWS) * ROWS)

    def embed(self, matrix: Matrix, output: Tensor, factor: float = 1.0, add: Tensor | None = None) -> None:
        """output = the row of each token's id, times factor; plus the row of its position in `add` (positions, columns)."""
        operation = self._matrix(EMBED, matrix)
        if add is not None:
            assert add.dim() == 2 and add.shape[1] == matrix.columns
            self._limits["position"] = min(self._limits["position"], add.shape[0])
            self._point(operation, "cos", add, torch.float32)
        self._limits["id"] = min(self._limits["id"], matrix.rows)
        assert output.shape[1] >= matrix.columns
        self._points(operation, output=output, factor=factor)

    def norm(self, norm: Norm, source: Tensor, output: Tensor, *, add: bool = False) -> None:
        """output = norm(source), added to what is there where `add` says so; the two may be one."""
        operation = Operation(kind=NORM, columns=len(norm.weight), add=add)
        assert min(source.shape[1], output.shape[1]) >= len(norm.weight)
        self._normed(operation, norm, len(norm.weight))
        self._points(operation, input=source, output=output)

    def matmul(
        self,
        matrix: Matrix,
        source: Tensor,
        output: Tensor,
        *,
        norm: Norm | None = None,
        gate: str | None = None,
        shape: str | None = None,
        add: bool = False,
        chosen: bool = False,
        factor: float = 1.0,
        cap: float | None = None,
    ) -> None:
        """output = shape(norm(source) · matrixᵀ + bias) · factor, capped, added to what is there where `add` says so.

        `gate`: rows come in turns (`layout.paired`), output = gate(first) · second. `chosen`: only of the tokens a step names.
        """
        operation = self._matrix(MATMUL, matrix)
        outputs = matrix.rows // 2 if gate else matrix.rows
        assert source.shape[1] >= matrix.columns and output.shape[1] >= outputs and not (gate and (shape or matrix.rows % (2 * ROWS)))
        assert norm is None or len(norm.weight) == matrix.columns
        if norm is not None:
            self._normed(operation, norm, matrix.columns)
        operation.gate, operation.shape, operation.add, operation.chosen = GATES[gate], SHAPES[shape], add, chosen
        operation.cap = cap or 0.0
        self._points(operation, input=source, output=output, factor=factor)

    def attend(self, attention: Attention, source: Tensor, output: Tensor) -> None:
        """source: queries, keys and values of a token one after the other; output: H heads of E."""
        a = attention
        pages, kv_heads, chunks, size, lanes = a.keys.shape
        page_size = chunks * lanes
        padded = -(-size // KEYS) * KEYS
        assert (kv_heads, size, lanes) == (a.kv_heads, a.head_size, KEYS) and a.heads % a.kv_heads == 0
        assert a.values.shape == (pages, kv_heads, page_size, padded) and a.values.dtype == a.keys.dtype
        assert source.shape[1] >= (a.heads + 2 * a.kv_heads) * size and output.shape[1] >= a.heads * size
        turned = 0 if a.cos is None else 2 * a.cos.shape[1]
        operation = Operation(
            kind=ATTEND, heads=a.heads, kv_heads=a.kv_heads, head_size=size, padded=padded, page_size=page_size, turned=turned,
            kv_format=FORMATS.index("bf16" if a.keys.dtype == torch.bfloat16 else "f32"), pairing=a.interleaved, epsilon=a.epsilon,
            window=a.window or 0, scale=a.scale or size**-0.5, score_cap=a.cap or 0.0,
        )  # fmt: skip
        for name in ("cos", "sin", "query_norm", "key_norm", "slopes"):
            self._point(operation, name, getattr(a, name), torch.float32)
        if a.cos is not None:
            assert a.sin is not None and a.sin.shape == a.cos.shape and turned <= size
            self._limits["position"] = min(self._limits["position"], a.cos.shape[0])
        self._point(operation, "keys", a.keys, a.keys.dtype)
        self._point(operation, "values", a.values, a.values.dtype)
        assert self._limits["page_size"] in (1, page_size)
        self._limits["page"], self._limits["page_size"] = min(self._limits["page"], pages), page_size
        self._points(operation, input=source, output=output)

    def run(
        self, ids: Sequence[int], positions: Sequence[int], sequences: Sequence[int], pages: Tensor, chosen: Sequence[int] = ()
    ) -> None:
        """One step: every operation for these tokens. `pages` int32 (sequences, pages of a sequence): where keys and values lie.

        Tokens of one sequence lie together, in rising positions. `chosen`: indices of the tokens that operations with `chosen` take.
        """
        count = len(ids)
        assert 0 < count <= self.most and len(positions) == len(sequences) == count and len(chosen) <= self.most
        assert pages.dtype == torch.int32 and pages.is_contiguous() and pages.dim() == 2
        limits, most = self._limits, max(positions)
        assert min(ids) >= 0 and max(ids) < limits["id"] and min(positions) >= 0 and most < limits["position"]
        assert min(sequences) >= 0 and max(sequences) < pages.shape[0] and most < pages.shape[1] * limits["page_size"]
        assert all(0 <= index < count for index in chosen)
        self._check_pages(pages)
        with self._alone:
            address = self._address or self._compile()
            step, ints = self._step, self._ints
            step.count, step.chosen_count, step.pages, step.pages_stride = count, len(chosen), pages.data_ptr(), pages.stride(0)
            for place, values in enumerate((ids, positions, sequences, chosen)):
                start = place * self.most
                ints[start : start + len(values)] = list(values)
            if self.pool.library.calls.tsuzuri_run(address, ctypes.byref(step)):
                raise _no_room(Words("メモリが足りません。", "There is not enough memory."))

    def _check_pages(self, pages: Tensor) -> None:
        """Looks through a table once, as long as nobody writes to it; a tensor of inference mode does not say, so each time."""
        version = None if pages.is_inference() else pages._version
        table, known = self._checked
        if table is not pages or version is None or version != known:
            assert not pages.numel() or (int(pages.min()) >= 0 and int(pages.max()) < self._limits["page"])
            self._checked = pages, version

    def _compile(self) -> int:
        library = self.pool.library
        operations = (Operation * len(self._operations))(*self._operations)
        assert 0 < len(operations) <= MOST_OPERATIONS
        self._address = library.calls.tsuzuri_program(library.kernels, self.pool.address, operations, len(operations))
        if not self._address:
            raise _no_room(Words("メモリが足りません。", "There is not enough memory."))
        weakref.finalize(self, _free_program, library, self._address, self.pool)
        return self._address

    def _matrix(self, kind: int, matrix: Matrix) -> Operation:
        blocks, columns = matrix.blocks, matrix.columns
        assert blocks.shape == (-(-matrix.rows // ROWS), block_bytes(matrix.form, columns)), matrix
        assert blocks.data_ptr() % 32 == 0 and (matrix.form in ("f32", "bf16") or columns % GROUP == 0)
        operation = Operation(kind=kind, format=FORMATS.index(matrix.form), rows=matrix.rows, columns=columns)
        self._point(operation, "weights", blocks, torch.uint8)
        assert matrix.bias is None or len(matrix.bias) == matrix.rows
        self._point(operation, "bias", matrix.bias, torch.float32)
        return operation

    def _normed(self, operation: Operation, norm: Norm, size: int) -> None:
        operation.norm, operation.epsilon = NORMS[norm.kind], norm.epsilon
        assert len(norm.weight) == size and (norm.bias is None or len(norm.bias) == size)
        self._point(operation, "norm_weight", norm.weight, torch.float32)
        self._point(operation, "norm_bias", norm.bias, torch.float32)

    def _points(self, operation: Operation, *, output: Tensor, input: Tensor | None = None, factor: float = 1.0) -> None:
        for name, rows in (("input", input), ("output", output)):
            assert rows is None or (rows.dim() == 2 and rows.shape[0] >= self.most and rows.stride(1) == 1)
            self._point(operation, name, rows, torch.float32)
            if rows is not None:
                setattr(operation, f"{name}_stride", rows.stride(0))
        operation.factor = factor
        assert self._address is None, "a program that has run is complete"
        self._operations.append(operation)

    def _point(self, operation: Operation, name: str, tensor: Tensor | None, dtype: torch.dtype) -> None:
        if tensor is None:
            return
        assert tensor.dtype == dtype and tensor.device.type == "cpu" and (tensor.is_contiguous() or name in ("input", "output")), name
        self._kept.append(tensor)
        setattr(operation, name, tensor.data_ptr())


def room(library: Library, count: int) -> Tensor:
    """uint8 (count,) of the library's memory: in large pages, where the system gives them. Raises SpaceError."""
    address = library.calls.tsuzuri_allocate(count)
    if not address:
        raise _no_room(Words(f"メモリを {count} バイト確保できません。", f"{count} bytes of memory cannot be had."))
    place = (ctypes.c_uint8 * count).from_address(address)
    weakref.finalize(place, library.calls.tsuzuri_free, address)
    return torch.frombuffer(place, dtype=torch.uint8)


def _free_pool(library: Library, address: int, process: int) -> None:
    if os.getpid() == process:  # after a fork the threads are not there, and there is nobody to wait for
        library.calls.tsuzuri_pool_free(address)


def _free_program(library: Library, address: int, pool: Pool) -> None:
    library.calls.tsuzuri_program_free(address)  # the pool is kept until here


def _no_room(found: Words) -> SpaceError:
    return SpaceError(
        Words("ネイティブの計算を準備しようとしました。", "Preparing the native computation."),
        found=found,
        todo=Words("ほかのプログラムを終えるか、threads を減らしてください。", "Close other programs, or give fewer threads."),
    )
