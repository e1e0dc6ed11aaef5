"""With guesses = without: the same tokens for every rule of choosing, and on a text that repeats, guesses that come true; alone, among
others, in pieces, after preemption and with pages of another."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsuzuri.engine.batch import BatchEngine, Stream
from tsuzuri.engine.constrain import Vocabulary
from tsuzuri.engine.constraint import Constraint, choice, json_schema
from tsuzuri.engine.engine import BLOCK, Generation, LocalEngine
from tsuzuri.engine.lookup import MOST, Lookup
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import ConfigError
from tsuzuri.model import compiled
from tsuzuri.model.encoder_decoder import EncoderDecoder, PairShape
from tsuzuri.model.families import lstm, mamba2, marian, ngram
from tsuzuri.model.parts.rotary import Scaling
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.types import Model, Token

VOCABULARY, CONTEXT, END = 100, 2 * BLOCK, 99
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": CONTEXT,
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "rotary": {},
    "window": {"sliding_window": 6, "num_key_value_heads": 2},
    "alibi": {"position": "alibi", "num_key_value_heads": 1},
    "learned": {"position": "learned"},
    "dynamic": {"rope_scaling": Scaling(rope_type="dynamic", factor=4.0, original_max_position_embeddings=16)},
}
REPEATING = [3, 1, 4, 1, 5, 9, 2, 6] * 8
SIGNS = '0123456789abcdefghijklmnopqrstuvwxyz"{}[]:,. -+あいう'


def filled(model: Any) -> Any:
    """Weights that make of the last token most of the next: such a model runs into circles, and there guesses come true."""
    generator = torch.Generator().manual_seed(2)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.25, generator=generator)
    return model.double().requires_grad_(False).eval()


@functools.cache
def model(name: str) -> Model:
    if name in SHAPES:
        return filled(Transformer(Shape(**{**SIZES, **SHAPES[name]})))
    small = {"hidden_size": 32, "num_hidden_layers": 2}
    if name == "lstm":
        return filled(Transformer(lstm.Settings(**small).shape(VOCABULARY, CONTEXT)))
    if name == "mamba2":
        return filled(Transformer(mamba2.Settings(hidden_size=16, num_hidden_layers=1).shape(VOCABULARY, CONTEXT)))
    if name == "ngram":
        return ngram.NgramModel.fit([REPEATING], VOCABULARY, 3)
    pair = {key: value for key, value in SIZES.items() if key != "max_position_embeddings"}
    return filled(EncoderDecoder(PairShape(**{**marian.USUAL, **pair}, max_position_embeddings=CONTEXT, decoder_start_token_id=4)))


def vocabulary() -> Vocabulary:
    signs = [sign.encode() for sign in SIGNS] + [bytes([byte]) for byte in range(0x80, 0x90)] + [b'"a', b'":', b"12"]
    return Vocabulary(lambda id: (signs + [b""] * VOCABULARY)[id], VOCABULARY)


def engine(of: Model, lookup: int) -> LocalEngine:
    return LocalEngine(of, {END}, CONTEXT, vocabulary=vocabulary(), lookup=lookup)


def both(of: Model, prompt: list[int], sampling: Sampling, lookup: int = 5) -> tuple[list[Token], list[Token], Generation]:
    guessing = engine(of, lookup).stream(prompt, sampling)
    return list(guessing), list(engine(of, 0).stream(prompt, sampling)), guessing


def same(found: list[Token], wanted: list[Token]) -> None:
    assert [(t.id, t.finish, [id for id, _ in t.top]) for t in found] == [(t.id, t.finish, [id for id, _ in t.top]) for t in wanted]
    assert all(abs(a.logprob - b.logprob) < 1e-5 for a, b in zip(found, wanted, strict=True))


WAYS: dict[str, Sampling] = {
    "greedy": Sampling(temperature=0, max_tokens=60),
    "seeded": Sampling(seed=3, temperature=0.4, max_tokens=60, logprobs=2),
    "filtered": Sampling(seed=4, temperature=0.6, top_k=20, top_p=0.9, min_p=0.02, max_tokens=60),
    "penalties": Sampling(seed=5, temperature=0.3, repetition_penalty=1.1, presence_penalty=0.1, frequency_penalty=0.05, max_tokens=60),
    "stop ids": Sampling(seed=6, temperature=0.4, stop_token_ids=(9, 60), max_tokens=90),
    "min_tokens": Sampling(seed=7, temperature=0.4, stop_token_ids=(9, 60), min_tokens=30, max_tokens=90),
    "bias": Sampling(seed=8, temperature=0.4, logit_bias={1: 3, 4: 2}, max_tokens=60),
    "until the context is full": Sampling(seed=9, temperature=0.3, ignore_eos=True),
    "in circles until the context is full": Sampling(temperature=0, ignore_eos=True),
    "choice": Sampling(seed=1, constraint=choice(["123123123123", "abcabcabc", "あいうあいうあいう"]), max_tokens=60),
    "regex": Sampling(seed=2, temperature=0.5, constraint=Constraint("regex", "(ab|12)*あ?"), max_tokens=60),
    "schema": Sampling(
        seed=3, constraint=json_schema({"type": "array", "items": {"enum": ["abcabc", "12"]}, "minItems": 5, "maxItems": 9}), max_tokens=120
    ),
}


CASES = [
    ("learned", "in circles until the context is full"),
    *(("rotary", way) for way in WAYS),
    *((name, way) for name in SHAPES for way in ("greedy", "seeded", "schema") if name != "rotary"),
]


@pytest.mark.parametrize(("name", "way"), CASES)
def test_the_same_tokens(name: str, way: str) -> None:
    for prompt in (REPEATING, [7], [*REPEATING, *range(80), 3, 1, 4]):  # the last in two blocks
        found, wanted, generation = both(model(name), prompt, WAYS[way])
        same(found, wanted)
        assert generation.completion_tokens == len(found)
        assert 0 <= generation.accepted <= generation.offered


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("way", ["seeded", "choice"])
def test_guesses_come_true_where_a_text_repeats(name: str, way: str) -> None:
    """That the law above meets what it speaks of: some guesses are taken, and some not."""
    sampling = replace(WAYS[way], logit_bias=dict.fromkeys(set(REPEATING), 6)) if way != "choice" else WAYS[way]
    offered = accepted = 0
    for seed in range(4):
        found, wanted, generation = both(model(name), REPEATING, replace(sampling, seed=seed))
        same(found, wanted)
        offered, accepted = offered + generation.offered, accepted + generation.accepted
    assert 0 < accepted <= offered


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=200), st.integers(1, MOST), st.integers(0, 99), st.sampled_from([0.0, 0.5, 1.0]))
def test_whatever_the_prompt_and_however_many_guesses(prompt: list[int], lookup: int, seed: int, temperature: float) -> None:
    sampling = Sampling(seed=seed, temperature=temperature, max_tokens=40, logit_bias=dict.fromkeys(range(4), 4))
    found, wanted, _ = both(model("rotary"), prompt, sampling, lookup)
    same(found, wanted)


@pytest.mark.parametrize("name", ["lstm", "mamba2", "ngram"])
def test_where_what_was_read_cannot_be_taken_back_nothing_is_guessed(name: str) -> None:
    found, wanted, generation = both(model(name), REPEATING, Sampling(seed=3, temperature=0.3, max_tokens=50))
    same(found, wanted)
    assert (generation.offered, generation.accepted) == (0, 0)


def test_an_encoder_decoder_guesses_from_what_it_has_written() -> None:
    found, wanted, generation = both(model("marian"), REPEATING, Sampling(temperature=0, max_tokens=60))
    same(found, wanted)
    assert generation.accepted > 0


@pytest.mark.usefixtures("native")
def test_the_compiled_model_gives_the_same_bits() -> None:
    native = compiled.made(filled(Transformer(Shape(**SIZES))).float(), 2)
    assert native is not None
    accepted = 0
    for way in WAYS.values():
        found, wanted, generation = both(native, REPEATING, way)
        assert found == wanted  # log-probabilities and all
        accepted += generation.accepted
    assert accepted > 0


def asked() -> list[tuple[list[int], Sampling]]:
    """A prompt that repeats, in full and in part, under every rule."""
    prompts = (REPEATING, [7], [*REPEATING, *range(80), 3, 1, 4], REPEATING[:21])
    pushed = replace(WAYS["seeded"], logit_bias=dict.fromkeys(set(REPEATING), 6))
    ways = [
        replace(way, max_tokens=min(way.max_tokens or 60, 44), min_tokens=min(way.min_tokens, 30))
        for way in (*WAYS.values(), pushed, pushed)
    ]
    return [(prompts[number % len(prompts)], way) for number, way in enumerate(ways)]


def together(of: Model, lookup: int, pages: int, size: int, budget: int) -> tuple[list[list[Token]], list[Stream]]:
    """Of each, twice: then with pages that are known."""
    batch = BatchEngine(engine(of, lookup), pages, size=size, budget=budget)
    found, streams = [], []
    for _ in range(2):
        streams = [batch.stream(prompt, sampling, tenant=f"{number % 2}") for number, (prompt, sampling) in enumerate(asked())]
        while batch.step():
            pass
        assert batch.pages.free == batch.pages.count
        found += [list(stream) for stream in streams]
    return found, streams


@pytest.mark.parametrize(
    ("name", "pages", "size", "budget"),
    [
        ("rotary", 900, 4, 128),
        ("rotary", 65, 4, 20),
        ("rotary", 85, 3, 7),
        ("window", 65, 4, 20),
        ("dynamic", 85, 3, 40),
        ("marian", 65, 4, 20),
    ],
)
def test_the_same_tokens_in_a_batch(name: str, pages: int, size: int, budget: int) -> None:
    """Plenty of room; few pages, so that some are preempted; steps of few tokens, so that few guesses have room."""
    wanted = [list(engine(model(name), 0).stream(prompt, sampling)) for prompt, sampling in asked()]
    found, streams = together(model(name), 5, pages, size, budget)
    for tokens, whole in zip(found, wanted * 2, strict=True):
        same(tokens, whole)
    assert 0 < sum(stream.accepted for stream in streams) < sum(stream.offered for stream in streams)


def test_in_a_batch_too_nothing_is_guessed_where_it_could_not_be_taken_back() -> None:
    batch = BatchEngine(engine(model("mamba2"), 5), 100, size=4)
    sampling = Sampling(seed=3, temperature=0.3, max_tokens=30, logit_bias=dict.fromkeys(set(REPEATING), 20))
    streams = [batch.stream(prompt, sampling) for prompt in (REPEATING, [7])]
    while batch.step():
        pass
    for stream, prompt in zip(streams, (REPEATING, [7]), strict=True):
        same(list(stream), list(engine(model("mamba2"), 0).stream(prompt, sampling)))
        assert (stream.offered, stream.accepted) == (0, 0)


def test_guesses_save_steps_and_take_nobodys_pages() -> None:
    """Fewer steps where they are right; and with guesses nobody lets go of pages who would keep them without."""
    steps, back = [], []
    for lookup in (0, 6):
        batch = BatchEngine(engine(model("rotary"), lookup), 90, size=4)
        gone: list[object] = []
        batch._back = lambda request, inner=batch._back, gone=gone: (gone.append(request), inner(request))[1]  # type: ignore[method-assign]
        circles = Sampling(temperature=0, max_tokens=56, ignore_eos=True)
        streams = [batch.stream([*REPEATING[:60], number], circles, tenant=f"{number}") for number in (7, 60, 9)]
        steps.append(sum(1 for _ in iter(batch.step, False)))
        back.append(len(gone))
        assert all(len(list(stream)) == 56 for stream in streams)
    assert steps[1] < 0.8 * steps[0]
    assert back == [0, 0]


@pytest.mark.usefixtures("native")
def test_the_compiled_model_gives_the_same_bits_in_a_batch() -> None:
    native = compiled.made(filled(Transformer(Shape(**SIZES))).float(), 2)
    assert native is not None
    wanted = [list(engine(native, 0).stream(prompt, sampling)) for prompt, sampling in asked()]
    found, streams = together(native, 5, 24, 32, 64)
    assert found == wanted * 2
    assert sum(stream.accepted for stream in streams) > 0


def test_what_is_kept_for_the_next_call_is_sound() -> None:
    """A call that ends on a wrong guess, or is let go of in the middle of guesses, leaves nothing of them behind."""
    one, prompt = engine(model("rotary"), 8), [*REPEATING, *range(60), *REPEATING]
    sampling = Sampling(seed=3, temperature=0.4, max_tokens=40, logit_bias=dict.fromkeys(set(REPEATING), 6))
    wanted = list(engine(model("rotary"), 0).stream(prompt, sampling))
    for count in range(1, 40, 6):
        generation = one.stream(prompt, sampling)
        same([next(generation) for _ in range(count)], wanted[:count])
        generation.close()
    again = one.stream(prompt, sampling)
    same(list(again), wanted)
    assert again.cached_tokens == len(prompt) // BLOCK * BLOCK


def test_guesses_are_what_followed_the_last_time() -> None:
    assert Lookup([]).guess(3) == Lookup([1]).guess(3) == Lookup([1, 2]).guess(3) == Lookup([1, 2, 3, 2]).guess(3) == []
    assert Lookup([1, 2, 3, 4, 1, 2]).guess(3) == [3, 4, 1]
    assert Lookup([1, 2, 3, 4, 1, 2]).guess(1) == [3]
    assert Lookup([1, 2, 3, 1, 2, 5, 1, 2]).guess(2) == [5, 1]  # the last time, not the first
    assert Lookup([9, 1, 2, 3, 8, 1, 2, 4, 9, 1, 2]).guess(1) == [3]  # three alike go before two, that were later
    assert Lookup([1, 1, 1]).guess(4) == [1]
    growing = Lookup([1, 2, 3])
    for id in (1, 2):
        growing.add(id)
    assert growing.guess(9) == [3, 1, 2]


@pytest.mark.parametrize("wrong", [-1, MOST + 1, 1.5, "3", True, None])
def test_a_wrong_number_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="lookup"):
        engine(model("rotary"), wrong)
