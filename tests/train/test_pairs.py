"""Source to target and span corruption: pairs in one row do not see each other, parts of a batch are the whole, nothing is lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsuzuri.errors import ConfigError, InputError
from tsuzuri.model import weights
from tsuzuri.model.encoder_decoder import EncoderDecoder
from tsuzuri.recipe.stages import seq2seq as seq2seq_stage
from tsuzuri.train import bigram, loop
from tsuzuri.train.data import pack_pairs
from tsuzuri.train.objectives import seq2seq, span

START, END = 1, 2


def built(family: str = "t5", dtype: torch.dtype = torch.float64) -> EncoderDecoder:
    module = weights.decoder(family)
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    model = EncoderDecoder(module.SHAPE(**{**module.USUAL, **sizes}, max_position_embeddings=64))
    generator = torch.Generator().manual_seed(3)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=generator)
    return model.to(dtype)


def texts(lengths: Sequence[tuple[int, int]], seed: int = 0) -> list[seq2seq.Example]:
    random = np.random.default_rng(seed)
    return [seq2seq.Example(random.integers(3, 40, s), random.integers(3, 40, t)) for s, t in lengths]


def nats(model: EncoderDecoder, examples: Sequence[seq2seq.Example], room: tuple[int, int] = (24, 20)) -> tuple[Tensor, int, int]:
    """(summed nats, targets, rows) of all pairs, packed into rows of that room."""
    objective = seq2seq.Objective(seq2seq.Settings(length=room[1], source_length=room[0]), examples, START, END)
    batch = objective.batch(list(range(objective.rows)))
    return objective.loss(model, batch), batch.trained, objective.rows


LENGTHS = [(9, 4), (6, 8), (3, 2), (7, 5)]


@pytest.mark.parametrize("family", ["t5", "marian"])
def test_packed_pairs_are_each_pair_alone(family: str) -> None:
    """Loss and every gradient of pairs that share rows = the sum of each pair in a row of its own size."""
    model, examples = built(family), texts(LENGTHS)
    packed, targets, rows = nats(model, examples)
    assert rows == 2 and targets == sum(t + 1 for _, t in LENGTHS)
    packed.backward()
    together = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    alone = sum(nats(model, [e], (len(e.source) + 1, len(e.target) + 1))[0] for e in examples)
    alone.backward()
    torch.testing.assert_close(packed, alone, rtol=1e-12, atol=1e-12)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, together[name], rtol=1e-9, atol=1e-11)
        assert weight.grad.any(), f"{name} has no part in the loss"


def test_another_neighbour_changes_not_one_bit_of_a_pair_and_its_own_source_does() -> None:
    model, (one, other) = built(), texts([(9, 4), (6, 8)])
    objective = [seq2seq.Objective(seq2seq.Settings(20, 24), [one, second], START, END) for second in (other, texts([(6, 8)], 5)[0])]
    first, changed = (o.batch([0]) for o in objective)
    assert o_rows(objective) == [1, 1]
    logits = [scored(model, batch) for batch in (first, changed)]
    own = first.documents[0] == (0 if int(first.tokens[0, 1]) == int(one.target[0]) else 1)
    assert torch.equal(logits[0][0, own], logits[1][0, own])
    moved = first.source.clone()
    place = int((first.source_documents[0] == int(first.documents[0, own][0])).nonzero()[0])
    moved[0, place] = (moved[0, place] + 1) % 40
    touched = scored(model, dataclasses.replace(first, source=moved))
    assert (touched[0, own] - logits[0][0, own]).abs().max() > 1e-3
    rest = (first.documents[0] >= 0) & ~own
    assert torch.equal(touched[0, rest], logits[0][0, rest])


def o_rows(objectives: Sequence[seq2seq.Objective]) -> list[int]:
    return [objective.rows for objective in objectives]


@torch.inference_mode()
def scored(model: EncoderDecoder, batch: object) -> Tensor:
    from tsuzuri.model.past import Bidirectional, Causal, Memory

    states = model.encode(batch.source, Bidirectional(batch.source_positions, batch.source_documents))
    return model(batch.tokens, Causal(batch.positions, batch.documents, memory=Memory(states, batch.source_documents)))


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_gradients_of_the_parts_sum_to_those_of_the_whole(rows: int) -> None:
    objective = seq2seq.Objective(seq2seq.Settings(10, 12), texts([(8, 6), (3, 2), (9, 9), (4, 7), (11, 3)]), START, END)
    batch = objective.batch(list(range(objective.rows)))
    found = []
    for parts in ([batch], batch.split(rows)):
        model = built()
        for part in parts:
            objective.loss(model, part).backward()
        found.append({name: weight.grad for name, weight in model.named_parameters()})
    for name, gradient in found[0].items():
        assert (found[1][name] - gradient).norm() <= 1e-12 * gradient.norm(), name


def trained(directory: Path, steps: int, stop: int | None = None) -> tuple[EncoderDecoder, loop.Outcome | None]:
    objective = seq2seq.Objective(seq2seq.Settings(20, 24), texts(LENGTHS * 4), START, END)
    model = built(dtype=torch.float32)
    settings = loop.LoopSettings(steps=steps, batch=2, precision="float32", checkpoint_every=3)

    def interrupted(model: EncoderDecoder, step: int) -> dict[str, float]:
        if step == stop:
            raise KeyboardInterrupt
        return {}

    if stop is not None:
        with pytest.raises(KeyboardInterrupt):
            loop.train(
                model, objective, loop.LoopSettings(steps=steps, batch=2, precision="float32", checkpoint_every=3, evaluate_every=1),
                directory, recipe={}, family="t5", evaluate=interrupted,
            )  # fmt: skip
        return model, None
    return model, loop.train(model, objective, settings, directory, recipe={}, family="t5")


def test_resumed_is_uninterrupted_and_the_loss_falls(tmp_path: Path) -> None:
    whole, outcome = trained(tmp_path / "whole", 12)
    trained(tmp_path / "cut", 12, stop=8)
    resumed, again = trained(tmp_path / "cut", 12)
    assert again.resumed_at == 6 and again.loss == outcome.loss
    for (name, weight), other in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(weight, other), name
    first = nats(built(dtype=torch.float32), texts(LENGTHS * 4))
    assert outcome.loss < 0.97 * float(first[0].detach()) / first[1]


def test_every_pair_stands_in_one_row_that_holds_it() -> None:
    random = np.random.default_rng(1)
    sizes = [(int(s), int(t)) for s, t in random.integers(1, 21, (300, 2))]
    rows = pack_pairs(sizes, (20, 30))
    assert sorted(number for row in rows for number in row) == list(range(300))
    assert all(sum(sizes[n][side] for n in row) <= most for row in rows for side, most in ((0, 20), (1, 30)))
    assert len(rows) < 220


def test_a_pair_longer_than_a_row_is_refused_not_cut() -> None:
    with pytest.raises(InputError, match="source_length=5"):
        seq2seq.Objective(seq2seq.Settings(9, 5), texts([(4, 8), (5, 3)]), START, END)


# ── span corruption


class Stored:
    def __init__(self, lengths: Sequence[int]) -> None:
        random = np.random.default_rng(2)
        self.texts = [random.integers(3, 30, n) for n in lengths]
        self.lengths = np.array(lengths)

    def document(self, index: int) -> NDArray[np.int64]:
        return self.texts[index]


SENTINELS = list(range(39, 29, -1))


def test_what_is_taken_out_is_the_share_and_the_length_that_the_paper_says() -> None:
    settings, random = span.Settings(), np.random.default_rng(0)
    taken = [span.taken(512, settings, random) for _ in range(200)]
    assert {int(out.sum()) for out in taken} == {round(512 * 0.15)}
    begins = sum(out & ~np.append(False, out[:-1]) for out in taken)
    assert begins.sum() == 200 * round(77 / 3)
    assert begins[20:-20].max() < 4 * begins[20:-20].mean(), "spans begin anywhere"


def test_the_example_of_figure_2() -> None:
    """Thank you for inviting me to your party last week."""
    words = ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week", "."]
    ids, out = np.arange(11), np.array([False, False, True, True, False, False, False, False, True, False, False])
    source, target = span.corrupted(ids, out, np.array([100, 101, 102, 103]))
    names = dict(enumerate(words)) | {100: "<X>", 101: "<Y>", 102: "<Z>"}
    assert " ".join(names[i] for i in source) == "Thank you <X> me to your party <Y> week ."
    assert " ".join(names[i] for i in target) == "<X> for inviting <Y> last <Z>"


def test_nothing_is_lost_and_the_same_place_is_taken_out_again() -> None:
    documents = Stored([40, 3, 17, 2, 1, 31])
    objective = span.Objective(span.Settings(length=16, density=0.3, span=2), documents, SENTINELS, START, END)
    batch = objective.batch(list(range(objective.rows)))
    again = objective.batch(list(range(objective.rows)))
    assert torch.equal(batch.source, again.source)
    other = span.Objective(span.Settings(length=16, density=0.3, span=2, seed=9), documents, SENTINELS, START, END)
    assert not torch.equal(batch.source[:2], other.batch([0, 1]).source)
    for number, (document, begin, stop) in enumerate(objective._stretches):
        source, tokens, wanted = objective._pair(number)
        assert tokens[0] == START and wanted[-1] == END and source[-1] == END
        assert span.joined(source[:-1].tolist(), wanted[:-1].tolist(), SENTINELS) == documents.texts[document][begin:stop].tolist()
    assert sum(stop - begin for _, begin, stop in objective._stretches) == 40 + 3 + 17 - 1 + 2 + 31, (
        "a lone token has nothing to say it from"
    )


def test_span_corruption_is_learned_by_the_same_loop(tmp_path: Path) -> None:
    documents = Stored([30] * 6)
    objective = span.Objective(span.Settings(length=30), documents, SENTINELS, START, END)
    model = built(dtype=torch.float32)
    batch = objective.batch(list(range(objective.rows)))
    before = float(objective.loss(model, batch).detach()) / batch.trained
    settings = loop.LoopSettings(steps=60, batch=6, precision="float32")
    outcome = loop.train(model, objective, settings, tmp_path, recipe={}, family="t5")
    assert outcome.loss < 0.7 * before


def test_too_few_sentinels_are_refused() -> None:
    with pytest.raises(ConfigError):
        span.Objective(span.Settings(length=200), Stored([50]), SENTINELS[:3], START, END)


def test_the_start_from_pairs_is_that_of_the_decoder() -> None:
    """Before the blocks say anything, an encoder-decoder that starts so knows what follows what, whatever its source is."""
    pair = seq2seq_stage.ModelSettings(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48).shape(40, 64, 0)
    model = EncoderDecoder(pair).initialise(1)
    random = np.random.default_rng(3)
    some = [seq2seq.Example(random.integers(4, 40, 5), np.resize(np.arange(4, 16), 9 + n % 5)) for n in range(40)]
    objective = seq2seq.Objective(seq2seq.Settings(64, 64), some, 0, 0)
    batch = objective.batch(range(objective.rows))
    before = float(objective.loss(model, batch).detach()) / batch.trained
    fitted = bigram.fit(model.decoder, bigram.count(seq2seq_stage.Written(some), 0, 40), discount=0)
    after = float(objective.loss(model, batch).detach()) / batch.trained
    assert before == pytest.approx(np.log(40), rel=0.02)
    assert after == pytest.approx(fitted, abs=0.1) and after < 1.0


@pytest.mark.parametrize("family", ["t5", "marian"])
def test_a_start_that_cannot_be_is_refused_by_name(family: str) -> None:
    given = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48, "family": family}
    asked = {"model": seq2seq_stage.ModelSettings(**given), "inputs": ["a"], "held_out": ["b"], "steps": 1, "start": "bigram"}
    if family == "t5":
        seq2seq_stage.Settings(**asked)
        return
    with pytest.raises(ConfigError, match=r"seq2seq\.start"):
        seq2seq_stage.Settings(**asked)
