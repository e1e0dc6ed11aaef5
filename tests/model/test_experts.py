"""Experts: sorted by expert as one token at a time, the chosen ones alone, and what uneven use costs."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from tsuzuri.model.parts.experts import Part, Routed
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.train import balance, loss
from tsuzuri.train.data import IGNORED, Batch

SHAPE = Shape(
    vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=32,
    feedforward="experts", num_experts=5, num_experts_per_tok=2, router_aux_loss_coef=0.5,
)  # fmt: skip


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def part(each: int = 2) -> Part:
    torch.manual_seed(2)
    return Part(dataclasses.replace(SHAPE, num_experts_per_tok=each), 0).double()


def batch(padding: int = 0) -> Batch:
    tokens = torch.randint(20, (2, 8), generator=torch.Generator().manual_seed(3))
    targets, documents = tokens.roll(-1, 1), torch.zeros_like(tokens)
    if padding:
        targets[:, -padding:], documents[:, -padding:] = IGNORED, -1
    return Batch(tokens, targets, torch.arange(8).expand(2, 8), documents)


@pytest.mark.parametrize("each", [1, 2, 5])
@pytest.mark.parametrize("shape", [(7, 16), (2, 3, 16), (1, 16)])
def test_sorted_by_expert_is_one_token_at_a_time(shape: tuple[int, ...], each: int) -> None:
    experts, x = part(each), drawn(*shape)
    torch.testing.assert_close(experts(x), experts.one_by_one(x), rtol=1e-12, atol=1e-12)
    with torch.inference_mode():  # experts that nobody goes to are left out
        torch.testing.assert_close(experts(x), experts.one_by_one(x), rtol=1e-12, atol=1e-12)


def test_the_weights_of_the_chosen_sum_to_one_and_they_are_the_most_probable() -> None:
    experts, x = part(), drawn(9, 16)
    weight, chosen = experts.route(x)
    probability = experts.router(x).softmax(-1)
    torch.testing.assert_close(weight.sum(-1), torch.ones(9, dtype=torch.float64))
    assert (probability.gather(-1, chosen).min(-1).values >= probability.sort(-1).values[:, -2]).all()


def test_the_cost_of_uneven_use_is_that_of_transformers_for_one_layer() -> None:
    scores = drawn(12, 5).float()
    routed = Routed(scores.softmax(-1), scores.softmax(-1).topk(2, -1).indices)
    there = torch.tensor([1] * 9 + [0] * 3)
    for real in (None, there):
        expected = load_balancing_loss_func((scores,), 5, 2, None if real is None else real[None])
        torch.testing.assert_close(balance.uneven(routed, None if real is None else real.bool()), expected)


def test_even_use_costs_k_and_one_expert_for_all_costs_as_much_as_there_are() -> None:
    even = Routed(torch.full((4, 4), 0.25), torch.tensor([[0, 1], [2, 3], [1, 0], [3, 2]]))
    alone = Routed(torch.eye(4)[torch.zeros(6, dtype=torch.int64)], torch.zeros(6, 1, dtype=torch.int64))
    assert float(balance.uneven(even, None)) == 2
    assert float(balance.uneven(alone, None)) == 4


@pytest.mark.parametrize("padding", [0, 3])
def test_training_pays_for_uneven_use_with_its_gradient_and_the_loss_stays_in_nats(padding: int) -> None:
    free, paid = (Transformer(dataclasses.replace(SHAPE, router_aux_loss_coef=c)).initialise(1).double() for c in (0.0, 0.5))
    data = batch(padding)
    losses = [loss.next_token(model, data) for model in (free, paid)]
    torch.testing.assert_close(*losses, rtol=0, atol=0)
    for each in losses:
        each.backward()
    one, other = (model.blocks[0].feedforward.router.weight.grad.clone() for model in (free, paid))
    assert not torch.allclose(one, other)
    real = data.documents != -1
    hidden: list[Tensor] = []
    for block in paid.blocks:
        block.feedforward.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0]))
    loss.next_token(paid, data)
    costs = []
    for block, x in zip(paid.blocks, hidden, strict=True):  # eq. 4 of Fedus et al., expert by expert
        p = block.feedforward.router(x[real]).softmax(-1)
        top = p.topk(2, -1).indices
        costs.append(5 * sum((top == e).sum() / len(p) * p[:, e].mean() for e in range(5)))
    (0.5 * sum(costs) / 2 * data.trained).backward(inputs=[paid.blocks[0].feedforward.router.weight])
    fresh = paid.blocks[0].feedforward.router.weight.grad - other  # what backward added
    torch.testing.assert_close(other - one, fresh, rtol=1e-9, atol=1e-12)


def test_nothing_is_kept_of_a_call_that_is_not_trained_or_after_it_was() -> None:
    model = Transformer(SHAPE).initialise(1)
    with torch.no_grad():
        loss.next_token(model, batch())
    loss.next_token(model, batch())
    assert [block.feedforward.routed for block in model.blocks] == [None, None]
