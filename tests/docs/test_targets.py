"""What the page of targets says follows from the numbers: the worst counts, a bound from above is one, and what is not there is told."""

from __future__ import annotations

import sys

import pytest
from place import ROOT

sys.path.insert(0, str(ROOT / "docs"))
from tables import targets
from tables.targets import Target


@pytest.mark.parametrize(
    ("values", "below", "said"),
    [
        ({"a": 9.0, "b": 30.0}, False, "met"),
        ({"a": 20.0, "b": 30.0}, False, "met, the moonshot too"),
        ({"a": 9.0, "b": 6.0}, False, "**b misses it by 25%**"),
        ({"a": 8.0}, True, "met"),
        ({"a": 7.0, "b": 10.0}, True, "**b misses it by 25%**"),
        ({}, False, "**not measured**"),
    ],
)
def test_the_worst_counts(values: dict[str, float], below: bool, said: str) -> None:
    target = Target("速さ", "speed", 8, None if below else 20, ("start.json",), lambda _: values, below=below)
    (row,) = targets.rows_of(target, ja=False)
    assert row[-1] == said


def test_a_file_that_is_not_there_is_not_measured() -> None:
    (row,) = targets.rows_of(Target("速さ", "speed", 8, None, ("none.json",), lambda _: {"a": 9.0}), ja=False)
    assert row[2:] == ("—", "—", "**not measured**")


def test_each_target_of_a_table_has_its_rows_in_both_languages() -> None:
    rows = {language: targets.targets(language).splitlines() for language in ("ja", "en")}
    assert len(rows["ja"]) == len(rows["en"]) >= len(targets.TARGETS) + 2
    assert not [line for line in rows["ja"] if "measured" in line or "misses" in line]
