"""The objectives of encoders: what each trains on, and that they are trained by the one loop as everything else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoders import FRAME, HEADS, Documents, built, objective

from tsuzuri.errors import InputError, StopRequested
from tsuzuri.model.transformer import Transformer
from tsuzuri.recipe.stages.masked import scripts_of
from tsuzuri.text import fast
from tsuzuri.text.split import split
from tsuzuri.train import checkpoint
from tsuzuri.train.data import IGNORED
from tsuzuri.train.loop import LoopSettings, train
from tsuzuri.train.objectives import classify, embed, extract, masked
from tsuzuri.train.watch import Metrics, Watch

# ── the laws


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("rows", [1, 2, 4])
def test_a_batch_in_parts_is_the_whole_batch(name: str, rows: int) -> None:
    """The same loss and gradients; 4 does not divide 6."""
    found, grads = objective(name), []
    torch.manual_seed(1)
    batch = found.batch(list(range(6)))
    for parts in ([batch], batch.split(rows)):
        model = built(name).double()
        torch.manual_seed(0)
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.2)
        total = sum(found.loss(model, part) for part in parts)
        (total / batch.trained).backward()
        grads.append((float(total.detach()), {n: w.grad for n, w in model.named_parameters() if w.grad is not None}))
    (whole, one), (again, other) = grads
    assert again == pytest.approx(whole, rel=1e-12) and whole > 0
    assert len(one) == len(dict(built(name).named_parameters())), "every weight has a part in the loss"
    for weight, gradient in one.items():
        assert (other[weight] - gradient).norm() <= 1e-11 * gradient.norm() + 1e-14, weight


class Stops(Watch):
    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, metrics: Metrics, steps: int) -> None:
        import signal

        if metrics.step == self.at:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("name", HEADS)
def test_resumed_is_uninterrupted(tmp_path: Path, name: str) -> None:
    """To the last bit, what is hidden included."""
    settings = LoopSettings(steps=4, batch=3, micro_batch=2, precision="float32")

    def run(directory: Path, watch: Watch | None = None) -> dict[str, torch.Tensor]:
        train(built(name), objective(name), settings, directory, recipe={}, family="modernbert", watch=watch)
        found, _ = checkpoint.latest(directory / "checkpoints")
        assert found is not None
        return checkpoint.load(found).tensors

    whole = run(tmp_path / "whole")
    with pytest.raises(StopRequested):
        run(tmp_path / "cut", Stops(2))
    again = run(tmp_path / "cut")
    assert set(whole) == set(again) and all(torch.equal(whole[key], again[key]) for key in whole)


@pytest.mark.parametrize("name", HEADS)
def test_the_loss_falls(tmp_path: Path, name: str) -> None:
    steps = 160 if name == "masked" else 40
    settings = LoopSettings(steps=steps, batch=6, precision="float32", learning_rate=1e-2, muon_learning_rate=0.03, weight_decay=0.0)
    first, found = objective(name), objective(name)
    torch.manual_seed(5)
    batch = first.batch(list(range(6)))
    with torch.no_grad():
        before = float(first.loss(built(name), batch)) / batch.trained
    model = built(name)
    train(model, found, settings, tmp_path, recipe={}, family="modernbert")
    with torch.no_grad():
        after = float(found.loss(model, batch)) / batch.trained
    assert after < 0.8 * before, (before, after)


# ── masked


def drawn(settings: masked.Settings, scripts: Any = None) -> Any:
    torch.manual_seed(2)
    found = masked.Objective(settings, Documents(), FRAME, 60, scripts)
    return found, found.batch(list(range(found.rows)) * 30)


def test_the_shares_are_those_of_the_paper() -> None:
    found, batch = drawn(masked.Settings(32))
    targets = batch.targets != IGNORED
    original = masked.Objective(masked.Settings(32, share=1e-9), Documents(), FRAME, 60).batch(list(range(found.rows)) * 30).tokens
    text = (original > 3).sum()
    assert abs(float(targets.sum() / text) - 0.15) < 0.01
    shown = batch.tokens[targets]
    assert abs(float((shown == FRAME.mask).double().mean()) - 0.8) < 0.03
    assert abs(float((shown == batch.targets[targets]).double().mean()) - 0.1) < 0.03
    assert torch.equal(batch.targets[targets], original[targets]) and torch.equal(batch.tokens[~targets], original[~targets])


def test_every_token_of_the_text_stands_in_one_row() -> None:
    found = masked.Objective(masked.Settings(16, share=1e-9), Documents(), FRAME, 60)
    tokens = found.batch(list(range(found.rows))).tokens
    assert sorted(tokens[tokens > 3].tolist()) == sorted(id for text in Documents().texts for id in text.tolist())
    assert int((tokens == FRAME.first).sum()) == int((tokens == FRAME.last).sum()) >= 12


def hidden_whole(scripts: Any, same: Any) -> int:
    """How many neighbours of one word were targets together; that none were torn apart is asserted."""
    found, batch = drawn(masked.Settings(32, whole_words=True), np.asarray(scripts, np.int32))
    targets = (batch.targets != IGNORED).tolist()
    plain = masked.Objective(masked.Settings(32, share=1e-9), Documents(), FRAME, 60).batch(list(range(found.rows)) * 30)
    together = 0
    for row, tokens in zip(targets, plain.tokens.tolist(), strict=True):
        for i in range(len(tokens) - 1):
            if min(tokens[i : i + 2]) > 3 and same(tokens[i], tokens[i + 1]):
                assert row[i] == row[i + 1]
                together += row[i]
    return together


def test_a_word_is_hidden_whole() -> None:
    """Ids 2n and 2n + 1 are of one script here: both are targets or neither is. Texts are counted upwards."""
    assert hidden_whole([[id // 2] * 2 for id in range(60)], lambda one, other: one // 2 == other // 2) > 50


def test_a_character_in_several_tokens_is_hidden_whole() -> None:
    """Of every three ids, the second and third go on with the character of the first; all are of one script, but a word ends in another."""
    scripts = [[masked.GOES_ON] * 2 if id % 3 else [7, 8] for id in range(60)]
    assert hidden_whole(scripts, lambda one, other: other % 3 != 0) > 50
    _, batch = drawn(masked.Settings(32, whole_words=True), np.asarray(scripts, np.int32))
    targets = batch.targets != IGNORED
    assert bool((targets[:, 1:] != targets[:, :-1]).any())


TEXT = "人工知能の発展について、GPT-4 は words と言う。𩸽と鱻を a b cde 12345 𠮷野家。"


@pytest.mark.parametrize(("kind", "size"), [("characters", 277), ("bpe", 298)])
def test_words_begin_where_the_text_is_cut(kind: str, size: int) -> None:
    """Against `split` itself, on a text in which rare kanji are spelt in several tokens. Longer numbers are one word here."""
    tokenizer = fast.train(kind, ["人工知能の発展について、words と言う。", "を", "は", "の", "と"] * 9, size, fast.ENCODER)
    objective = masked.Objective(masked.Settings(512, whole_words=True), Documents(), FRAME, size, scripts_of(tokenizer))
    ids = tokenizer.encode(TEXT)
    found = objective._words(torch.tensor([ids]))[0].tolist()
    pieces, at = [], 0
    for number, piece in enumerate(split(TEXT)):
        pieces += [number] * len(piece.encode())
    places = [at := at + len(tokenizer.token_bytes(id)) for id in ids]
    wanted = [pieces[place - len(tokenizer.token_bytes(id))] for id, place in zip(ids, places, strict=True)]
    begins = [i for i in range(1, len(ids)) if found[i] != found[i - 1]]
    right = [i for i in range(1, len(ids)) if wanted[i] != wanted[i - 1]]
    numbers = {i for i in right if tokenizer.token_bytes(ids[i]) in (b"4", b"45") and tokenizer.token_bytes(ids[i - 1]) == b"3"}
    spaces = {i for i in begins if tokenizer.token_bytes(ids[i - 1]) == b" "}  # a space that is a token of its own is a word, too
    assert {*begins} - spaces == {*right} - numbers - spaces


# ── classify, extract, embed


def test_a_text_that_is_too_long_is_refused_not_cut() -> None:
    with pytest.raises(InputError, match="2 件目の 12"):
        classify.Objective(classify.Settings(11), [classify.Example([4] * 9, 0), classify.Example([4] * 10, 0)], FRAME)


def test_a_long_context_comes_in_windows_and_every_token_of_it_is_there() -> None:
    context = list(range(10, 50))
    found = extract.Objective(extract.Settings(16, 6), [extract.Example([5, 6], context, (20, 24))], FRAME)
    batch = found.batch(list(range(found.rows)))
    assert found.rows > 3 and {id for id in batch.tokens.flatten().tolist() if id >= 10} == {*context}
    held = [(row, start, end) for row, (start, end) in enumerate(batch.targets.tolist()) if (start, end) != (0, 0)]
    assert held and all(batch.tokens[row, start : end + 1].tolist() == context[20:24] for row, start, end in held)
    for row, (start, end) in enumerate(batch.targets.tolist()):
        whole = {30, 31, 32, 33} <= {*batch.tokens[row].tolist()}
        assert whole == ((start, end) != (0, 0)), "the target is the answer where it is whole, else the first token"


def test_an_answer_that_no_window_holds_is_refused() -> None:
    with pytest.raises(InputError, match="1 件目の答え"):
        extract.Objective(extract.Settings(16, 6), [extract.Example([5, 6], list(range(10, 50)), (5, 25))], FRAME)


def test_an_answer_is_never_in_the_question_or_the_padding() -> None:
    found = objective("extract")
    batch = found.batch(list(range(found.rows)))
    where = extract.possible(batch.tokens, batch.segments, FRAME)
    assert where[:, 0].all() and not where[:, 1:3].any() and not where[batch.tokens == FRAME.padding].any()


def test_the_same_text_is_no_wrong_answer() -> None:
    """Three pairs that are all the same: the only candidate left is the right one, and the loss is 0."""
    some = [embed.Example([4, 5], [6, 7])] * 3
    found = embed.Objective(embed.Settings(16, group=3), some, FRAME)
    assert float(found.loss(built("embed"), found.batch([0])).detach()) == 0.0


def test_scores_are_learned_as_an_order() -> None:
    """CoSENT of two pairs, by hand: 2 log(1 + exp((s_low − s_high) / τ)) over the two of them."""
    cosines, ranks = torch.tensor([[0.2, 0.5]]) / 0.05, torch.tensor([[1, 0]])
    expected = 2 * np.log1p(np.exp((0.5 - 0.2) / 0.05))
    assert float(embed.Objective._in_order(cosines, ranks)) == pytest.approx(expected, rel=1e-5)
    assert float(embed.Objective._in_order(cosines, torch.tensor([[2, 2]]))) == 0.0


def test_every_pair_is_in_a_group() -> None:
    found = objective("embed")
    seen = {tuple(row) for index in range(found.rows) for row in found.batch([index]).tokens[0, :4].tolist()}
    assert len(seen) >= 24


def test_a_model_without_segments_is_trained_like_one_with_them() -> None:
    """The segments of a window say where an answer may be, and move the model only where it has some."""
    found, model = objective("extract"), built("extract")
    assert isinstance(model, Transformer) and model.segment_embedding is None
    assert found.loss(model, found.batch([0, 1])).isfinite()
