"""Speed: the numbers of a model whose step takes a known time, what a token costs by direct counting, and what cannot be measured."""

from __future__ import annotations

import time
from typing import Any

import pytest
from torch import Tensor

from tsuzuri.engine.engine import LocalEngine
from tsuzuri.errors import ConfigError
from tsuzuri.evals import speed
from tsuzuri.evals.speed import Cost, Lengths, Measures, Spread
from tsuzuri.model import compiled
from tsuzuri.model.adapt import quantize
from tsuzuri.model.encoder_decoder import EncoderDecoder, PairShape
from tsuzuri.model.families import marian
from tsuzuri.model.families.ngram import NgramModel
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.types import Past

SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 128,
}  # fmt: skip
SHORT = Lengths(prompt=8, made=12, long=40, streams=16)
STEP = 0.01  # seconds


class Slow(Transformer):
    """Every step takes STEP, and a little more."""

    calls = 0

    def hidden(self, tokens: Tensor, past: Past) -> Tensor:
        self.calls += 1
        time.sleep(STEP)
        return super().hidden(tokens, past)


def slow(lengths: Lengths = SHORT) -> Measures:
    model = Slow(Shape(**SIZES)).initialise(1).requires_grad_(False)
    return Measures(LocalEngine(model, (), 128), lengths)


def built(**choices: Any) -> Transformer:
    return Transformer(Shape(**{**SIZES, **choices})).initialise(1).requires_grad_(False)


def test_a_step_of_a_known_time_gives_the_rates_it_must() -> None:
    """A token, 16 tokens and a prompt are one step each. Above the bound nothing can be; far below only if tokens were not counted."""
    measures = slow()
    assert 1 / STEP / 5 < measures.decode() <= 1 / STEP
    assert 16 / STEP / 5 < measures.batch() <= 16 / STEP
    assert 40 / STEP / 5 < measures.prefill() <= 40 / STEP
    assert STEP <= measures.first() < 5 * STEP


def test_what_takes_long_is_stopped_after_enough_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "MOST", 3 * STEP)
    monkeypatch.setattr(speed, "LEAST", 0.0)
    measures = slow(Lengths(prompt=8, made=100, long=40, streams=4))
    measures.decode()
    assert measures.model.calls == 1 + speed.ENOUGH, "the prompt, and as many tokens"
    before = measures.model.calls
    measures.batch()
    assert measures.model.calls - before <= 1 + speed.ENOUGH + 1


def test_measuring_leaves_nothing_running_and_no_page_taken() -> None:
    measures = slow()
    measures.batch()
    assert measures._many.step() is False
    assert not measures._many._running and not measures._many._waiting


def test_lengths_fit_the_context() -> None:
    assert Lengths().within(4096) == Lengths()
    short = Lengths().within(100)
    assert short.prompt + short.made <= 100 and short.long < 100 and short.streams == 16
    assert Measures(LocalEngine(built(max_position_embeddings=32), (), 32), Lengths()).batch() > 0
    with pytest.raises(ConfigError, match="31"):
        Lengths().within(31)


def test_a_spread_is_median_and_quartiles() -> None:
    spread = Spread((5.0, 1.0, 3.0, 2.0, 4.0))
    assert (spread.median, spread.quartiles, spread.width) == (3.0, (2.0, 4.0), pytest.approx(2 / 3))
    assert spread.as_json() == {"median": 3.0, "low": 2.0, "high": 4.0, "samples": [5.0, 1.0, 3.0, 2.0, 4.0]}
    assert Spread((2.0,)).quartiles == (2.0, 2.0)


# ── what a token costs

BLOCK = 4 * 32 * 32 + 3 * 32 * 64  # weights of the matrices of a block
NORMS = 5 * 32


def test_a_token_reads_every_weight_but_of_a_table_its_row() -> None:
    own, tied = Cost.of(built()), Cost.of(built(tie_word_embeddings=True))
    assert own == Cost(4 * (2 * BLOCK + 64 * 32 + NORMS), 2 * BLOCK + 64 * 32, 2 * BLOCK)
    assert tied == own, "the table is the head: read whole, once"
    learned = Cost.of(built(position="learned"))
    assert learned.bytes == own.bytes, "of a table of positions one row is read"


def test_of_experts_those_that_a_token_goes_through_count() -> None:
    found = Cost.of(built(feedforward="experts", num_experts=8, num_experts_per_tok=2))
    assert found.prompt_products == 2 * (4 * 32 * 32 + 8 * 32 + 2 * 3 * 32 * 64)
    assert found.bytes == 4 * (found.products + NORMS)


@pytest.mark.parametrize("form", [None, "q8_0", "q4_0"])
@pytest.mark.parametrize("tied", [True, False])
def test_narrow_and_compiled_cost_as_many_products_and_fewer_bytes(form: str | None, tied: bool) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "tie_word_embeddings": tied}
    wide, model = Cost.of(built(**sizes)), built(**sizes)
    if form is not None:
        quantize.quantize(model, form)
    found = Cost.of(model)
    assert (found.products, found.prompt_products) == (wide.products, wide.prompt_products)
    bits = 32 if form is None else quantize.BITS[form]
    assert found.bytes == found.products * bits / 8 + 4 * 2 * NORMS
    native = compiled.made(model, 1)
    if native is not None:
        assert Cost.of(native).bytes == found.bytes - 4 * 2 * NORMS, "what is packed are the matrices"
        assert Cost.of(native).products == found.products


def test_what_continues_no_text_by_reading_weights_is_refused() -> None:
    pair = PairShape(**{**marian.USUAL, **SIZES}, decoder_start_token_id=4)
    for model in (NgramModel.fit([[1, 2, 3]], 5, 2), built(causal=False), EncoderDecoder(pair)):
        with pytest.raises(ConfigError, match="重み"):
            Measures(LocalEngine(model, (), 128), SHORT)  # type: ignore[arg-type]
