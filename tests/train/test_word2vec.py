"""Word2Vec: the plain twin is what autograd says of the equation, the matrix products are the plain twin, epochs are fair."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from word_lines import some

from tsuzuri.errors import TrainingError
from tsuzuri.train.vectors import lines, word2vec
from tsuzuri.train.vectors.word2vec import Batch, Epoch

METHODS: Any = ("skip-gram", "cbow")


def batches(window: int = 3, sample: float = 0.0, seed: int = 1) -> list[Batch]:
    epoch = Epoch(some(), window, sample, np.random.default_rng(seed))
    epoch.rows = 4  # so few different words would have steps of one stretch
    return list(epoch)


def tables(seed: int = 2, size: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inner, outer = (torch.randn(30, size, generator=generator, dtype=torch.float64) for _ in range(2))
    return inner, outer


def equation(method: Any, inner: Tensor, outer: Tensor, batch: Batch, negative: float) -> Tensor:
    """Eq. 4 of Mikolov et al. 2013b with PyTorch's operations, K random words standing for the M that were drawn."""
    loss = torch.zeros((), dtype=torch.float64)
    for sources, target, drawn in word2vec.examples(method, batch):
        vector = inner[sources].mean(0)
        loss = loss - F.logsigmoid(vector @ outer[target]) - negative / len(drawn) * F.logsigmoid(-(outer[drawn] @ vector)).sum()
    return loss


@pytest.mark.parametrize("method", METHODS)
def test_the_plain_twin_moves_by_the_gradient_that_autograd_finds(method: Any) -> None:
    (batch,) = (dataclasses.replace(b, **{f.name: getattr(b, f.name)[:3] for f in dataclasses.fields(b)}) for b in batches()[:1])
    inner, outer = (table.requires_grad_() for table in tables())
    loss = equation(method, inner, outer, batch, 5.0)
    loss.backward()
    plain = [table.detach().numpy().copy() for table in (inner, outer)]
    found = word2vec.plain_step(method, *plain, batch, 5.0, 0.1)
    pairs = sum(1 for _ in word2vec.examples(method, batch))
    assert found == pytest.approx(float(loss.detach()) / pairs, rel=1e-12)
    for moved, table in zip(plain, (inner, outer), strict=True):
        assert np.abs(moved - (table - 0.1 * table.grad).detach().numpy()).max() < 1e-12


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_matrix_products_are_the_plain_twin(method: Any, dtype: torch.dtype, tolerance: float) -> None:
    """Several steps on the same batches: same numbers, whatever stands at the ends of lines and of the text."""
    plain = [table.numpy().copy() for table in tables()]
    inner, outer = (table.to(dtype) for table in tables())
    for batch in batches():
        wanted = word2vec.plain_step(method, *plain, batch, 5.0, 0.02)
        assert word2vec.step(method, inner, outer, batch, 5.0, 0.02, measure=True) == pytest.approx(wanted, rel=max(tolerance, 1e-9))
    for moved, table in zip(plain, (inner, outer), strict=True):
        assert np.abs(moved - table.double().numpy()).max() < tolerance


def test_windows_end_at_the_line_and_at_the_reach_of_the_word() -> None:
    """Every pair of the epoch, counted from the text itself with the reaches that were drawn."""
    text, window = some(), 3
    random = np.random.default_rng(1)
    reach = random.integers(1, window + 1, len(text))  # what the epoch draws first when nothing is thinned out
    wanted = sorted(
        (int(text.ids[i]), int(text.ids[j]))
        for i in range(len(text))
        for j in range(max(0, i - reach[i]), min(len(text), i + reach[i] + 1))
        if i != j and text.line[i] == text.line[j]
    )
    found = sorted((w, other) for batch in batches(window) for (w,), other, _ in word2vec.examples("skip-gram", batch))
    assert found == wanted


def test_every_reach_up_to_the_window_is_drawn_alike() -> None:
    text = dataclasses.replace(some(4000), line=np.zeros(4000, np.int32))
    reach = torch.cat([batch.left.flatten() for batch in Epoch(text, 4, 0.0, np.random.default_rng(3))])
    shares = torch.bincount(reach[reach > 0].long())[1:] / (reach > 0).sum()
    assert (shares - 0.25).abs().max() < 0.03


def test_frequent_words_are_thinned_out_as_the_formula_says() -> None:
    text = some(200_000)
    ids, line = text.thinned(0.01, np.random.default_rng(5))
    share = text.counts / text.counts.sum()
    wanted = np.minimum(1, np.sqrt(0.01 / share) + 0.01 / share)
    found = np.bincount(ids, minlength=30) / text.counts
    assert np.abs(found - wanted).max() < 0.03
    assert len(line) == len(ids) < 0.6 * len(text)
    assert text.thinned(0.0, np.random.default_rng(5))[0] is text.ids


def test_random_words_are_drawn_by_the_three_quarter_power_of_their_count() -> None:
    text = some(100_000)
    drawn = torch.cat([batch.drawn.flatten() for batch in Epoch(text, 2, 0.0, np.random.default_rng(1))])
    wanted = text.counts**0.75 / (text.counts**0.75).sum()
    assert np.abs(torch.bincount(drawn, minlength=30).numpy() / len(drawn) - wanted).max() < 0.01


def test_the_same_seed_gives_the_same_epoch_and_another_seed_another() -> None:
    def drawn(seed: int) -> list[int]:
        return [
            n for batch in batches(sample=0.05, seed=seed) for n in (*batch.centres.flatten().tolist(), *batch.drawn.flatten().tolist())
        ]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


# ── reading


def test_words_are_numbered_by_frequency_and_rare_ones_are_left_out() -> None:
    texts = ["い ろ は\nい ろ い", "に は い"]
    found = lines.read(texts, str.split, min_count=2)
    assert found.words == ["い", "は", "ろ"]  # は and ろ are read twice each: the first in order
    assert found.counts.tolist() == [4, 2, 2]
    assert [found.words[i] for i in found.ids] == ["い", "ろ", "は", "い", "ろ", "い", "は", "い"]
    assert found.line.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert found.left_out == 1
    assert lines.read(texts, str.split, min_count=1, max_words=2).words == ["い", "は"]


@pytest.mark.parametrize("texts", [[], [""], ["い"], ["い い い\nろ"]])
def test_too_little_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(TrainingError, match="min_count"):
        lines.read(texts, str.split, min_count=2)
