"""Vectors one by one = several in one call, whatever the lengths; and no call is larger than it may be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from serve import readers

from tsuzuri.chat import labels

FAMILIES = ("bert", "modernbert", "roberta")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, labels.Encoder]:
    root: Path = tmp_path_factory.mktemp("encoders")
    return {name: labels.load(readers.encoder(root / name, name), dtype="float32") for name in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(0, 60), min_size=1, max_size=40), seed=st.integers(0, 99))
def test_batched_is_one_by_one(family: str, lengths: list[int], seed: int, encoders: dict[str, labels.Encoder]) -> None:
    encoder, generator = encoders[family], torch.Generator().manual_seed(seed)
    texts = [torch.randint(0, 300, (length,), generator=generator).tolist() for length in lengths]
    alone = torch.cat([encoder.embed_ids([ids]) for ids in texts])
    assert torch.allclose(encoder.embed_ids(texts), alone, atol=2e-6)


@given(st.lists(st.integers(1, 3000), max_size=200))
def test_every_text_is_read_once_and_no_call_is_too_large(lengths: list[int]) -> None:
    rows = [range(length) for length in lengths]
    found = labels.together(rows)
    assert sorted(place for places in found for place in places) == list(range(len(rows)))
    for places in found:
        padded = len(places) * max(len(rows[place]) for place in places)
        assert len(places) <= labels.AT_ONCE
        assert padded <= labels.TOKENS_AT_ONCE or len(places) == 1


def test_texts_of_like_length_go_together() -> None:
    """What is padded costs as much as what is read."""
    rows = [range(length) for length in (5, 60, 5, 60, 5, 60) * 16]
    assert {len({len(rows[place]) for place in places}) for places in labels.together(rows)} == {1}
