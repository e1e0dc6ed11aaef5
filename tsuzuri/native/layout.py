"""The bytes that the kernels read: a matrix as blocks of 16 rows (the table in `source/kernels.h`).

In: a matrix in rows, as it is stored. Out: uint8 (blocks, bytes of a block); rows that fill up the last block are zero.
Only the order changes here, never a number: `unpacked` gives back what `packed` was given.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Format: TypeAlias = Literal["f32", "bf16", "q8", "q4", "q8_16"]
FORMATS: tuple[Format, ...] = ("f32", "bf16", "q8", "q4", "q8_16")  # by their number in kernels.h
ROWS = 16  # of a block
GROUP = 32  # inputs that share a scale
LINE = 64  # bytes of a cache line: where the weights of a block begin


def packed(values: Tensor, scales: Tensor | None = None) -> Tensor:
    """(rows, K) float32 or bfloat16; or int8 with float16 scales (rows, K/32); or uint8 (rows, K/2), two nibbles a byte, with scales.

    -> uint8 (blocks, bytes of a block). The nibbles are those of GGML's q4_0: byte i of the 16 of a group holds inputs i and i + 16.
    """
    form: Format = "f32" if values.dtype == torch.float32 else "bf16" if scales is None else "q8" if values.dtype == torch.int8 else "q4"
    columns = values.shape[1] * (2 if form == "q4" else 1)
    place = torch.empty(-(-values.shape[0] // ROWS), block_bytes(form, columns), dtype=torch.uint8)
    pack(place, values, scales)
    return place


def pack(place: Tensor, values: Tensor, scales: Tensor | None = None) -> None:
    """What `packed` gives, written to where it is to lie: every byte of uint8 (blocks, bytes of a block)."""
    rows = _whole_blocks(values)
    if values.dtype == torch.bfloat16:
        rows = F.pad(rows, (0, rows.shape[1] % 2))
    if rows.dtype != torch.float32:  # what stays together moves as one: four bytes at a time, a quarter of the time
        rows = rows.contiguous().view(torch.int32)
    start = 0
    if scales is not None:
        head = _bytes(_in_blocks(_whole_blocks(scales)).transpose(1, 2))  # (blocks, groups, 16)
        start = -(-head.shape[1] // LINE) * LINE
        place[:, : head.shape[1]] = head
        place[:, head.shape[1] : start] = 0
    body = _in_blocks(rows).transpose(1, 2)  # (blocks, K, K/2, or groups · 8 or 4; 16)
    place[:, start:].view(rows.dtype).view(body.shape).copy_(body)


def block_bytes(form: Format, columns: int) -> int:
    """Of a block of 16 rows."""
    if form == "f32":
        return columns * ROWS * 4
    if form == "bf16":
        return -(-columns // 2) * ROWS * 4
    scales = -(-columns // GROUP * ROWS * 2 // LINE) * LINE
    return scales + columns * ROWS // (2 if form == "q4" else 1)


def unpacked(blocks: Tensor, form: Format, rows: int, columns: int) -> tuple[Tensor, Tensor | None]:
    """What `packed` was given."""
    count = blocks.shape[0]
    if form in ("f32", "bf16"):
        dtype, pair = (torch.float32, 1) if form == "f32" else (torch.bfloat16, 2)
        found = blocks.view(dtype).view(count, -1, ROWS, pair).transpose(1, 2).reshape(count * ROWS, -1)
        return found[:rows, :columns].contiguous(), None
    groups, steps = columns // GROUP, 4 if form == "q4" else 8
    start = -(-groups * ROWS * 2 // LINE) * LINE
    scales = blocks[:, : groups * ROWS * 2].contiguous().view(torch.float16).view(count, groups, ROWS).transpose(1, 2)
    body = blocks[:, start:].reshape(count, groups, steps, ROWS, 4).permute(0, 3, 1, 2, 4).reshape(count * ROWS, -1)
    values = body[:rows].contiguous()
    return values if form == "q4" else values.view(torch.int8), scales.reshape(count * ROWS, groups)[:rows].contiguous()


def paired(gate: Tensor, up: Tensor) -> Tensor:
    """Rows of two matrices in turns of a block, 16 of one and 16 of the other: both are there when a gate opens."""
    both = torch.stack([_in_blocks(_whole_blocks(x)) for x in (gate, up)], 1)  # (blocks, 2, 16, ...)
    return both.flatten(0, 2)


def _in_blocks(rows: Tensor) -> Tensor:
    """(rows, ...) -> (blocks, 16, ...)"""
    return rows.reshape(-1, ROWS, *rows.shape[1:])


def _whole_blocks(rows: Tensor) -> Tensor:
    """Rows of zeros behind, up to a multiple of 16."""
    missing = -rows.shape[0] % ROWS
    return torch.cat((rows, rows.new_zeros(missing, *rows.shape[1:]))) if missing else rows


def _bytes(blocks: Tensor) -> Tensor:
    return blocks.contiguous().flatten(1).view(torch.uint8)
