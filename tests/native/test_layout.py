"""Packing only moves numbers: what was packed comes out as it went in, and rows that fill up a block are zero."""

from __future__ import annotations

import pytest
import torch

from tsuzuri.model.adapt import quantize
from tsuzuri.native import layout
from tsuzuri.native.program import block_bytes


@pytest.mark.parametrize(("rows", "columns"), [(16, 32), (1, 64), (33, 96), (5, 7)])
@pytest.mark.parametrize("form", layout.FORMATS)
def test_unpacked_is_what_was_packed(rows: int, columns: int, form: layout.Format) -> None:
    weight = torch.randn(rows, columns)
    given: tuple[torch.Tensor, torch.Tensor | None]
    if form in ("f32", "bf16"):
        given = weight if form == "f32" else weight.bfloat16(), None
    elif columns % layout.GROUP:
        return
    else:
        given = quantize.FORMS["q4_0" if form == "q4" else "q8_0"](weight)
    blocks = layout.packed(*given)
    assert blocks.shape == (-(-rows // layout.ROWS), block_bytes(form, columns))
    for before, after in zip(given, layout.unpacked(blocks, form, rows, columns), strict=True):
        assert before is after is None or torch.equal(before, after)


def test_the_byte_of_a_weight_is_where_the_kernels_look_for_it() -> None:
    """kernels.h: after the scales, step by step, 16 rows × 4 inputs."""
    values, scales = torch.arange(32 * 64).remainder(255).sub(127).to(torch.int8).view(32, 64), torch.arange(64).half().view(32, 2)
    blocks = layout.packed(values, scales)
    row, group, place = 19, 1, 13
    block = blocks[row // 16]
    assert int(block[64 + group * 512 + place // 4 * 64 + row % 16 * 4 + place % 4].view(torch.int8)) == int(values[row, 32 + place])
    assert float(block[(group * 16 + row % 16) * 2 :][:2].view(torch.float16)) == float(scales[row, group])


def test_gate_and_up_take_turns() -> None:
    gate, up = torch.arange(20)[:, None].float(), 100 + torch.arange(20)[:, None].float()
    rows = layout.paired(gate, up).flatten().tolist()
    assert rows[:16] == list(range(16)) and rows[16:32] == list(range(100, 116))
    assert rows[32:48] == [16, 17, 18, 19] + [0] * 12 and len(rows) == 64
