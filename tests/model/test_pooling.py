"""One vector for a text: padding does not move it, every choice of an encoder's head does."""

from __future__ import annotations

import pytest
import torch
from test_transformer import built

from tsuzuri.model.past import Bidirectional
from tsuzuri.model.pooling import classified, embedded
from tsuzuri.model.transformer import Transformer

ENCODER = {"causal": False, "head": "classify", "labels": ("a", "b", "c")}
IDS = torch.tensor([[5, 6, 7, 8, 9]])
PADDED = torch.tensor([[5, 6, 7, 8, 9, 3, 3]])


def past(length: int, padding: int = 0) -> Bidirectional:
    documents = torch.tensor([[0] * (length - padding) + [-1] * padding])
    return Bidirectional(torch.arange(length)[None], documents if padding else None)


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_padding_does_not_move_a_text(pooling: str) -> None:
    model = built(**ENCODER, pooling=pooling)
    torch.testing.assert_close(classified(model, PADDED, past(7, 2)), classified(model, IDS, past(5)))
    torch.testing.assert_close(embedded(model, PADDED, past(7, 2)), embedded(model, IDS, past(5)))
    assert not torch.allclose(embedded(model, PADDED, past(7)), embedded(model, IDS, past(5))), "without documents padding is text"


def test_an_embedding_has_length_one() -> None:
    found = embedded(built(**{**ENCODER, "head": "embed"}), IDS, past(5))
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(1, dtype=torch.float64))


def test_every_choice_of_a_head_changes_what_it_says() -> None:
    def said(**choices: object) -> torch.Tensor:
        model: Transformer = built(**{**ENCODER, "head_norm": True, **choices})
        return classified(model, IDS, past(5)) if model.shape.labels else model(IDS, past(5))

    base = said()
    for choices in ({"pooling": "mean"}, {"head_act": "relu"}, {"head_norm": False}, {"head_dense_bias": False}, {"labels": ("a", "b")}):
        found = said(**choices)
        assert found.shape != base.shape or not torch.equal(found, base), choices
    masked = {"head": "masked", "labels": ()}
    for choices in ({"head_act": "relu"}, {"head_dense_bias": False}, {"head_bias": True}, {"tie_word_embeddings": True}):
        assert not torch.equal(said(**masked), said(**masked, **choices)), choices
    assert not torch.equal(said(head="tag"), said(head="tag", head_norm=False))
