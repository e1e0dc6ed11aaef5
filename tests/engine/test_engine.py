"""The engine: how an answer ends, what is reused, what is refused, and that every field of `Sampling` does something."""

from __future__ import annotations

import math
import threading
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from tsuzuri.engine.constrain import Vocabulary
from tsuzuri.engine.constraint import Constraint
from tsuzuri.engine.engine import BLOCK, LocalEngine
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import ConfigError, ContextError, FormatError, InputError
from tsuzuri.model.past import Causal
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.types import Past, Token

LIMIT = 3 * BLOCK
PROMPT = [5, 6, 7, 8, 5, 6]


def built(seed: int = 3) -> Transformer:
    shape = Shape(
        vocab_size=30,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=LIMIT,
        tie_word_embeddings=True,
    )
    model = Transformer(shape)
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=generator)
    return model.requires_grad_(False)


def engine(eos: tuple[int, ...] = ()) -> LocalEngine:
    return LocalEngine(built(), eos, LIMIT, vocabulary=Vocabulary(lambda id: bytes([ord("A") + id]), 30))


def tokens(eos: tuple[int, ...] = (), prompt: list[int] = PROMPT, **choices: Any) -> list[Token]:
    return list(engine(eos).stream(prompt, Sampling(**choices)))


def ids(eos: tuple[int, ...] = (), prompt: list[int] = PROMPT, **choices: Any) -> list[int]:
    return [token.id for token in tokens(eos, prompt, **choices)]


def test_an_end_of_text_ends_and_is_the_last_token() -> None:
    free = ids(temperature=1, seed=1, max_tokens=40)
    end = free[12]
    first = free.index(end)
    found = tokens((end,), temperature=1, seed=1, max_tokens=40)
    assert [token.id for token in found] == free[: first + 1]
    assert [token.finish for token in found] == [None] * first + ["stop"]
    assert ids((end,), temperature=1, seed=1, max_tokens=40, ignore_eos=True) == free
    assert ids(temperature=1, seed=1, max_tokens=40, stop_token_ids=(end,)) == free[: first + 1]


def test_without_a_limit_it_goes_on_until_the_context_is_full() -> None:
    found = tokens(seed=1)
    assert len(found) == LIMIT - len(PROMPT)
    assert found[-1].finish == "length"
    assert {token.finish for token in found[:-1]} == {None}


def test_max_tokens_ends_with_length() -> None:
    assert [token.finish for token in tokens(seed=1, max_tokens=3)] == [None, None, "length"]


def test_the_end_of_text_wins_over_the_limit_at_the_same_token() -> None:
    last = ids(seed=1, max_tokens=3)[-1]
    found = tokens((last,), seed=1, max_tokens=3)
    assert found[-1].finish == "stop"


# For every field: a value that must change what comes out, and what else is needed for that
EFFECTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "temperature": (0.0, {}),
    "top_k": (1, {}),
    "top_p": (0.01, {}),
    "min_p": (1.0, {}),
    "typical_p": (0.01, {}),
    "logit_bias": ({3: 100}, {}),
    "repetition_penalty": (10.0, {"temperature": 0}),
    "presence_penalty": (2.0, {}),
    "frequency_penalty": (2.0, {}),
    "seed": (2, {}),
    "max_tokens": (3, {}),
    "min_tokens": (35, {}),
    "ignore_eos": (True, {}),
    "logprobs": (2, {}),
    "stop_token_ids": (tuple(range(15)), {}),
    "constraint": (Constraint("regex", "[AB]{3,9}"), {}),
}


@pytest.mark.parametrize("name", [field.name for field in fields(Sampling)])
def test_every_field_changes_what_comes_out(name: str) -> None:
    value, others = EFFECTS[name]
    common = {"seed": 1, "max_tokens": 40, **others}
    eos = (ids(seed=1, max_tokens=40)[20],)
    assert tokens(eos, **common) != tokens(eos, **{**common, name: value})


def test_logprobs_are_the_models_own_and_as_many_as_asked() -> None:
    found = tokens(seed=1, max_tokens=8, logprobs=5, temperature=0.3, top_k=2)
    text = PROMPT + [token.id for token in found]
    expected = built()(torch.tensor(text), Causal(torch.arange(len(text)))).log_softmax(-1)
    for place, token in enumerate(found, len(PROMPT) - 1):
        assert token.logprob == pytest.approx(float(expected[place][token.id]), abs=1e-5)
        values, best = expected[place].topk(5)
        assert [id for id, _ in token.top] == best.tolist()
        assert [logprob for _, logprob in token.top] == pytest.approx(values.tolist(), abs=1e-5)


def test_what_is_reused_changes_nothing() -> None:
    long = [(7 * i) % 30 for i in range(2 * BLOCK + 5)]
    one = engine()
    for prompt in (long, long, long[: BLOCK + 3] + [1] * BLOCK, [2, *long[1:]], long[: 2 * BLOCK]):
        generation = one.stream(prompt, Sampling(seed=4, max_tokens=9))
        assert list(generation) == tokens(prompt=prompt, seed=4, max_tokens=9)
    assert [reused(one, prompt) for prompt in (long, [*long[:BLOCK], 1], long, [3, *long])] == [2 * BLOCK, BLOCK, BLOCK, 0]


def reused(one: LocalEngine, prompt: list[int]) -> int:
    generation = one.stream(prompt, Sampling(max_tokens=1))
    list(generation)
    return generation.cached_tokens


def test_a_second_call_while_the_first_goes_on_does_not_disturb_it() -> None:
    one, long = engine(), [(7 * i) % 30 for i in range(BLOCK + 5)]
    list(one.stream(long, Sampling(max_tokens=1)))  # what it leaves may serve one of them only
    first, second = one.stream(long, Sampling(seed=1, max_tokens=20)), one.stream(long, Sampling(seed=2, max_tokens=20))
    pairs = list(zip(first, second, strict=True))
    assert [a for a, _ in pairs] == tokens(prompt=long, seed=1, max_tokens=20)
    assert [b for _, b in pairs] == tokens(prompt=long, seed=2, max_tokens=20)


def test_closing_and_cancelling_end_the_work() -> None:
    one = engine()
    generation = one.stream(PROMPT, Sampling(seed=1))
    next(generation)
    generation.close()
    assert list(generation) == []
    generation = one.stream(PROMPT, Sampling(seed=1))
    next(generation)
    other = threading.Thread(target=generation.cancel)
    other.start()
    other.join()
    assert list(generation) == []
    assert generation.completion_tokens == 1
    assert list(one.stream(PROMPT, Sampling(seed=1, max_tokens=20))) == tokens(seed=1, max_tokens=20)


def test_scores_are_those_of_the_whole() -> None:
    text = [(11 * i) % 30 for i in range(BLOCK + 9)]
    expected = built()(torch.tensor(text), Causal(torch.arange(len(text)))).log_softmax(-1)
    assert engine().score(text) == pytest.approx([float(expected[i][text[i + 1]]) for i in range(len(text) - 1)], abs=1e-4)
    assert engine().score([3]) == []


def test_embedding_is_the_mean_of_the_last_hidden_states_of_length_one() -> None:
    text = [(11 * i) % 30 for i in range(BLOCK + 9)]
    mean = built().hidden(torch.tensor(text), Causal(torch.arange(len(text)))).mean(0)
    found = engine().embed(text)
    assert found == pytest.approx((mean / mean.norm()).tolist(), abs=1e-5)
    assert math.hypot(*found) == pytest.approx(1)


@pytest.mark.parametrize("wrong", [[], [30], [-1], [True]])
def test_ids_that_cannot_be_are_refused(wrong: list[int]) -> None:
    with pytest.raises(InputError):
        engine().stream(wrong, Sampling())


def test_too_long_a_prompt_is_refused_with_both_counts() -> None:
    with pytest.raises(ContextError, match=rf"(?s){LIMIT}.*{LIMIT}"):
        engine().stream([1] * LIMIT, Sampling())
    with pytest.raises(ContextError, match=f"{LIMIT + 1}"):
        engine().score([1] * (LIMIT + 1))
    assert tokens(prompt=[1] * (LIMIT - 1))[-1].finish == "length"


def test_a_stop_that_cannot_occur_is_refused() -> None:
    with pytest.raises(ConfigError, match="stop_token_ids"):
        engine().stream(PROMPT, Sampling(stop_token_ids=(30,)))


def test_a_model_that_gives_no_numbers_is_told() -> None:
    model = built()
    model.embedding.weight[5] = math.nan
    with pytest.raises(FormatError):
        next(LocalEngine(model, [], LIMIT).stream(PROMPT, Sampling()))


class Failing:
    """A model that breaks off in its second call."""

    vocab_size = 50

    def __init__(self) -> None:
        self.model, self.calls = built(), 0

    def __call__(self, tokens: Tensor, past: Past) -> Tensor:
        self.calls += 1
        if self.calls == 2:
            raise KeyboardInterrupt
        return self.model(tokens, past)


def test_an_interrupt_within_a_call_leaves_no_trace() -> None:
    broken = LocalEngine(Failing(), [], LIMIT)
    prompt = [(7 * i) % 30 for i in range(2 * BLOCK + 5)]
    with pytest.raises(KeyboardInterrupt):
        list(broken.stream(prompt, Sampling(seed=1, max_tokens=5)))
    sound = LocalEngine(Failing().model, [], LIMIT).stream(prompt, Sampling(seed=1, max_tokens=5))
    assert [token.id for token in broken.stream(prompt, Sampling(seed=1, max_tokens=5))] == [token.id for token in sound]


def test_what_the_model_thought_of_a_prompt() -> None:
    """The log-probabilities of `score`, and the most probable in the place of each, over more than one block."""
    one = engine()
    ids = [int(id) for id in torch.randint(one.vocab_size, (200,), generator=torch.Generator().manual_seed(1))]
    found = one.read_through(ids, top=3)
    assert [token.id for token in found] == ids[1:]
    assert [token.logprob for token in found] == one.score(ids)
    for place in (0, 120, 198):
        logprobs = one.after(ids[: place + 1]).log_softmax(-1)
        assert [id for id, _ in found[place].top] == logprobs.topk(3).indices.tolist()
        assert found[place].top[0][1] == pytest.approx(float(logprobs.max()), abs=1e-4)
    assert all(token.top == () for token in one.read_through(ids))
