"""What points outside is stopped before the call: the library itself checks nothing."""

from __future__ import annotations

import pytest
import torch

from tsuzuri.native import layout
from tsuzuri.native.program import Attention, Matrix, Pool, Program, room

PAGES = torch.tensor([[1, 0]], dtype=torch.int32)


def made(pool: Pool) -> Program:
    program = Program(pool, 4)
    blocks = layout.packed(torch.randn(20, 24))
    embedding = Matrix(room(pool.library, blocks.numel()).view(blocks.shape).copy_(blocks), "f32", 20, 24)
    x, out = program.buffer(24), program.buffer(8)
    attention = Attention(
        heads=1, kv_heads=1, head_size=8, keys=torch.zeros(2, 1, 1, 8, 16), values=torch.zeros(2, 1, 16, 16), cos=torch.ones(30, 4), sin=torch.ones(30, 4)
    )  # fmt: skip
    program.embed(embedding, x)
    program.attend(attention, x, out)
    return program


@pytest.mark.parametrize(
    "wrong",
    [
        {"ids": [20]},
        {"ids": [-1]},
        {"positions": [30]},
        {"positions": [-1]},
        {"sequences": [1]},
        {"pages": torch.tensor([[2, 0]], dtype=torch.int32)},
        {"pages": torch.tensor([[-1, 0]], dtype=torch.int32)},
        {"pages": PAGES.long()},
        {"pages": PAGES[:, :1].contiguous(), "positions": [16]},
        {"chosen": [1]},
        {"ids": [1] * 5, "positions": list(range(5)), "sequences": [0] * 5},
        {"ids": []},
    ],
    ids=str,
)
def test_a_step_that_points_outside_is_stopped(pool: Pool, wrong: dict[str, object]) -> None:
    program, right = made(pool), {"ids": [19], "positions": [29], "sequences": [0], "pages": PAGES, "chosen": [0]}
    program.run(**right)  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        program.run(**{**right, **wrong})  # type: ignore[arg-type]


def test_an_operation_that_does_not_fit_is_stopped(pool: Pool) -> None:
    program = Program(pool, 4)
    blocks = layout.packed(torch.randn(20, 24))
    narrow, wide = torch.zeros(4, 16), torch.zeros(4, 32)
    with pytest.raises(AssertionError):
        program.matmul(Matrix(blocks, "bf16", 20, 24), wide, wide)
    with pytest.raises(AssertionError):
        program.matmul(Matrix(blocks, "f32", 20, 24), narrow, wide)
    with pytest.raises(AssertionError):
        program.matmul(Matrix(blocks, "f32", 20, 24), wide, narrow)
    with pytest.raises(AssertionError):
        program.matmul(Matrix(blocks, "f32", 20, 24), wide[:2], wide)
