"""The loss a stretch at a time = the loss at once: values and both gradients, with ignored targets, whatever the stretch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tsuzuri.train import loss
from tsuzuri.train.data import IGNORED

TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6}


def inputs(count: int, dtype: torch.dtype, ignored: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states (N, D), head (V, D), targets (N,); logits of ± 10, so that softmax is far from flat."""
    generator = torch.Generator().manual_seed(count)
    hidden = torch.randn(count, 32, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    head = (torch.randn(300, 32, generator=generator, dtype=torch.float64) * 0.6).to(dtype).requires_grad_()
    targets = torch.randint(300, (count,), generator=generator)
    return hidden, head, targets.masked_fill(torch.rand(count, generator=generator) < ignored, IGNORED)


def close(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    assert found.dtype == wanted.dtype
    assert (found - wanted).norm() <= tolerance * wanted.norm()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("chunk", [1, 7, 64, 100, 1000])
def test_value_and_gradients(monkeypatch: pytest.MonkeyPatch, chunk: int, dtype: torch.dtype) -> None:
    """100 tokens: a stretch that divides them, two that do not, all at once, and more than there are. Scaled, as a step scales it."""
    monkeypatch.setattr(loss, "CHUNK", chunk)
    hidden, head, targets = inputs(100, dtype)
    found, wanted = (function(hidden, head, targets) for function in (loss.chunked, loss.plain))
    close(found, wanted, TOLERANCE[dtype])
    pairs = zip(torch.autograd.grad(found * 0.37, (hidden, head)), torch.autograd.grad(wanted * 0.37, (hidden, head)), strict=True)
    for mine, plain in pairs:
        close(mine, plain, TOLERANCE[dtype])


def test_where_nothing_is_trained() -> None:
    hidden, head, targets = inputs(20, torch.float64, ignored=1.1)
    found = loss.chunked(hidden, head, targets)
    found.backward()
    assert found == 0
    assert hidden.grad is not None and not hidden.grad.any()
    assert head.grad is not None and not head.grad.any()


def test_ignored_tokens_pull_nothing() -> None:
    hidden, head, targets = inputs(100, torch.float64)
    loss.chunked(hidden, head, targets).backward()
    assert hidden.grad is not None
    assert torch.equal(hidden.grad.any(-1), targets != IGNORED)


def test_in_bfloat16_it_is_as_exact_as_the_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both round: measured against float64, 100 stretches may be at most half as much again off as the plain loss is."""
    monkeypatch.setattr(loss, "CHUNK", 15)
    hidden, head, targets = inputs(1500, torch.bfloat16)
    wide = [x.detach().double().requires_grad_() for x in (hidden, head)]
    true = torch.autograd.grad(loss.plain(wide[0], wide[1], targets), wide)
    errors = []
    for function in (loss.chunked, loss.plain):
        found = torch.autograd.grad(function(hidden, head, targets), (hidden, head))
        errors.append([float((mine.double() - exact).norm() / exact.norm()) for mine, exact in zip(found, true, strict=True)])
    for chunked, plain in zip(*errors, strict=True):
        assert chunked < 1.5 * plain < 0.02


def test_gradients_by_finite_differences() -> None:
    hidden, head, targets = inputs(5, torch.float64)
    small = [x.detach().requires_grad_() for x in (hidden[:, :4], head[:6, :4])]
    assert torch.autograd.gradcheck(lambda x, w: loss.chunked(x, w, targets.clamp_max(5)), small)
