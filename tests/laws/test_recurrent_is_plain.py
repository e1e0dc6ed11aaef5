"""The fast path of every recurrent layer is its equations, token by token: the same outputs, states and gradients."""

from __future__ import annotations

import pytest
import torch

from tsuzuri.folder import find
from tsuzuri.model.parts.mamba2 import CHUNK, StateSpace, chunked, recurrence
from tsuzuri.model.past import Causal
from tsuzuri.model.transformer import PARTS, Shape, Transformer


@pytest.mark.parametrize("time", [1, 5, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_chunked_form_of_mamba_2_is_its_recurrence(time: int, groups: int) -> None:
    generator = torch.Generator().manual_seed(time)

    def drawn(*sides: int) -> torch.Tensor:
        return torch.randn(*sides, generator=generator, dtype=torch.float64)

    x, b, c, memory = drawn(2, time, 4, 3), drawn(2, time, groups, 5), drawn(2, time, groups, 5), drawn(2, 4, 3, 5)
    fading = -0.03 * drawn(2, time, 4).exp()  # so slow that what a chunk began with is still there at its end
    given = [each.requires_grad_() for each in (x, fading, b, c, memory)]
    weight, last = drawn(2, time, 4, 3), drawn(2, 4, 3, 5)
    found = []
    for run in (chunked, recurrence):
        y, after = run(*given)
        slopes = torch.autograd.grad((y * weight).sum() + (after * last).sum(), given)
        found.append([y.detach(), after.detach(), *slopes])
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("begun", [False, True])
def test_the_kernel_of_a_recurrent_layer_is_its_equations(name: str, begun: bool) -> None:
    shape = Shape(vocab_size=5, hidden_size=6, num_hidden_layers=1, position="none")
    part = find(PARTS, name).Part(shape, 0).double()
    generator = torch.Generator().manual_seed(1)
    for weight in part.parameters():
        torch.nn.init.normal_(weight, generator=generator)
    x = torch.randn(3, 9, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    state = torch.randn(3, part.state_size, generator=generator, dtype=torch.float64).tanh() if begun else None
    found = []
    for run in (part.scan, part.plain):
        y, after = run(x, state)
        slopes = torch.autograd.grad(y.sin().sum() + after.sin().sum(), [x, *part.parameters()])
        found.append([y.detach(), after.detach(), *slopes])
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "mamba2"])
def test_packed_documents_are_as_they_are_alone(name: str) -> None:
    told = StateSpace(state_size=4) if name == "mamba2" else None
    shape = Shape(vocab_size=9, hidden_size=8, num_hidden_layers=2, attention=name, feedforward=None, position="none", state_space=told)
    model = Transformer(shape)
    generator = torch.Generator().manual_seed(2)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5, generator=generator)
    ids = torch.randint(9, (2, 12), generator=generator)
    documents = torch.tensor([[0] * 5 + [1] * 7, [0] * 12])
    found = model(ids, Causal(torch.arange(12).expand(2, 12), documents))
    for row, first, last in ((0, 0, 5), (0, 5, 12), (1, 0, 12)):
        alone = model(ids[row, first:last], Causal(torch.arange(last - first)))
        torch.testing.assert_close(found[row, first:last], alone, rtol=1e-5, atol=1e-5)
