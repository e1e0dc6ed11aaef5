"""An encoder-decoder in the engine: the prompt is its source, limits count what is written, and what has no meaning is refused."""

from __future__ import annotations

import math

import pytest
import torch

from tsuzuri.engine.engine import LocalEngine
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import ConfigError, ContextError, InputError
from tsuzuri.model.encoder_decoder import EncoderDecoder, PairShape
from tsuzuri.model.families import marian
from tsuzuri.model.past import Bidirectional, Causal, Memory
from tsuzuri.model.transformer import Shape, Transformer

LIMIT, START = 12, 4
SOURCE = [5, 6, 7, 8, 9]


def built() -> EncoderDecoder:
    sizes = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    shape = PairShape(**{**marian.USUAL, **sizes}, max_position_embeddings=LIMIT, decoder_start_token_id=START, encoder_vocab_size=25)
    model, generator = EncoderDecoder(shape), torch.Generator().manual_seed(1)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.4, generator=generator)
    return model.requires_grad_(False)


def engine(eos: tuple[int, ...] = ()) -> LocalEngine:
    return LocalEngine(built(), eos, LIMIT)


def whole(target: list[int], source: list[int] = SOURCE) -> torch.Tensor:
    """Log-probabilities (T, V) of what follows each token of [START] + target, by the pasts of training."""
    model, read = built(), torch.tensor([START, *target])
    states = model.encode(torch.tensor(source), Bidirectional(torch.arange(len(source))))
    return model(read, Causal(torch.arange(len(read)), memory=Memory(states))).log_softmax(-1)


def test_what_is_streamed_is_what_the_pasts_of_training_give() -> None:
    tokens = list(engine().stream(SOURCE, Sampling(temperature=0, max_tokens=6, logprobs=2)))
    found = whole([token.id for token in tokens])
    for place, token in enumerate(tokens):
        assert token.id == int(found[place].argmax())
        assert token.logprob == pytest.approx(float(found[place, token.id]), abs=1e-5)
    assert tokens[-1].finish == "length"


def test_another_source_gives_another_text_and_the_same_one_the_same() -> None:
    one = engine()
    texts = [[(t.id, t.logprob) for t in one.stream(source, Sampling(seed=3, max_tokens=8))] for source in (SOURCE, SOURCE[1:], SOURCE)]
    assert texts[0] == texts[2] != texts[1]


def test_limits_count_what_is_written_and_an_end_ends() -> None:
    generation = engine().stream(SOURCE * 2, Sampling(seed=1))
    tokens = list(generation)
    assert len(tokens) == LIMIT - 1 and tokens[-1].finish == "length", "the start token takes one place"
    assert (generation.prompt_tokens, generation.completion_tokens, generation.cached_tokens) == (10, LIMIT - 1, 0)
    stopped = list(engine((tokens[2].id,)).stream(SOURCE * 2, Sampling(seed=1)))
    assert stopped[-1].finish == "stop" and [t.id for t in stopped] == [t.id for t in tokens[: len(stopped)]]
    assert len(list(engine().stream(SOURCE, Sampling(max_tokens=3)))) == 3


def test_it_can_be_cancelled() -> None:
    generation = engine().stream(SOURCE, Sampling(seed=1))
    next(generation)
    generation.cancel()
    assert list(generation) == []


def test_penalties_are_for_what_is_written_not_for_the_source() -> None:
    plain, strong = (
        [t.id for t in engine().stream(SOURCE, Sampling(temperature=0, max_tokens=8, repetition_penalty=p))] for p in (1.0, 10.0)
    )
    assert plain[0] == strong[0] or plain[0] == START
    assert plain != strong


def test_a_target_is_scored_given_its_source() -> None:
    target = [3, 9, 9, 20]
    found = engine().score_target(SOURCE, target)
    expected = whole(target)
    assert found == pytest.approx([float(expected[place, id]) for place, id in enumerate(target)], abs=1e-5)
    assert engine().score_target(SOURCE[::-1], target) != pytest.approx(found, abs=1e-3)


def test_the_first_token_and_the_embedding() -> None:
    logits = engine().after(SOURCE)
    torch.testing.assert_close(logits.log_softmax(-1), whole([])[0], rtol=1e-5, atol=1e-5)
    vector = engine().embed(SOURCE)
    assert math.fsum(x * x for x in vector) == pytest.approx(1, abs=1e-5) and len(vector) == 16


def test_what_has_no_meaning_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="score_target"):
        engine().score(SOURCE)
    with pytest.raises(ContextError):
        engine().stream([5] * (LIMIT + 1), Sampling())
    with pytest.raises(InputError, match="25"):
        engine().stream([27], Sampling())  # a word of the target's vocabulary only
    with pytest.raises(InputError):
        engine().stream([], Sampling())
    with pytest.raises(ContextError):
        engine().score_target(SOURCE, [3] * LIMIT)
    with pytest.raises(ConfigError):
        engine().stream(SOURCE, Sampling(stop_token_ids=(30,)))
    alone = Transformer(Shape(vocab_size=30, hidden_size=16, num_hidden_layers=1, max_position_embeddings=8)).initialise(1)
    with pytest.raises(ConfigError, match="score"):
        LocalEngine(alone, [], 8).score_target(SOURCE, SOURCE)


def test_the_source_is_encoded_once_and_its_keys_are_made_once() -> None:
    """Counted at the projections, which really run."""
    one = engine()
    calls: list[str] = []
    for name, layer in [(f"encoder {n}", b.mixer.query) for n, b in enumerate(one.model.encoder.blocks)] + [
        (f"cross {n}", b.cross.key) for n, b in enumerate(one.model.decoder.blocks)
    ]:
        layer.register_forward_hook(lambda *_, name=name: calls.append(name))
    assert len(list(one.stream(SOURCE, Sampling(seed=1, max_tokens=7)))) == 7
    assert sorted(calls) == ["cross 0", "cross 1", "encoder 0", "encoder 1"]
