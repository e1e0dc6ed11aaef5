"""What a call costs: a dated table of prices, in yen or dollars for a million tokens.

In: a YAML file and token counts. Out: whole micro-yen, rounded up; None for a model or a day without a price, which a budgeted call is
refused for. One yen for a million tokens is one micro-yen for each. The price is that of the day the call began, in Japan.

    rates: {USD: [{from: 2026-01-01, yen: 150}]}
    models:
      small: [{from: 2026-01-01, until: 2026-07-01, input: 10, cached: 1, output: 30}, {from: 2026-07-01, input: 12, output: 36}]
      remote/large: [{from: 2026-04-01, currency: USD, input: 2.5, output: 10}]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_CEILING, Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from tsuzuri import config
from tsuzuri.errors import ConfigError, Words
from tsuzuri.store.ledger import JAPAN

TODO = Words("料金表を直してください。", "Correct the table of prices.")


@dataclass(frozen=True, slots=True)
class Price:
    """For a million tokens, from the day `from_` to the day before `until`. `cached`: input that is still known from before; None: as input."""

    from_: date
    until: date | None
    currency: Literal["JPY", "USD"]
    input: Decimal
    cached: Decimal
    output: Decimal


@dataclass(frozen=True, slots=True)
class Rate:
    from_: date
    until: date | None
    yen: Decimal


@dataclass(frozen=True, slots=True)
class Prices:
    models: Mapping[str, tuple[Price, ...]]
    dollars: tuple[Rate, ...]

    def cost(self, model: str, *, input: int, output: int, cached: int = 0, at: int) -> int | None:
        """Micro-yen. `cached` is a part of `input`; `at` in ms since 1970. None where there is no price, or no rate for it."""
        assert 0 <= cached <= input and output >= 0
        day = datetime.fromtimestamp(at / 1000, JAPAN).date()
        price = _on(self.models.get(model, ()), day)
        if price is None:
            return None
        rate = Decimal(1)
        if price.currency == "USD":
            dollar = _on(self.dollars, day)
            if dollar is None:
                return None
            rate = dollar.yen
        exact = (price.input * (input - cached) + price.cached * cached + price.output * output) * rate
        return int(exact.to_integral_value(ROUND_CEILING))


def load(path: Path) -> Prices:
    """Raises MissingError, InputError, ConfigError: unknown keys, negative prices, two prices for one day."""
    values = config.read_yaml(path)
    for key in values:
        if key not in ("rates", "models"):
            raise _wrong(
                key, Words("その項目はありません。あるのは rates と models です。", "There is no such key. There is rates and models.")
            )
    rates = values.get("rates") or {}
    if not isinstance(rates, dict) or set(rates) - {"USD"}:
        raise _wrong("rates", Words("USD のレートだけを書けます。", "It takes the rate of USD only."))
    models = values.get("models")
    if not isinstance(models, dict) or not models:
        raise _wrong("models", Words("モデルごとの料金がありません。", "There are no prices of models."))
    return Prices(
        {str(name): _periods(f"models.{name}", rows, _price) for name, rows in models.items()},
        _periods("rates.USD", rates.get("USD", []), _rate),
    )


def _periods(where: str, rows: Any, made: Any) -> tuple[Any, ...]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _wrong(where, Words("期間の並び（[{from: …}, …]）が要ります。", "It takes a list of periods ([{from: …}, …])."))
    periods = sorted((made(f"{where}[{number}]", row) for number, row in enumerate(rows)), key=lambda one: one.from_)
    for one, after in pairwise(periods):
        if one.until is None or one.until > after.from_:
            raise _wrong(
                where,
                Words(f"{after.from_} からの期間が、その前の期間と重なります。", f"The period from {after.from_} overlaps the one before."),
            )
    return tuple(periods)


def _price(where: str, row: dict[str, Any]) -> Price:
    _known(where, row, ("from", "until", "currency", "input", "cached", "output"))
    currency = row.get("currency", "JPY")
    if currency not in ("JPY", "USD"):
        raise _wrong(f"{where}.currency", Words("JPY か USD です。", "It is JPY or USD."))
    asked = _amount(where, row, "input")
    cached = _amount(where, row, "cached") if "cached" in row else asked
    return Price(*_period(where, row), currency, asked, cached, _amount(where, row, "output"))


def _rate(where: str, row: dict[str, Any]) -> Rate:
    _known(where, row, ("from", "until", "yen"))
    return Rate(*_period(where, row), _amount(where, row, "yen"))


def _known(where: str, row: dict[str, Any], names: Sequence[str]) -> None:
    for name in row:
        if name not in names:
            raise _wrong(f"{where}.{name}", Words(f"あるのは {'、'.join(names)} です。", f"There is {', '.join(names)}."))


def _period(where: str, row: dict[str, Any]) -> tuple[date, date | None]:
    begins, ends = _day(where, row, "from"), _day(where, row, "until") if "until" in row else None
    if ends is not None and ends <= begins:
        raise _wrong(f"{where}.until", Words("from より後の日が要ります。", "It takes a day after from."))
    return begins, ends


def _day(where: str, row: dict[str, Any], name: str) -> date:
    value = row.get(name)
    if type(value) is not date:
        raise _wrong(f"{where}.{name}", Words("日付（2026-04-01）が要ります。", "It takes a date (2026-04-01)."))
    return value


def _amount(where: str, row: dict[str, Any], name: str) -> Decimal:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise _wrong(f"{where}.{name}", Words("0 以上の数が要ります。", "It takes a number from 0."))
    return Decimal(str(value))  # 0.1 means a tenth, not the nearest binary number


def _on(periods: Sequence[Any], day: date) -> Any:
    return next((one for one in periods if one.from_ <= day and (one.until is None or day < one.until)), None)


def _wrong(where: str, found: Words) -> ConfigError:
    return ConfigError(Words(f"料金表の「{where}」を読もうとしました。", f"Reading '{where}' of the prices."), found=found, todo=TODO)
