"""Prices: by date, in yen and dollars, exact; what has no price has none."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import pytest

from tsuzuri.errors import ConfigError, MissingError
from tsuzuri.folder import names
from tsuzuri.store.ledger import JAPAN
from tsuzuri.store.prices import Prices, listed, load

TABLE = """\
rates:
  USD: [{from: 2026-01-01, until: 2026-07-01, yen: 150}, {from: 2026-07-01, yen: 160.5}]
  kWh: [{from: 2026-01-01, yen: 30}]
models:
  tiny: [{from: 2026-01-01, currency: kWh, input: 0.001, cached: 0, output: 0.5}]
  long: [{from: 2026-01-01, input: 1, cached: 0.5, output: 3, above: {tokens: 100, input: 2, output: 6}}]
  small:
    - {from: 2026-01-01, until: 2026-04-01, input: 10, cached: 1, output: 30}
    - {from: 2026-05-01, input: 0.1, output: 0.3}
  remote/large: [{from: 2025-01-01, currency: USD, input: 2.5, output: 10}]
"""


def prices(tmp_path: Path, text: str = TABLE) -> Prices:
    path = tmp_path / "prices.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def at(day: str, clock: str = "12:00:00") -> int:
    return int(datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=JAPAN).timestamp() * 1000)


@pytest.mark.parametrize(
    ("model", "day", "usage", "micro_yen"),
    [
        ("small", "2026-02-01", {"input": 1_000_000, "output": 1_000_000}, 40_000_000),  # 10 + 30 yen
        ("small", "2026-02-01", {"input": 100, "cached": 40, "output": 7}, 60 * 10 + 40 + 7 * 30),
        ("small", "2026-06-01", {"input": 1, "output": 0}, 1),  # a tenth of a micro-yen, rounded up
        ("small", "2026-06-01", {"input": 10, "output": 10}, 4),  # 1 + 3, and not 4.000000000000001
        ("small", "2026-06-01", {"input": 30, "cached": 30, "output": 0}, 3),  # no price of its own: as input
        ("small", "2026-06-01", {"input": 0, "output": 0}, 0),
        ("remote/large", "2026-02-01", {"input": 1000, "output": 10}, (2500 + 100) * 150),
        ("remote/large", "2026-08-01", {"input": 2, "output": 0}, 803),  # 5 dollars' worth at 160.5: 802.5
        ("tiny", "2026-02-01", {"input": 1_000_000, "cached": 400_000, "output": 1_000_000}, 15_018_000),  # 0.5006 kWh at 30 yen
        ("long", "2026-02-01", {"input": 100, "cached": 40, "output": 10}, 60 + 20 + 30),
        ("long", "2026-02-01", {"input": 101, "cached": 40, "output": 10}, 202 + 60),  # the whole call, and cached as input there
    ],
)
def test_what_a_call_costs(tmp_path: Path, model: str, day: str, usage: dict[str, int], micro_yen: int) -> None:
    assert prices(tmp_path).cost(model, **usage, at=at(day)) == micro_yen


@pytest.mark.parametrize(
    ("model", "day"),
    [("small", "2025-12-31"), ("small", "2026-04-01"), ("small", "2026-04-30"), ("Small", "2026-02-01"), ("remote/large", "2025-06-01")],
)
def test_without_a_price_or_a_rate_for_the_day_there_is_none(tmp_path: Path, model: str, day: str) -> None:
    assert prices(tmp_path).cost(model, input=1, output=1, at=at(day)) is None


def test_a_day_begins_at_midnight_in_japan(tmp_path: Path) -> None:
    table = prices(tmp_path)
    assert table.cost("small", input=1, output=0, at=at("2026-03-31", "23:59:59")) == 10
    assert table.cost("small", input=1, output=0, at=at("2026-04-01", "00:00:00")) is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("models: {a: [{from: 2026-01-01, input: 1, output: 1}, {from: 2026-02-01, input: 1, output: 1}]}", "重なり"),
        ("models: {a: [{from: 2026-01-01, until: 2026-03-01, input: 1, output: 1}, {from: 2026-02-01, input: 1, output: 1}]}", "重なり"),
        ("models: {a: [{from: 2026-01-01, until: 2026-01-01, input: 1, output: 1}]}", "until"),
        ("models: {a: [{from: 2026-01-01, input: -1, output: 1}]}", "input"),
        ("models: {a: [{from: 2026-01-01, input: 1}]}", "output"),
        ("models: {a: [{from: 2026-01-01, input: true, output: 1}]}", "input"),
        ("models: {a: [{from: 2026-01-01, input: .nan, output: 1}]}", "input"),
        ("models: {a: [{from: 今日, input: 1, output: 1}]}", "from"),
        ("models: {a: [{from: 2026-01-01, input: 1, ouput: 1, output: 1}]}", "ouput"),
        ("models: {a: [{from: 2026-01-01, currency: EUR, input: 1, output: 1}]}", "currency"),
        ("models: {a: [{from: 2026-01-01, input: 1, output: 1, source: 5}]}", "source"),
        ("models: {a: [{from: 2026-01-01, input: 1, output: 1, above: {input: 1, output: 1}}]}", "tokens"),
        ("models: {a: [{from: 2026-01-01, input: 1, output: 1, above: {tokens: 1, input: 1}}]}", "above.output"),
        ("models: {a: 5}", "期間の並び"),
        ("models: {}", "料金がありません"),
        ("model: {}", "rates と models"),
        ("rates: {EUR: []}\nmodels: {a: [{from: 2026-01-01, input: 1, output: 1}]}", "USD"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(tmp_path: Path, wrong: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        prices(tmp_path, wrong)


def test_the_table_that_comes_along_names_the_source_and_the_day_of_each_price_and_has_no_rate() -> None:
    """What a dollar is in yen is the operator's word: until then these prices are unknown, not zero."""
    table = listed()
    assert len(table.models) >= 5 and table.rates == {}
    for name, rows in table.models.items():
        provider, _, model = name.partition("/")
        assert provider in names("tsuzuri.chat.providers") and model
        for row in rows:
            assert row.currency == "USD" and row.source.startswith("https://")
            assert re.search(r"20\d\d-\d\d-\d\d\)$", row.source), "the day it was read"
            assert 0 < row.cached <= row.input <= row.output
            assert row.above is None or row.above.input > row.input
        assert table.cost(name, input=1, output=1, at=at("2026-12-01")) is None


def test_a_table_of_ones_own_goes_before_the_one_that_comes_along(tmp_path: Path) -> None:
    name = "anthropic/claude-haiku-4-5-20251001"
    rate = "rates: {USD: [{from: 2026-01-01, yen: 100}]}"
    assert prices(tmp_path, rate).over(listed()).cost(name, input=1, output=1, at=at("2026-12-01")) == 600
    own = f"{rate}\nmodels: {{{name}: [{{from: 2026-01-01, input: 7, output: 7}}]}}"
    both = prices(tmp_path, own).over(listed())
    assert both.cost(name, input=1, output=1, at=at("2026-12-01")) == 14
    assert both.cost("anthropic/claude-opus-5", input=1, output=0, at=at("2026-12-01")) == 500


def test_what_is_said_to_be_free_is_counted_as_nothing(tmp_path: Path) -> None:
    table = prices(tmp_path).free(["small", "new"])
    assert table.cost("small", input=5, output=5, at=at("2026-02-01")) == table.cost("new", input=5, output=5, at=at("2020-02-01")) == 0
    assert table.cost("other", input=5, output=5, at=at("2026-02-01")) is None


def test_a_table_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"prices\.yaml"):
        load(tmp_path / "prices.yaml")
