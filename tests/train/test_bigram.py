"""The start from pairs: what is counted, what is fitted, and that it is the model's own loss that falls."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from tsuzuri.errors import ConfigError
from tsuzuri.model.past import Causal
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.train import bigram, loss
from tsuzuri.train.objectives import pretrain

BOUNDARY, VOCABULARY = 0, 60


class Documents:
    """Random walks in which some tokens like to follow others."""

    def __init__(self, seed: int, count: int = 30) -> None:
        random = np.random.default_rng(seed)
        likes = np.random.default_rng(0).dirichlet(np.full(VOCABULARY - 1, 0.1), VOCABULARY)
        self.texts = []
        for _ in range(count):
            text = [1]
            for _ in range(int(random.integers(5, 80))):
                text.append(1 + int(random.choice(VOCABULARY - 1, p=likes[text[-1]])))
            self.texts.append(np.array(text))
        self.lengths = np.array([len(text) for text in self.texts])

    def document(self, index: int) -> np.ndarray:
        return self.texts[index]


def model(**choices: object) -> Transformer:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    shape = Shape(vocab_size=VOCABULARY, max_position_embeddings=128, **sizes, **choices)  # type: ignore[arg-type]
    return Transformer(shape).initialise(1)


@torch.no_grad()
def own_loss(built: Transformer, documents: Documents) -> float:
    """Nats a token of the whole model, as training computes it."""
    objective = pretrain.Objective(pretrain.Settings(128), documents, BOUNDARY)
    batch = objective.batch(list(range(objective.rows)))
    hidden = built.hidden(batch.tokens, Causal(batch.positions, batch.documents))
    return float(loss.plain(hidden.flatten(0, -2), built.head_weight, batch.targets.flatten())) / batch.trained


def test_pairs_are_those_of_each_document_and_of_no_two() -> None:
    documents = Documents(1)
    plain = Counter(pair for text in documents.texts for pair in pairwise([BOUNDARY, *text.tolist(), BOUNDARY]))
    found = bigram.count(documents, BOUNDARY, VOCABULARY)
    assert dict(zip(zip(found.first.tolist(), found.second.tolist(), strict=True), found.counts.tolist(), strict=True)) == plain
    assert found.totals.sum() == documents.lengths.sum() + len(documents.texts)
    assert found.unseen.sum() == pytest.approx(1) and (found.unseen > 0).all()


@pytest.mark.parametrize("rows", [7, 512])
def test_without_a_discount_its_loss_is_that_of_the_whole_model_over_all_text(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """The law: a table of pairs and a pass over every token are the same number while the blocks are the identity."""
    monkeypatch.setattr(bigram, "ROWS", rows)
    built, documents, heard = model(), Documents(1), []
    bigram.fit(built, bigram.count(documents, BOUNDARY, VOCABULARY), steps=5, discount=0, told=heard.append)
    before = own_loss(built, documents)
    again = bigram._descend(
        built.embedding.weight, built.head_weight, built.norm, bigram.count(documents, BOUNDARY, VOCABULARY), discount=0
    )
    assert again == pytest.approx(before, rel=1e-5)
    assert heard[0] > heard[-1] > again


def test_the_mass_that_is_taken_is_given_to_unseen_pairs() -> None:
    pairs = bigram.count(Documents(1), BOUNDARY, VOCABULARY)
    contexts = pairs.totals.nonzero().squeeze(-1)
    wanted = bigram._wanted(pairs, contexts, slice(None), bigram.DISCOUNT)
    torch.testing.assert_close(wanted.sum(-1), pairs.totals[contexts])
    assert (wanted > 0).all()
    row, column = int((contexts == pairs.first[0]).nonzero()), int(pairs.second[0])
    seen = int((pairs.first == pairs.first[0]).sum())
    expected = pairs.counts[0] - bigram.DISCOUNT + bigram.DISCOUNT * seen * pairs.unseen[column]
    assert float(wanted[row, column]) == pytest.approx(float(expected))


def test_text_that_was_not_counted_is_predicted_better_and_the_discount_helps() -> None:
    train, held = Documents(1), Documents(2)
    losses = {}
    for discount in (0.0, bigram.DISCOUNT):
        built = model()
        bigram.fit(built, bigram.count(train, BOUNDARY, VOCABULARY), discount=discount)
        losses[discount] = own_loss(built, held)
    assert losses[bigram.DISCOUNT] < losses[0.0]
    assert losses[bigram.DISCOUNT] < own_loss(model(), held) - 0.5


def test_only_embedding_and_head_change_and_no_gradient_is_left() -> None:
    built, before = model(), dict(model().named_parameters())
    bigram.fit(built.requires_grad_(True), bigram.count(Documents(1), BOUNDARY, VOCABULARY), steps=2)
    changed = {name for name, weight in built.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == {"embedding.weight", "head.weight"}
    assert all(weight.grad is None for weight in built.parameters())


def test_a_model_in_bfloat16_is_fitted_in_float32() -> None:
    """200 small steps in bfloat16 would be lost; the result is that of the float32 model but for one rounding."""
    wide, narrow = model(), model().bfloat16()
    wide.load_state_dict({name: value.float() for name, value in narrow.state_dict().items()})
    pairs = bigram.count(Documents(1), BOUNDARY, VOCABULARY)
    bigram.fit(wide, pairs, steps=10), bigram.fit(narrow, pairs, steps=10)
    assert torch.equal(wide.embedding.weight.bfloat16(), narrow.embedding.weight)


def test_a_tied_head_is_refused() -> None:
    with pytest.raises(ConfigError, match="tie_word_embeddings"):
        bigram.fit(model(tie_word_embeddings=True), bigram.count(Documents(1), BOUNDARY, VOCABULARY))
