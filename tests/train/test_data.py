"""Rows and their order: every token once, little left empty, every epoch a permutation that needs no memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tsuzuri.train.data import IGNORED, Batch, Piece, collate, order, pack
from tsuzuri.train.objectives import pretrain

LENGTHS = st.lists(st.integers(0, 60), max_size=40)


def tokens(*rows: list[list[int]]) -> list[list[tuple[np.ndarray, np.ndarray, int]]]:
    """Rows of documents of ids; each id's target is itself plus one."""
    return [[(np.array(ids), np.array(ids) + 1, 0) for ids in row] for row in rows]


# ── pack


@given(LENGTHS, st.integers(1, 25))
def test_every_token_stands_in_one_row_and_no_row_is_too_long(lengths: list[int], size: int) -> None:
    rows = pack(lengths, size)
    seen = [(piece.document, token) for row in rows for piece in row for token in range(piece.start, piece.stop)]
    assert sorted(seen) == [(document, token) for document, length in enumerate(lengths) for token in range(length)]
    assert all(0 < sum(len(piece) for piece in row) <= size for row in rows)


@given(LENGTHS, st.integers(1, 25))
def test_a_document_is_cut_only_where_it_is_longer_than_a_row(lengths: list[int], size: int) -> None:
    for piece in (piece for row in pack(lengths, size) for piece in row):
        assert piece.start % size == 0
        assert piece.stop == min(piece.start + size, lengths[piece.document])


@given(LENGTHS, st.integers(1, 25))
def test_no_two_rows_would_fit_into_one(lengths: list[int], size: int) -> None:
    """What best-fit promises: at most one row is half empty."""
    used = sorted(sum(len(piece) for piece in row) for row in pack(lengths, size))
    assert len(used) < 2 or used[0] + used[1] > size


@pytest.mark.parametrize("size", [128, 256, 1024])
def test_rows_are_nearly_full_on_lengths_of_real_texts(size: int) -> None:
    """Log-normal lengths as of web pages and letters: within a hundredth of as few rows as there can be."""
    lengths = np.random.default_rng(5).lognormal(5.5, 1.1, 3000).astype(np.int64) + 1
    rows = len(pack(lengths, size))
    assert rows <= 1.01 * -(-int(lengths.sum()) // size)


def test_rows_are_nearly_full_on_paragraphs_of_a_story() -> None:
    text = (Path(__file__).parents[1] / "data" / "ryoriten.txt").read_text(encoding="utf-8")
    lengths = [len(line) for line in text.splitlines() if line]
    assert len(pack(lengths, 256)) <= 1.1 * sum(lengths) / 256


def test_packing_is_a_function_of_its_input() -> None:
    assert pack([3, 9, 4, 4, 2], 8) == pack([3, 9, 4, 4, 2], 8)
    assert pack([8], 8) == [(Piece(0, 0, 8),)]
    assert pack([], 8) == pack([0], 8) == []


# ── order


@given(st.integers(1, 50), st.integers(-5, 2**32), st.integers(0, 3))
def test_every_epoch_is_a_permutation(rows: int, seed: int, epoch: int) -> None:
    assert sorted(order(rows, seed, epoch * rows, rows)) == list(range(rows))


@given(st.integers(1, 50), st.integers(0, 9), st.lists(st.integers(0, 40), max_size=6))
def test_the_order_does_not_depend_on_where_one_starts(rows: int, seed: int, counts: list[int]) -> None:
    """Drawn in parts of any size, as by a run stopped and resumed: the same stream."""
    parts, start = [], 0
    for count in counts:
        parts += order(rows, seed, start, count)
        start += count
    assert parts == order(rows, seed, 0, start)


def test_epochs_and_seeds_differ() -> None:
    orders = [order(100, seed, epoch * 100, 100) for seed in range(3) for epoch in range(3)]
    assert len({tuple(found) for found in orders}) == 9


# ── collate


def test_positions_documents_and_targets_of_packed_rows() -> None:
    batch = collate(tokens([[5, 6, 7], [8, 9]], [[1, 2, 3, 4, 5, 6]]), 6, padding=0)
    assert batch.tokens.tolist() == [[5, 6, 7, 8, 9, 0], [1, 2, 3, 4, 5, 6]]
    assert batch.targets.tolist() == [[6, 7, 8, 9, 10, IGNORED], [2, 3, 4, 5, 6, 7]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5]]
    assert batch.documents is not None
    assert batch.documents.tolist() == [[0, 0, 0, 1, 1, -1], [0, 0, 0, 0, 0, 0]]
    assert batch.trained == 11


def test_a_document_a_row_needs_no_mask() -> None:
    """Then attention takes its fastest path."""
    assert collate(tokens([[1, 2]], [[3, 4]]), 2, padding=0).documents is None
    assert collate(tokens([[1, 2]], [[3]]), 2, padding=0).documents is not None


def test_a_stretch_may_begin_later_in_its_document() -> None:
    batch = collate([[(np.array([1, 2]), np.array([2, 3]), 7)]], 2, padding=0)
    assert batch.positions.tolist() == [[7, 8]]


def test_a_row_longer_than_the_batch_is_wide_is_the_callers_fault() -> None:
    with pytest.raises(AssertionError):
        collate(tokens([[1, 2, 3]]), 2, padding=0)


@given(st.integers(1, 7), st.integers(1, 9), st.booleans())
def test_a_split_batch_joined_is_the_batch(rows: int, at_once: int, packed: bool) -> None:
    batch = collate(tokens(*([[n, n + 1], [n + 2]] if packed else [[n, n, n]] for n in range(rows))), 3, padding=0)
    parts = batch.split(at_once)
    assert all(len(part.tokens) <= at_once for part in parts)
    assert sum(part.trained for part in parts) == batch.trained
    assert (batch.documents is not None) == packed
    for name in Batch.__slots__:
        wanted = getattr(batch, name)
        found = [getattr(part, name) for part in parts]
        assert found == [None] * len(parts) if wanted is None else torch.equal(torch.cat(found), wanted)


# ── the rows of pre-training


class Listed:
    def __init__(self, *texts: list[int]) -> None:
        self.texts, self.lengths = texts, np.array([len(text) for text in texts])

    def document(self, index: int) -> np.ndarray:
        return np.array(self.texts[index], np.uint16)


@given(st.lists(st.lists(st.integers(1, 99), max_size=30), min_size=1, max_size=12), st.integers(1, 16))
def test_every_id_and_every_end_is_trained_once(texts: list[list[int]], length: int) -> None:
    """Whatever the rows: targets are all ids and one boundary a document; inputs are all ids and one boundary a document."""
    objective = pretrain.Objective(pretrain.Settings(length), Listed(*texts), 0)
    batch = objective.batch(list(range(objective.rows)))
    wanted = sorted([id for text in texts for id in text] + [0] * len(texts))
    assert sorted(batch.targets[batch.targets != IGNORED].tolist()) == wanted
    assert sorted(batch.tokens[batch.targets != IGNORED].tolist()) == wanted


def test_a_document_begins_and_ends_with_the_boundary() -> None:
    batch = pretrain.Objective(pretrain.Settings(4), Listed([7, 8, 9], [5]), 0).batch([0, 1])
    assert batch.tokens.tolist() == [[0, 7, 8, 9], [0, 5, 0, 0]]
    assert batch.targets.tolist() == [[7, 8, 9, 0], [5, 0, IGNORED, IGNORED]]
