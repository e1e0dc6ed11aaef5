"""The hidden Markov model: the forward algorithm is the sum over all paths, Baum–Welch climbs to where the gradient is zero."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import reference
import torch
from torch import Tensor

from tsuzuri.errors import ConfigError
from tsuzuri.model import weights
from tsuzuri.model.families import hmm
from tsuzuri.model.families._baum_welch import Tables, step
from tsuzuri.model.past import Causal


def model(states: int = 3, vocabulary: int = 5, seed: int = 1) -> hmm.Hmm:
    return hmm.Hmm(hmm.HmmShape(vocab_size=vocabulary, num_states=states), dtype=torch.float64).initialise(seed)


def tables(one: hmm.Hmm) -> Tables:
    return Tables(*(table.detach().softmax(-1) for table in (one.start_table, one.transition_table, one.emission_table)))


def likelihood(one: hmm.Hmm, ids: Tensor) -> Tensor:
    """log p of a whole document, first token included."""
    ahead = one(ids[:-1], Causal(torch.arange(len(ids) - 1)))
    return one.first()[ids[0]] + ahead.gather(-1, ids[1:, None]).sum()


@pytest.mark.parametrize("length", [2, 3, 5])
def test_the_forward_algorithm_is_the_sum_over_all_paths(length: int) -> None:
    one, ids = model(), torch.randint(5, (length,), generator=torch.Generator().manual_seed(length))
    start, transition, emission = tables(one)
    total = 0.0
    for path in itertools.product(range(3), repeat=length):
        p = float(start[path[0]] * emission[path[0], ids[0]])
        for before, here, id in zip(path, path[1:], ids[1:], strict=False):
            p *= float(transition[before, here] * emission[here, id])
        total += p
    assert float(likelihood(one, ids).detach().exp()) == pytest.approx(total, rel=1e-12)


def test_its_probabilities_sum_to_one_and_it_may_be_cut_anywhere() -> None:
    one, ids = model(), torch.randint(5, (23,), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        torch.testing.assert_close(reference.logits(one, ids).exp().sum(-1), torch.ones(23, dtype=torch.float64))
        reference.cut_is_whole(one, ids)
        reference.paged_is_whole(one, ids)
        documents = torch.tensor([0] * 9 + [1] * 14)
        packed = one(ids, Causal(torch.arange(23), documents))
        torch.testing.assert_close(packed[9:], reference.logits(one, ids[9:]))


def documents(seed: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(5, (int(length),), generator=generator) for length in torch.randint(3, 9, (12,), generator=generator)]


def test_no_step_of_baum_welch_lowers_the_likelihood_and_it_is_that_of_the_model() -> None:
    one, texts = model(), documents()
    now, found = tables(one), []
    for _ in range(20):
        now, total = step(now, texts)
        found.append(total)
    assert found[0] == pytest.approx(sum(float(likelihood(one, ids).detach()) for ids in texts), rel=1e-12)
    assert all(later >= earlier - 1e-10 for earlier, later in itertools.pairwise(found)) and found[-1] > found[0] + 1


def test_where_baum_welch_comes_to_rest_the_gradient_is_zero() -> None:
    one, texts = model(2, 5), documents()

    def slope() -> float:
        one.zero_grad()
        sum(likelihood(one, ids) for ids in texts).backward()
        return max(float(weight.grad.abs().max()) for weight in one.parameters())

    assert slope() > 1
    now = tables(one)
    for _ in range(1500):
        now, _ = step(now, texts)
    with torch.no_grad():
        for weight, table in zip(one.parameters(), now, strict=True):
            weight.copy_(table.clamp_min(1e-200).log())
    assert slope() < 1e-6


def test_it_is_saved_and_read_back_to_the_bit_and_the_engine_goes_on_from_it(tmp_path: Path) -> None:
    one, ids = model(4, 60).float(), reference.tokens(60)
    weights.save(one, tmp_path, "hmm")
    again = weights.load(tmp_path)
    assert torch.equal(reference.logits(again, ids), reference.logits(one, ids))
    greedy = ids.tolist()
    for _ in range(8):
        greedy.append(int(reference.logits(one, torch.tensor(greedy))[-1].argmax()))
    assert reference.greedy_here(again, ids, 8) == greedy[23:]


@pytest.mark.parametrize("change", [{"num_states": 0}, {"num_states": 1 << 15}, {"hidden_size": 8}], ids=str)
def test_an_impossible_shape_is_refused_by_name(change: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        hmm.shape({"vocab_size": 5, "num_states": 3, **change})
