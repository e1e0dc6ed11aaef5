"""Beam search: as wide as there are texts it is an exhaustive search; narrow it is what the rule says, in shared pages as in one's own."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from tsuzuri.engine.beam import Beam, Beams, search
from tsuzuri.engine.engine import LocalEngine
from tsuzuri.errors import ConfigError, ContextError, FormatError, InputError
from tsuzuri.model import compiled
from tsuzuri.model.encoder_decoder import EncoderDecoder, PairShape
from tsuzuri.model.families import mamba2, marian, ngram
from tsuzuri.model.transformer import Shape, Transformer

SMALL: dict[str, Any] = {"vocab_size": 5, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
CONTEXT, END = 80, 3


def filled(model: Any, spread: float = 0.5) -> Any:
    generator = torch.Generator().manual_seed(4)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=spread, generator=generator)
    return model.double().requires_grad_(False).eval()


def transformer(**choices: Any) -> Any:
    return filled(Transformer(Shape(**{**SMALL, "max_position_embeddings": CONTEXT, **choices})))


PAIR = filled(EncoderDecoder(PairShape(**{**marian.USUAL, **SMALL}, max_position_embeddings=CONTEXT, decoder_start_token_id=4)))
MODELS: dict[str, Any] = {
    "rotary": transformer(),
    "window": transformer(sliding_window=4),
    "mamba2": filled(Transformer(mamba2.Settings(hidden_size=16, num_hidden_layers=1).shape(5, CONTEXT))),
    "encoder-decoder": PAIR,
    "ngram": ngram.NgramModel.fit([[0, 1, 2, 4, 2, 1, 0, 0, 4, 3] * 5, [2, 2, 1, 4, 3, 0, 1] * 4], 5, 3),
}


def engine(model: Any, eos: tuple[int, ...] = (END,)) -> LocalEngine:
    return LocalEngine(model, eos, CONTEXT)


def logprob(one: LocalEngine, prompt: list[int], ids: tuple[int, ...]) -> float:
    """Without a cache: each token's distribution anew."""
    total = 0.0
    for place, id in enumerate(ids):
        if one.reads_source:
            return sum(one.score_target(prompt, ids))
        total += float(one.after([*prompt, *ids[:place]]).double().log_softmax(-1)[id])
    return total


def every_text(most: int) -> list[tuple[int, ...]]:
    """All outputs of at most `most` tokens: ended by END, or as long as that."""
    found = []
    for length in range(1, most + 1):
        for body in itertools.product([id for id in range(5) if id != END], repeat=length - 1):
            found.append((*body, END))
            if length == most:
                found += [(*body, id) for id in range(5) if id != END]
    return found


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_as_wide_as_the_tree_it_is_exhaustive(name: str, penalty: float) -> None:
    one, prompt = engine(MODELS[name]), [1, 2, 0, 4, 1]
    found = search(one, prompt, Beams(width=64, length_penalty=penalty, max_tokens=3))
    scored = {ids: logprob(one, prompt, ids) for ids in every_text(3)}
    wanted = sorted(scored, key=lambda ids: -scored[ids] / len(ids) ** penalty)[:64]
    assert len(found) == 64
    for beam, ids in zip(found, wanted, strict=True):
        assert beam.logprob == pytest.approx(scored[beam.ids], abs=1e-5)
        assert beam.score == pytest.approx(scored[ids] / len(ids) ** penalty, abs=1e-5)
    assert {beam.ids for beam in found[:10]} == set(wanted[:10])
    assert all(beam.finish == ("stop" if beam.ids[-1] == END else "length") for beam in found)


def plain(one: LocalEngine, prompt: list[int], settings: Beams, most: int) -> list[Beam]:
    """The rule in a few lines: every beam computed anew from its ids, no page, no sharing, one group."""
    live: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    ended: list[Beam] = []

    def beam(ids: tuple[int, ...], total: float, finish: Any) -> Beam:
        return Beam(ids, total, total / len(ids) ** settings.length_penalty, finish)

    for length in range(1, most + 1):
        options = []
        for ids, total in live:
            logits = one.after([*prompt, *ids]).double().log_softmax(-1)
            options += [((*ids, id), total + float(logits[id])) for id in range(len(logits)) if id != END or length >= settings.min_tokens]
        live = []
        for ids, total in sorted(options, key=lambda option: -option[1]):
            if len(live) == settings.width:
                break
            if ids[-1] == END:
                ended.append(beam(ids, total, "stop"))
            else:
                live.append((ids, total))
    found = [*ended, *(beam(ids, total, "length") for ids, total in live)]
    return sorted(found, key=lambda beam: -beam.score)[: settings.width]


@pytest.mark.parametrize("name", ["rotary", "window", "mamba2", "ngram"])
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("least", [0, 12])
def test_narrow_it_is_what_the_rule_says(name: str, width: int, penalty: float, least: int) -> None:
    """Over several pages, with beams that split and die."""
    one, prompt = engine(MODELS[name]), [1, 2, 0, 4] * 7
    settings = Beams(width=width, length_penalty=penalty, max_tokens=40, min_tokens=least)
    found, wanted = search(one, prompt, settings), plain(one, prompt, settings, 40)
    assert found[0].ids == wanted[0].ids
    assert found[0].logprob == pytest.approx(wanted[0].logprob, abs=1e-4)
    assert all(len(beam.ids) >= least for beam in found)


def test_the_search_ends_when_none_can_become_better() -> None:
    """Without this it would go on to the end of the context."""
    one, steps = engine(MODELS["rotary"]), []
    inner = one.model.hidden
    one.model.hidden = lambda *given: (steps.append(1), inner(*given))[1]  # type: ignore[attr-defined]
    try:
        search(one, [1, 2], Beams(width=2, length_penalty=0.0, min_tokens=3))
    finally:
        del one.model.hidden  # type: ignore[attr-defined]
    assert 3 <= len(steps) < CONTEXT - 2


def test_no_page_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    from tsuzuri.engine import beam as module

    made = []
    inner = module.Pages
    monkeypatch.setattr(module, "Pages", lambda *given: made.append(inner(*given)) or made[-1])
    module.search(engine(MODELS["rotary"]), [1, 2, 0] * 20, Beams(width=3, min_tokens=4, length_penalty=0.0))
    assert made[0].free == made[0].count


@pytest.mark.usefixtures("native")
def test_a_compiled_model_finds_the_same() -> None:
    model = transformer(vocab_size=40, hidden_size=32, num_attention_heads=4, intermediate_size=48).float()
    fast = compiled.made(model, 2)
    assert fast is not None
    settings = Beams(width=4, max_tokens=40)
    found, wanted = (search(engine(which), [1, 2, 30, 4] * 9, settings) for which in (fast, model))
    assert [beam.ids for beam in found] == [beam.ids for beam in wanted]
    assert all(abs(a.logprob - b.logprob) < 1e-2 for a, b in zip(found, wanted, strict=True))


def test_groups_say_different_things() -> None:
    one, alike = engine(MODELS["rotary"], eos=()), []
    for prompt in ([1, 2], [0, 4, 4], [3], [2, 2, 1, 0]):
        alike.append(len({beam.ids[0] for beam in search(one, prompt, Beams(width=4, max_tokens=6))}))
        apart = search(one, prompt, Beams(width=4, max_tokens=6, groups=4, diversity=100.0))
        assert len({beam.ids[0] for beam in apart}) == 4
        for beam in apart:  # the penalty moves the choice, never what is reported
            assert beam.logprob == pytest.approx(logprob(one, prompt, beam.ids), abs=1e-5)
    assert min(alike) < 4


def plain_groups(one: LocalEngine, prompt: list[int], settings: Beams, most: int) -> list[Beam]:
    """Vijayakumar et al. 2018, algorithm 1, for texts that do not end: group after group at each length, each beam computed anew."""
    groups: list[list[tuple[tuple[int, ...], float]]] = [[((), 0.0)] for _ in range(settings.groups)]
    for _ in range(most):
        said: list[int] = []
        for number, live in enumerate(groups):
            options = []
            for ids, total in live:
                for id, more in enumerate(one.after([*prompt, *ids]).double().log_softmax(-1).tolist()):
                    options.append((total + more - settings.diversity * said.count(id), (*ids, id), total + more))
            best = sorted(options, key=lambda option: -option[0])[: settings.width // settings.groups]
            groups[number] = [(ids, total) for _, ids, total in best]
            said += [ids[-1] for _, ids, _ in best]
    found = [Beam(ids, total, total / len(ids) ** settings.length_penalty, "length") for live in groups for ids, total in live]
    return sorted(found, key=lambda beam: -beam.score)


@pytest.mark.parametrize("name", ["rotary", "window", "mamba2", "ngram"])
@pytest.mark.parametrize(("width", "groups"), [(4, 4), (6, 3), (6, 2)])
@pytest.mark.parametrize("diversity", [0.3, 2.0])
def test_groups_are_what_the_rule_says(name: str, width: int, groups: int, diversity: float) -> None:
    """Over several pages; all beams, and not the best one alone."""
    one, prompt = engine(MODELS[name], eos=()), [1, 2, 0, 4] * 7
    settings = Beams(width=width, groups=groups, diversity=diversity, max_tokens=12)
    found, wanted = search(one, prompt, settings), plain_groups(one, prompt, settings, 12)
    assert [beam.ids for beam in found] == [beam.ids for beam in wanted]
    assert [beam.logprob for beam in found] == pytest.approx([beam.logprob for beam in wanted], abs=1e-4)


@pytest.mark.parametrize(
    ("name", "value"),
    [("width", 0), ("width", 65), ("length_penalty", math.nan), ("groups", 3), ("diversity", -1), ("max_tokens", 0), ("width", 2.5)],
)
def test_settings_that_cannot_be_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        Beams(**{name: value})


def test_what_would_do_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="groups"):
        Beams(groups=2)
    with pytest.raises(ConfigError, match="diversity"):
        Beams(diversity=1.0)


def test_what_cannot_be_searched() -> None:
    one = engine(MODELS["rotary"])
    for ids, error in (([], InputError), ([5], InputError), ([1] * CONTEXT, ContextError)):
        with pytest.raises(error):
            search(one, ids, Beams())
    with pytest.raises(ConfigError, match="stop_token_ids"):
        search(one, [1], Beams(stop_token_ids=(5,)))
    broken = transformer()
    broken.embedding.weight[1] = math.nan
    with pytest.raises(FormatError):
        search(engine(broken), [1], Beams(max_tokens=2))
