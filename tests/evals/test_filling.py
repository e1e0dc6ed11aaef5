"""Spans that are filled: what counts as right, and a rival that uses what it is allowed to see."""

from __future__ import annotations

import numpy as np
import pytest

from tsuzuri.evals import filling
from tsuzuri.model.families.ngram import NgramModel

BOUNDARY = 0
TEXT = [1, 2, 3, 4, 5, 6] * 4 + [1, 7, 8, 9, 5, 6] * 2  # after 1 comes 2, unless 8 9 stand behind


def test_only_what_stands_right_in_its_span_counts() -> None:
    found = filling.share([[[1, 2, 3], [4]], [[5]]], [[[1, 9, 3], []], [[5, 5]]])
    assert found.value == pytest.approx((2 + 0 + 1) / (3 + 1 + 2)), "a token too many is wrong"
    assert found.items == 5
    assert filling.share([[[1, 2]]], [[[1, 2]]]).value == 1.0


def test_spans_are_where_tokens_are_out() -> None:
    assert filling.spans(np.array([True, True, False, True])) == [(0, 2), (3, 4)]
    assert filling.spans(np.zeros(3, bool)) == []


def test_the_counted_rival_reads_both_sides() -> None:
    model = NgramModel.fit([np.array(TEXT)] * 3, 10, 3, BOUNDARY)
    ids = np.array([6, 1, 7, 8, 9, 5])
    out = np.array([False, False, True, False, False, False])
    assert filling.counted(model, ids, out, width=1, both=False) == [[2]]
    assert filling.counted(model, ids, out, width=4, both=True) == [[7]]


def test_every_span_is_filled_to_its_length() -> None:
    model = NgramModel.fit([np.array(TEXT)], 10, 3, BOUNDARY)
    ids = np.array(TEXT[:9])
    out = np.array([True, True, False, False, True, False, False, True, True])
    for width, both in ((1, False), (3, True)):
        assert [len(span) for span in filling.counted(model, ids, out, width=width, both=both)] == [2, 1, 2]
