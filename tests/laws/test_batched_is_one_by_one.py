"""One by one = batched = read in pieces = after preemption = with and without pages of another: the same tokens for each request."""

from __future__ import annotations

import gc
import random
import threading
from dataclasses import replace
from typing import Any

import pytest
import torch

from tsuzuri.engine.batch import BatchEngine, Stream
from tsuzuri.engine.choosing import Choosing
from tsuzuri.engine.engine import LocalEngine
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import BusyError, ConfigError, ContextError, InputError
from tsuzuri.model import compiled
from tsuzuri.model.encoder_decoder import EncoderDecoder, PairShape
from tsuzuri.model.families import lstm, mamba2, marian, ngram
from tsuzuri.model.parts.rotary import Scaling
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.types import Model, Token

VOCABULARY, CONTEXT = 40, 160
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": CONTEXT,
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "rotary": {},
    "grouped": {"num_key_value_heads": 2},
    "window": {"sliding_window": 6},
    "window and full, capped": {"layer_types": ("sliding_attention", "full_attention"), "sliding_window": 5, "attn_logit_softcapping": 2.0},
    "alibi": {"position": "alibi", "num_key_value_heads": 1},
    "learned": {"position": "learned"},
    "dynamic": {"rope_scaling": Scaling(rope_type="dynamic", factor=4.0, original_max_position_embeddings=16)},
}


def filled(model: Any, seed: int = 3) -> Any:
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=generator)
    return model.double().requires_grad_(False).eval()


def models() -> dict[str, Model]:
    found: dict[str, Model] = {name: filled(Transformer(Shape(**{**SIZES, **choices}))) for name, choices in SHAPES.items()}
    small = {"hidden_size": 32, "num_hidden_layers": 2}
    found["lstm"] = filled(Transformer(lstm.Settings(**small).shape(VOCABULARY, CONTEXT)))
    found["mamba2"] = filled(Transformer(mamba2.Settings(hidden_size=16, num_hidden_layers=1).shape(VOCABULARY, CONTEXT)))
    pair = {key: value for key, value in SIZES.items() if key != "max_position_embeddings"}
    found["marian"] = filled(
        EncoderDecoder(PairShape(**{**marian.USUAL, **pair}, max_position_embeddings=CONTEXT, decoder_start_token_id=4))
    )
    found["ngram"] = ngram.NgramModel.fit([[random.Random(n).randrange(VOCABULARY) for _ in range(400)] for n in range(3)], VOCABULARY, 3)
    return found


MODELS = models()


def engine(model: Model, eos: tuple[int, ...] = ()) -> LocalEngine:
    return LocalEngine(model, eos, CONTEXT)


def asked(seed: int, count: int = 9) -> list[tuple[list[int], Sampling]]:
    """Prompts, some with a common beginning, and samplings, some greedy."""
    numbers = random.Random(seed)
    shared = [numbers.randrange(VOCABULARY) for _ in range(40)]
    found = []
    for number in range(count):
        own = [numbers.randrange(VOCABULARY) for _ in range(numbers.randrange(1, 60))]
        prompt = shared[: numbers.choice((0, 8, 23, 40))] + own
        warm = {"temperature": 0.0} if number % 3 == 0 else {"temperature": 0.9, "top_p": 0.95, "seed": number}
        found.append((prompt, Sampling(**warm, max_tokens=numbers.randrange(1, 30), logprobs=2)))
    return found


def alone(one: LocalEngine, prompt: list[int], sampling: Sampling) -> list[Token]:
    one.__init__(one.model, one.eos_ids, one.context_length, one.device)  # type: ignore[misc]  nothing kept of an earlier prompt
    return list(one.stream(prompt, sampling))


def same(found: list[Token], wanted: list[Token], bound: float = 1e-5) -> None:
    """Models in float64; what is said of a token is in float32."""
    assert [(t.id, t.finish, [id for id, _ in t.top]) for t in found] == [(t.id, t.finish, [id for id, _ in t.top]) for t in wanted]
    assert all(abs(a.logprob - b.logprob) < bound for a, b in zip(found, wanted, strict=True))


def drained(batch: BatchEngine, streams: list[Stream]) -> list[list[Token]]:
    while batch.step():
        pass
    assert batch.pages.free == batch.pages.count  # none is lost
    return [list(stream) for stream in streams]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("pages", "size", "budget"), [(400, 4, 128), (45, 4, 16), (60, 3, 7)])
def test_the_same_tokens_for_each(name: str, pages: int, size: int, budget: int) -> None:
    """Plenty of room; few pages, so that some are preempted; prompts in pieces of few tokens."""
    one = engine(MODELS[name], eos=(7,))
    batch = BatchEngine(one, pages, size=size, budget=budget)
    requests = asked(5)
    streams = [batch.stream(prompt, sampling, tenant=f"{number % 2}") for number, (prompt, sampling) in enumerate(requests)]
    for found, (prompt, sampling) in zip(drained(batch, streams), requests, strict=True):
        same(found, alone(one, prompt, sampling))
    streams = [batch.stream(prompt, sampling, tenant=f"{number % 2}") for number, (prompt, sampling) in enumerate(requests)]
    for found, (prompt, sampling) in zip(drained(batch, streams), requests, strict=True):  # now with pages that are known
        same(found, alone(one, prompt, sampling))


def test_some_are_preempted_and_some_begin_with_known_pages() -> None:
    """That the law above meets what it speaks of."""
    batch = BatchEngine(engine(MODELS["rotary"]), 45, size=4, budget=16)
    back: list[object] = []
    batch._back = lambda request, inner=batch._back: (back.append(request), inner(request))[1]  # type: ignore[method-assign]
    streams = [batch.stream(prompt, sampling) for prompt, sampling in asked(5)]
    drained(batch, streams)
    assert len(back) >= 2
    batch = BatchEngine(engine(MODELS["rotary"]), 400, size=4)
    for turn in (0, 1):
        streams = [batch.stream(prompt, sampling) for prompt, sampling in asked(5)]
        drained(batch, streams)
        prompts = [prompt for prompt, _ in asked(5)]
        if turn:
            assert [stream.cached_tokens for stream in streams] == [(len(prompt) - 1) // 4 * 4 for prompt in prompts]


@pytest.mark.parametrize("seed", range(12))
def test_whatever_comes_when_and_goes_when(seed: int) -> None:
    """Requests come between steps, some are cancelled between steps; the rest are what they would be alone."""
    numbers, one = random.Random(seed), engine(MODELS["grouped"], eos=(7,))
    batch = BatchEngine(one, numbers.choice((48, 70, 200)), size=4, budget=numbers.choice((5, 20, 64)))
    waiting, begun, cancelled = asked(seed, 12), [], set()
    while waiting or batch.step():
        if waiting and numbers.random() < 0.4:
            prompt, sampling = waiting.pop()
            begun.append((prompt, sampling, batch.stream(prompt, sampling, tenant=numbers.choice("ab"))))
        if begun and numbers.random() < 0.05:
            victim = numbers.randrange(len(begun))
            begun[victim][2].cancel()
            cancelled.add(victim)
        batch.step()
    assert batch.pages.free == batch.pages.count
    assert len(cancelled) < len(begun)
    for number, (prompt, sampling, stream) in enumerate(begun):
        found, wanted = list(stream), alone(one, prompt, sampling)
        same(found, wanted[: len(found)] if number in cancelled else wanted)


def test_cancelled_within_a_step() -> None:
    batch = BatchEngine(engine(MODELS["rotary"]), 100, size=4)
    stream = batch.stream([1, 2, 3], Sampling(seed=1, max_tokens=100))
    for _ in range(5):
        batch.step()
    stream.cancel()
    assert not batch.step()
    assert len(list(stream)) == 5
    assert batch.pages.free == 100
    forgotten = batch.stream([1, 2, 3], Sampling(seed=1, max_tokens=100))
    batch.step()
    del forgotten  # nobody reads it any more
    assert not batch.step()


def test_tenants_take_turns() -> None:
    """Many of one tenant do not keep the first of another waiting."""
    batch = BatchEngine(engine(MODELS["rotary"]), 40, size=4, budget=12)
    order: list[str] = []
    streams = {f"甲{n}": batch.stream([1] * 12, Sampling(temperature=0, max_tokens=1), tenant="甲") for n in range(5)}
    streams["乙"] = batch.stream([2] * 12, Sampling(temperature=0, max_tokens=1), tenant="乙")
    while batch.step():
        order += [name for name, stream in streams.items() if stream.completion_tokens and name not in order]
    assert order.index("乙") == 1


def test_those_that_write_do_not_wait_for_a_long_prompt() -> None:
    batch = BatchEngine(engine(MODELS["rotary"]), 100, size=4, budget=8)
    quick = batch.stream([1], Sampling(seed=1, max_tokens=40, ignore_eos=True))
    batch.step()
    batch.stream([2] * 100, Sampling(seed=1, max_tokens=1))
    for _ in range(5):
        batch.step()
    assert quick.completion_tokens == 6


def test_in_a_thread_of_its_own_and_read_from_others() -> None:
    one, requests = engine(MODELS["rotary"]), asked(9)
    batch, stop, found = BatchEngine(one, 60, size=4), threading.Event(), {}
    worker = threading.Thread(target=batch.run, args=(stop,))
    worker.start()

    def read(number: int) -> None:
        found[number] = list(batch.stream(*requests[number]))

    readers = [threading.Thread(target=read, args=(number,)) for number in range(len(requests))]
    for thread in readers:
        thread.start()
    for thread in readers:
        thread.join()
    stop.set()
    worker.join()
    for number, request in enumerate(requests):
        same(found[number], alone(one, *request))


def test_what_cannot_be_is_refused_before_it_waits() -> None:
    batch = BatchEngine(engine(MODELS["rotary"]), 10, size=4, waiting=2)
    for ids, sampling, error in (
        ([], Sampling(), InputError),
        ([VOCABULARY], Sampling(), InputError),
        ([1] * CONTEXT, Sampling(), ContextError),
        ([1] * 30, Sampling(max_tokens=11), ContextError),  # more than all pages
        ([1], Sampling(max_tokens=2, stop_token_ids=(VOCABULARY,)), ConfigError),
        ([1], Sampling(max_tokens=2, logit_bias={VOCABULARY: 1}), ConfigError),
    ):
        with pytest.raises(error):
            batch.stream(ids, sampling)
    kept = [batch.stream([1], Sampling(max_tokens=2)) for _ in range(2)]
    with pytest.raises(BusyError, match="2"):
        batch.stream([1], Sampling(max_tokens=2))
    assert all(len(tokens) == 2 for tokens in drained(batch, kept))


class Failing(Choosing):
    def __call__(self, logits: torch.Tensor) -> Token:
        raise ValueError("だめ")


def test_what_fails_for_one_fails_for_it_alone() -> None:
    """A choice that goes wrong is told to its own reader."""
    batch = BatchEngine(engine(MODELS["rotary"]), 100, size=4)
    good, bad = (batch.stream([1, 2], Sampling(seed=1, max_tokens=5)) for _ in range(2))
    bad._request.choosing = Failing([1, 2], Sampling(), (), CONTEXT)
    while batch.step():
        pass
    assert len(list(good)) == 5
    with pytest.raises(ValueError, match="だめ"):
        next(bad)
    assert batch.pages.free == 100


def test_a_step_that_fails_is_told_to_those_it_was_for(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = BatchEngine(engine(MODELS["rotary"]), 100, size=4)
    first = batch.stream([1, 2], Sampling(seed=1, max_tokens=5))
    with monkeypatch.context() as patch:
        patch.setattr(type(batch._runner), "__call__", lambda *_: (_ for _ in ()).throw(RuntimeError("壊れた")))
        batch.step()
    with pytest.raises(RuntimeError, match="壊れた"):
        next(first)
    second = batch.stream([1, 2], Sampling(seed=1, max_tokens=5))
    assert len(drained(batch, [second])[0]) == 5


def test_whoever_reads_when_it_stops_is_told() -> None:
    batch, stop = BatchEngine(engine(MODELS["rotary"]), 4, size=4, budget=4), threading.Event()
    streams = [batch.stream([1], Sampling(max_tokens=15, seed=n)) for n in range(3)]
    batch.step()
    stop.set()
    batch.run(stop)
    assert [len(list(stream)) for stream in streams] == [1, 1, 1]
    assert batch.pages.free == 4


@pytest.mark.parametrize("name", ["rotary", "grouped", "window", "alibi", "learned"])
@pytest.mark.usefixtures("native")
def test_a_compiled_model_in_its_own_pages(name: str) -> None:
    """The same tokens as the same compiled model one by one (greedy, and the kernels' rows do not depend on their neighbours)."""
    model = compiled.made(filled(Transformer(Shape(**{**SIZES, **SHAPES[name]}))).float(), 2)
    assert model is not None
    one = engine(model)
    batch = BatchEngine(one, 20)
    requests = [(prompt, replace(sampling, logprobs=0)) for prompt, sampling in asked(4)]
    streams = [batch.stream(prompt, sampling) for prompt, sampling in requests]
    for found, (prompt, sampling) in zip(drained(batch, streams), requests, strict=True):
        same(found, alone(one, prompt, sampling), bound=1e-3)


def test_a_common_beginning_is_computed_once() -> None:
    """Asked for at the same time, the second waits for the pages that the first is computing; another tenant does not."""
    one, prompt = engine(MODELS["rotary"]), [random.Random(1).randrange(VOCABULARY) for _ in range(50)]
    batch, read = BatchEngine(one, 200, size=4, budget=16), []
    inner = type(batch._runner).__call__
    sampling = Sampling(temperature=0.9, seed=5, max_tokens=3)
    wanted = alone(one, prompt, sampling)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            type(batch._runner), "__call__", lambda self, parts, ids, chosen: (read.append(len(ids)), inner(self, parts, ids, chosen))[1]
        )
        streams = [batch.stream(prompt, sampling, tenant=tenant) for tenant in "甲甲甲乙"]
        for found in drained(batch, streams):
            same(found, wanted)
    assert [stream.cached_tokens for stream in streams] == [0, 48, 48, 0]
    assert sum(read) == 2 * 50 + 2 * 2 + 4 * 2


def test_what_is_asked_after_the_end_is_refused() -> None:
    batch, stop = BatchEngine(engine(MODELS["rotary"]), 4, size=4), threading.Event()
    stop.set()
    batch.run(stop)
    with pytest.raises(BusyError):
        batch.stream([1], Sampling(max_tokens=2))


def test_a_source_is_not_read_for_one_who_would_only_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = BatchEngine(engine(MODELS["marian"]), 40, size=4, waiting=1)
    kept = batch.stream([1, 2], Sampling(max_tokens=2))
    monkeypatch.setattr(batch.one, "memory", lambda ids: pytest.fail("read all the same"))
    with pytest.raises(BusyError):
        batch.stream([1, 2], Sampling(max_tokens=2))
    assert kept.completion_tokens == 0


@pytest.mark.usefixtures("native")
def test_a_compiled_models_pages_go_back() -> None:
    model = compiled.made(filled(Transformer(Shape(**SIZES))).float(), 1)
    assert model is not None
    one, taken = engine(model), []
    for _ in range(3):
        batch = BatchEngine(one, 20)
        drained(batch, [batch.stream([1, 2, 3], Sampling(temperature=0, max_tokens=5))])
        taken.append(model._room)
        del batch
        gc.collect()
    assert len(set(taken)) == 1
    assert len(model._free) == model._room
