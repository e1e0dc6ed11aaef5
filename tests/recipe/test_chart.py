"""A chart is a picture that any browser shows, whatever the numbers are."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tsuzuri.recipe.chart import COLOURS, line_chart, smoothed, ticks

SVG = "{http://www.w3.org/2000/svg}"
Points = list[tuple[float, float]]
numbers = st.floats(-1e12, 1e12) | st.integers(-(10**6), 10**6).map(float)


def lines(text: str) -> list[Points]:
    """The curves of a picture, in its own coordinates."""
    found = ElementTree.fromstring(text).iter(f"{SVG}polyline")
    return [[tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()] for line in found]  # type: ignore[misc]


# ── ticks


@given(numbers, numbers)
@example(0.0, 0.0)
@example(1e12, 1e12)
@example(0.0, 5e-324)
@example(-1.0, 1e-9)
@example(1e6, 1e6 + 1e-6)
def test_ticks_enclose_rise_evenly_and_are_few(one: float, other: float) -> None:
    low, high = sorted((one, other))
    found = ticks(low, high)
    hair = 1e-9 * (found[-1] - found[0])
    assert found[0] <= low + hair
    assert found[-1] >= high - hair
    steps = [b - a for a, b in itertools.pairwise(found)]
    assert 2 <= len(found) <= 10
    assert min(steps) > 0
    assert max(steps) == pytest.approx(min(steps), rel=1e-3, abs=1e-3 * (found[-1] - found[0]))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (3.1, 8.9, [2, 4, 6, 8, 10]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (0, 900, [0, 200, 400, 600, 800, 1000]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected


# ── the picture


@given(st.dictionaries(st.text(max_size=8), st.lists(st.tuples(st.floats(), st.floats()), max_size=6), max_size=4), st.text(max_size=8))
def test_any_numbers_and_names_give_a_picture(series: dict[str, Points], title: str) -> None:
    """NaN, infinities, numbers past all reason, no points, no series, control characters."""
    text = line_chart(title, title, title, series)
    found = lines(text)
    width, height = (float(ElementTree.fromstring(text).get(side, "")) for side in ("width", "height"))
    assert len(found) == len(series)
    for drawn, given_points in zip(found, series.values(), strict=True):
        assert len(drawn) == sum(abs(x) < 1e100 and abs(y) < 1e100 for x, y in given_points)
        assert all(0 <= x <= width and 0 <= y <= height for x, y in drawn)


def test_a_chart_shows_its_words_and_its_points() -> None:
    text = line_chart("損失 <学習>", "ステップ & 数", "nats", {"学習": [(0, 4.0), (100, 2.0)], "検証": [(50, 3.0)]})
    shown = [element.text for element in ElementTree.fromstring(text).iter(f"{SVG}text")]
    for words in ("損失 <学習>", "ステップ & 数", "nats", "学習", "検証", "0", "100", "2", "4"):
        assert words in shown
    (first, last), (middle,) = lines(text)
    assert first[0] < middle[0] < last[0], "x grows to the right"
    assert first[1] < middle[1] < last[1], "y grows upwards"


def test_neighbouring_lines_have_their_own_colours() -> None:
    text = line_chart("", "", "", {str(i): [(0, i), (1, i)] for i in range(len(COLOURS))})
    assert len({line.get("stroke") for line in ElementTree.fromstring(text).iter(f"{SVG}polyline")}) == len(COLOURS)


# ── smoothing


def test_a_level_stays_a_level_from_its_first_point() -> None:
    assert [y for _, y in smoothed([(i, 3.0) for i in range(5)])] == pytest.approx([3.0] * 5)
    assert smoothed([]) == []


def test_smoothing_is_the_weighted_mean_of_what_came_before() -> None:
    line = [(0.0, 4.0), (1.0, 2.0), (2.0, 7.0)]
    weights = [0.5**2, 0.5, 1.0]
    expected = sum(w * y for w, (_, y) in zip(weights, line, strict=True)) / sum(weights)
    assert smoothed(line, 0.5)[-1] == (2.0, pytest.approx(expected))
    assert smoothed(line, 0.0) == line
