"""GloVe: counts are those of a direct loop, the plain loss and an optimizer of PyTorch's move the tables as the steps do."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from word_lines import some

from tsuzuri.train.vectors import glove
from tsuzuri.train.vectors.lines import Lines


def looped(text: Lines, window: int) -> Counter[tuple[int, int]]:
    """X by its definition: each word, every other one of its line within the window, 1/distance."""
    found: Counter[tuple[int, int]] = Counter()
    for i in range(len(text)):
        for j in range(max(0, i - window), min(len(text), i + window + 1)):
            if i != j and text.line[i] == text.line[j]:
                found[int(text.ids[i]), int(text.ids[j])] += 1 / abs(i - j)
    return found


@pytest.mark.parametrize(("window", "chunk"), [(1, 1 << 24), (4, 1 << 24), (10, 1 << 24), (4, 200), (10, 999), (3, 1)])
def test_counts_are_those_of_a_direct_loop(window: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is counted at once: no pair is lost or doubled where one stretch of text ends."""
    monkeypatch.setattr(glove, "CHUNK", chunk)
    text = some(400)
    found, wanted = glove.count(text, window), looped(text, window)
    cells = {(i, int(found.columns[c])): found.values[c] for i in range(30) for c in range(found.starts[i], found.starts[i + 1])}
    assert set(cells) == set(wanted)
    assert len(found) == len(cells)
    assert all(abs(cells[pair] - value) < 1e-5 * value for pair, value in wanted.items())
    assert all((np.diff(found.columns[found.starts[i] : found.starts[i + 1]]) > 0).all() for i in range(30))


@pytest.mark.parametrize("x_max", [2.0, 100.0])
def test_steps_move_as_autograd_and_adagrad_of_pytorch(x_max: float) -> None:
    text = some(400)
    counts = glove.count(text, 4)
    one, other = (
        glove.Table(*(value.double() for value in (t.vectors, t.bias, t.vectors_squared, t.bias_squared))) for t in glove.initial(30, 6, 1)
    )
    plain = [value.clone().requires_grad_() for value in (one.vectors, one.bias, other.vectors, other.bias)]
    adagrad = torch.optim.Adagrad(plain, lr=0.05, eps=glove.TINY)
    cells = glove.Cells(counts, x_max, torch.float64)
    random = np.random.default_rng(1)
    for turn in range(6):
        rows = random.permutation(30)[: 7 + turn]
        mine, yours = ((0, 1), (2, 3)) if turn % 2 == 0 else ((2, 3), (0, 1))
        adagrad.zero_grad(set_to_none=False)
        loss = glove.plain_loss(*(plain[i] for i in (*mine, *yours)), counts, rows.tolist(), x_max)
        loss.backward()
        adagrad.step()
        found = glove.step(*((one, other) if turn % 2 == 0 else (other, one)), cells, rows, 0.05)
        assert found == pytest.approx(float(loss.detach()), rel=1e-6)  # counts are kept in float32
    for moved, wanted in zip((one.vectors, one.bias, other.vectors, other.bias), plain, strict=True):
        assert (moved - wanted).abs().max() < 1e-6


def test_rows_without_any_neighbour_are_rows() -> None:
    """A word that stands alone in all its lines has no cells: it is not moved, and nothing breaks."""
    text = Lines(["い", "ろ", "は"], np.array([2, 2, 1]), np.array([0, 1, 0, 1, 2], np.int32), np.array([0, 0, 1, 1, 2], np.int32), 0)
    cells = glove.Cells(glove.count(text, 3), 10.0)
    one, other = glove.initial(3, 4, 1)
    before = one.vectors.clone()
    assert glove.step(one, other, cells, np.array([2]), 0.05) == 0.0
    assert torch.equal(one.vectors, before)
    glove.step(one, other, cells, np.array([2, 0]), 0.05)
    assert not torch.equal(one.vectors[0], before[0]) and torch.equal(one.vectors[2], before[2])
