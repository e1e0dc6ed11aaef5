"""Samples on the way: a model in training says a few tokens; where it has no room, it says nothing and the run goes on."""

from __future__ import annotations

import pytest
from place import ROOT

from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.recipe.stages._sample import TOKENS, sample
from tsuzuri.text import fast


@pytest.mark.parametrize(("context", "room"), [(64, True), (6, True), (5, False), (3, False)])
def test_a_sample_needs_room_for_one_token(context: int, room: bool) -> None:
    tokenizer = fast.train("bpe", [(ROOT / "tests/data/ryoriten.txt").read_text(encoding="utf-8")], 300)
    shape = Shape(
        vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=context
    )
    said = sample(Transformer(shape).initialise(1), tokenizer, [0, 10, 20, 30, 40], ["<|endoftext|>"])
    assert set(said) == ({"sample"} if room else set())
    assert len(said.get("sample", "").encode()) <= TOKENS * 30
