"""Each sampling rule against a direct computation in plain Python; every field provably does something."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections import Counter
from dataclasses import fields
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsuzuri.engine.sampling import History, Sampling, choose, distribution, draw, generator, keep_top_p
from tsuzuri.errors import ConfigError

LOGITS = [2.0, 1.0, 0.5, 0.0, -1.0, -0.2, 3.0, 1.5]
PROMPT, OUTPUT = [0, 3], [6, 6, 4]
scores = st.lists(st.floats(-20, 20), min_size=2, max_size=30)


def softmax(values: list[float]) -> list[float]:
    top = max(values)
    weights = [math.exp(v - top) for v in values]
    return [w / sum(weights) for w in weights]


def found(values: list[float], history: History | None = None, **choices: Any) -> list[float]:
    return distribution(torch.tensor(values, dtype=torch.float64), Sampling(**choices), history).tolist()


@settings(max_examples=60, deadline=None)
@given(scores, st.floats(0.05, 2))
def test_temperature_divides(values: list[float], temperature: float) -> None:
    assert found(values, temperature=temperature) == pytest.approx(softmax([v / temperature for v in values]), abs=1e-9)


def test_no_temperature_takes_the_best() -> None:
    assert found(LOGITS, temperature=0) == [0, 0, 0, 0, 0, 0, 1, 0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-80, 80).map(lambda n: n / 4), min_size=2, max_size=30), st.sampled_from([5e-324, 1e-320, 1e-309]))
def test_a_temperature_too_small_to_divide_by_is_none(values: list[float], temperature: float) -> None:
    """The law: where a score divided by it is no number any more, the choice is that of temperature 0."""
    if any(values):  # all zero stays zero
        assert found(values, temperature=temperature) == found(values, temperature=0)
        assert choose(torch.tensor(values), Sampling(temperature=temperature), History(), random.Random(1)) == values.index(max(values))


def test_just_above_it_is_a_temperature_still() -> None:
    assert found([1e-290, 2e-290, 1e-290], temperature=1e-290) == pytest.approx(softmax([1, 2, 1]))
    assert found([-math.inf, 1.0, 2.0], temperature=0.5) == pytest.approx([0, *softmax([2.0, 4.0])])  # what was ruled out is no overflow


@pytest.mark.parametrize("penalty", [5e-324, 1e-309, 1e-200])
def test_a_penalty_too_small_to_divide_by_leaves_probabilities(penalty: float) -> None:
    probabilities = found(LOGITS, History([0, 3]), repetition_penalty=penalty)
    assert probabilities == [1, 0, 0, 0, 0, 0, 0, 0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-20, 20), min_size=2, max_size=30, unique=True), st.integers(1, 35))
def test_top_k_keeps_exactly_the_k_best(values: list[float], k: int) -> None:
    kept = set(sorted(range(len(values)), key=lambda i: -values[i])[:k])
    assert found(values, top_k=k) == pytest.approx(softmax([v if i in kept else -math.inf for i, v in enumerate(values)]), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-40, 40), min_size=2, max_size=30, unique=True), st.floats(0.01, 0.99))
def test_top_p_keeps_the_smallest_set_that_holds_p(steps: list[int], p: float) -> None:
    values = [step / 4 for step in steps]
    probabilities, kept, total = softmax(values), set[int](), 0.0
    for i in sorted(range(len(values)), key=lambda i: -values[i]):
        if total < p:
            kept.add(i)
        total += probabilities[i]
    assert found(values, top_p=p) == pytest.approx(softmax([v if i in kept else -math.inf for i, v in enumerate(values)]), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 3000), st.integers(1, 60), st.integers(0, 9), st.floats(0.01, 0.9999), st.integers(0, 2**32))
def test_top_p_of_many_is_that_of_all_of_them_in_order(size: int, levels: int, steep: int, p: float, seed: int) -> None:
    """The law: however few are looked at, those that stay are the first of a sort of all, of equal ones the first."""
    values = torch.randint(levels, (size,), generator=torch.Generator().manual_seed(seed)).double() * steep / levels
    probabilities, ids = values.softmax(-1).sort(descending=True, stable=True)
    kept = ids[probabilities.cumsum(-1) - probabilities < p]
    assert keep_top_p(values, p).isfinite().nonzero().flatten().tolist() == sorted(kept.tolist())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-40, 40), min_size=2, max_size=30, unique=True), st.floats(0.01, 0.99))
def test_min_p_is_a_fraction_of_the_best(steps: list[int], p: float) -> None:
    values = [step / 4 for step in steps]
    probabilities = softmax(values)
    least = p * max(probabilities)
    expected = softmax([v if q >= least else -math.inf for v, q in zip(values, probabilities, strict=True)])
    assert found(values, min_p=p) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-40, 40), min_size=2, max_size=30, unique=True), st.floats(0.01, 0.99))
def test_typical_keeps_what_surprises_as_expected(steps: list[int], p: float) -> None:
    values = [step / 4 + step**2 / 1e4 for step in steps]
    probabilities = softmax(values)
    entropy = -sum(q * math.log(q) for q in probabilities)
    apart = [abs(-math.log(q) - entropy) for q in probabilities]
    if any(abs(a - b) < 1e-9 for i, a in enumerate(apart) for b in apart[:i]):
        return  # which of two as typical comes first is not said
    kept, total = set[int](), 0.0
    for i in sorted(range(len(values)), key=apart.__getitem__):
        if total < p - 1e-12:
            kept.add(i)
        total += probabilities[i]
    expected = softmax([v if i in kept else -math.inf for i, v in enumerate(values)])
    assert found(values, typical_p=p) == pytest.approx(expected, abs=1e-9)


def test_typical_is_that_of_transformers_and_takes_what_was_ruled_out() -> None:
    from transformers.generation.logits_process import TypicalLogitsWarper

    theirs = TypicalLogitsWarper(0.6)(torch.tensor([PROMPT]), torch.tensor([LOGITS]))[0].softmax(-1)
    assert found(LOGITS, typical_p=0.6) == pytest.approx(theirs.tolist(), abs=1e-6)
    assert sum(found(LOGITS, typical_p=0.6, top_k=3)) == pytest.approx(1)
    assert sum(p > 0 for p in found(LOGITS, typical_p=0.999, top_k=3)) == 3


def test_a_bias_is_added_to_its_ids() -> None:
    expected = [v + {1: 2.5, 6: -100}.get(i, 0) for i, v in enumerate(LOGITS)]
    assert found(LOGITS, logit_bias={6: -100, 1: 2.5}) == pytest.approx(softmax(expected))
    assert choose(torch.tensor(LOGITS), Sampling(temperature=0, logit_bias={6: -100}), History(), random.Random(1)) == 0
    assert Sampling(logit_bias={6: -100, 1: 2.5}) == Sampling(logit_bias=((1, 2.5), (6, -100.0)))


@pytest.mark.parametrize(("said", "ruled_out"), [(0, True), (1, True), (2, False), (3, False)])
def test_it_does_not_end_before_the_least(said: int, ruled_out: bool) -> None:
    """With at least three tokens, the third may be the end."""
    history = History(PROMPT, [1] * said, ends={6, 2})
    expected = [-math.inf if ruled_out and i in (6, 2) else v for i, v in enumerate(LOGITS)]
    assert found(LOGITS, history, min_tokens=3) == pytest.approx(softmax(expected))
    assert choose(torch.tensor(LOGITS), Sampling(temperature=0, min_tokens=3), history, random.Random(1)) == (0 if ruled_out else 6)


def test_the_least_is_not_above_the_most() -> None:
    with pytest.raises(ConfigError, match="min_tokens"):
        Sampling(min_tokens=5, max_tokens=4)
    assert Sampling(min_tokens=4, max_tokens=4).min_tokens == 4


def test_top_p_and_min_p_always_leave_the_best() -> None:
    assert found([0.0, 5.0, 1.0], top_p=1e-9) == [0, 1, 0]
    assert found([0.0, 5.0, 1.0], min_p=1.0) == [0, 1, 0]


@pytest.mark.parametrize("penalty", [0.5, 1.3, 4.0])
def test_repetition_divides_what_is_positive_and_multiplies_what_is_not(penalty: float) -> None:
    seen = {*PROMPT, *OUTPUT}
    expected = [(v / penalty if v > 0 else v * penalty) if i in seen else v for i, v in enumerate(LOGITS)]
    assert found(LOGITS, History(PROMPT, OUTPUT), repetition_penalty=penalty) == pytest.approx(softmax(expected))


def test_repetition_is_that_of_transformers() -> None:
    from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

    theirs = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([PROMPT + OUTPUT]), torch.tensor([LOGITS]))[0].softmax(-1)
    assert found(LOGITS, History(PROMPT, OUTPUT), repetition_penalty=1.7) == pytest.approx(theirs.tolist(), abs=1e-6)


@pytest.mark.parametrize(("presence", "frequency"), [(0.7, 0.0), (0.0, 0.4), (-1.0, 1.5)])
def test_presence_and_frequency_count_the_output_alone(presence: float, frequency: float) -> None:
    counts = Counter(OUTPUT)
    expected = [v - (presence + frequency * counts[i] if i in counts else 0) for i, v in enumerate(LOGITS)]
    given = found(LOGITS, History(PROMPT, OUTPUT), presence_penalty=presence, frequency_penalty=frequency)
    assert given == pytest.approx(softmax(expected))


def test_the_order_of_the_rules() -> None:
    """Penalties before temperature, temperature before the cuts, top-k before top-p."""
    both = found([2.0, 1.9, 1.0, 0.0], History([], [0]), temperature=0.5, top_k=3, top_p=0.9, presence_penalty=1.5)
    penalized = [0.5, 1.9, 1.0, 0.0]
    hot = [v / 0.5 for v in penalized]
    three = softmax([hot[0], hot[1], hot[2], -math.inf])  # .05, .82, .13
    assert three[1] < 0.9 <= three[1] + three[2]
    assert both == pytest.approx([0, three[1] / (three[1] + three[2]), three[2] / (three[1] + three[2]), 0])


def test_draws_have_the_distribution() -> None:
    """χ² over 20,000 draws; 24.3 is the 0.1 % point at 7 degrees of freedom."""
    probabilities, numbers, count = torch.tensor(LOGITS, dtype=torch.float64).softmax(-1), random.Random(5), 20_000
    drawn = Counter(draw(probabilities, numbers.random()) for _ in range(count))
    square = sum((drawn[i] - count * p) ** 2 / (count * p) for i, p in enumerate(probabilities.tolist()))
    assert square < 24.3


def test_what_has_no_probability_is_never_drawn() -> None:
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0], dtype=torch.float64)
    assert [draw(probabilities, number) for number in (0.0, 0.4999, 0.5, 1 - 2**-53)] == [1, 1, 3, 3]


def test_the_same_seed_draws_the_same() -> None:
    def ids(seed: int | None) -> list[int]:
        numbers = generator(seed)
        return [choose(torch.tensor(LOGITS), Sampling(seed=seed), History(), numbers) for _ in range(30)]

    assert ids(7) == ids(7) != ids(8)
    assert ids(-7) != ids(7)
    assert ids(None) != ids(None)


WRONG = {
    "temperature": [-0.1, math.nan, math.inf, 2.1, "1", True, None],
    "top_k": [-1, 1.5, math.nan, None],
    "top_p": [0, -0.1, 1.01, math.nan],
    "min_p": [-0.1, 1.01, math.nan],
    "repetition_penalty": [0, -1, math.nan, math.inf],
    "presence_penalty": [-2.1, 2.1, math.nan],
    "frequency_penalty": [-2.1, 2.1, math.nan],
    "seed": [1.5, "1", 2**64],
    "typical_p": [0, -0.1, 1.01, math.nan],
    "logit_bias": [5, "a", {"1": 2.0}, {-1: 2.0}, {1: 101}, {1: math.nan}, {True: 1.0}, [(1, 2, 3)], [1]],
    "max_tokens": [0, -1, 1.0],
    "min_tokens": [-1, 1.5, None],
    "ignore_eos": [1, None, "yes"],
    "logprobs": [-1, 21, 1.0],
    "stop_token_ids": [5, "12", [-1], [1.5], [True]],
    "constraint": [5, "a+", {"type": "string"}],
}


@pytest.mark.parametrize("name", [field.name for field in fields(Sampling)])
def test_every_field_refuses_what_cannot_be_by_name(name: str) -> None:
    for value in WRONG[name]:
        with pytest.raises(ConfigError, match=name):
            Sampling(**{name: value})


def test_a_server_of_remote_models_needs_no_torch() -> None:
    code = "import sys, tsuzuri.engine.sampling as s; s.Sampling(top_p=0.9); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
