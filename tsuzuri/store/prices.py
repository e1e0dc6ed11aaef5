"""What a call costs: a dated table of prices for a million tokens, in yen, in dollars, or in kWh for a model of our own.

In: a YAML file and token counts. Out: whole micro-yen, rounded up; None for a model or a day without a price, which a budgeted call is
refused for. One yen for a million tokens is one micro-yen for each. The price is that of the day the call began, in Japan. What a dollar
or a kWh costs in yen, the operator says: `prices.yaml` beside this file, the list prices that could be found, has no rates.

    rates: {USD: [{from: 2026-01-01, yen: 150}], kWh: [{from: 2026-01-01, yen: 31}]}
    models:
      small: [{from: 2026-01-01, until: 2026-07-01, input: 10, cached: 1, output: 30}, {from: 2026-07-01, input: 12, output: 36}]
      remote/large: [{from: 2026-04-01, currency: USD, input: 2.5, output: 10, source: "https://…"}]
      long: [{from: 2026-04-01, input: 1, output: 3, above: {tokens: 200000, input: 2, output: 4}}]
      tiny: [{from: 2026-04-01, currency: kWh, input: 0.002, cached: 0, output: 0.1}]   # as tsuzuri bench measures it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_CEILING, Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

from tsuzuri import config
from tsuzuri.errors import ConfigError, Words
from tsuzuri.store.ledger import JAPAN

LISTED = Path(__file__).parent / "prices.yaml"
UNITS = ("USD", "kWh")  # what has a rate; JPY is yen itself
TODO = Words("料金表を直してください。", "Correct the table of prices.")


@dataclass(frozen=True, slots=True)
class Above:
    """What holds for the whole call where its input has more than `tokens`."""

    tokens: int
    input: Decimal
    cached: Decimal
    output: Decimal


@dataclass(frozen=True, slots=True)
class Price:
    """For a million tokens, from the day `from_` to the day before `until`. `cached`: input that is still known from before.
    `source`: where it was found."""

    from_: date
    until: date | None
    currency: str  # JPY or one of UNITS
    input: Decimal
    cached: Decimal
    output: Decimal
    source: str = ""
    above: Above | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    from_: date
    until: date | None
    yen: Decimal


@dataclass(frozen=True, slots=True)
class Prices:
    models: Mapping[str, tuple[Price, ...]]
    rates: Mapping[str, tuple[Rate, ...]]

    def on(self, model: str, at: int) -> tuple[Price, Decimal | None] | None:
        """The price that holds at a time (ms since 1970), and the yen for its unit; None for a price or a rate that there is not."""
        day = datetime.fromtimestamp(at / 1000, JAPAN).date()
        price: Price | None = _on(self.models.get(model, ()), day)
        if price is None:
            return None
        if price.currency == "JPY":
            return price, Decimal(1)
        rate: Rate | None = _on(self.rates.get(price.currency, ()), day)
        return price, None if rate is None else rate.yen

    def cost(self, model: str, *, input: int, output: int, cached: int = 0, at: int) -> int | None:
        """Micro-yen. `cached` is a part of `input`; `at` in ms since 1970. None where there is no price, or no rate for it."""
        assert 0 <= cached <= input and output >= 0
        found = self.on(model, at)
        price, rate = found or (None, None)
        if price is None or rate is None:
            return None
        each = price.above if price.above and input > price.above.tokens else price
        exact = (each.input * (input - cached) + each.cached * cached + each.output * output) * rate
        return int(exact.to_integral_value(ROUND_CEILING))

    def over(self, others: Prices) -> Prices:
        """These, and of the others what is not here."""
        return Prices({**others.models, **self.models}, {**others.rates, **self.rates})

    def free(self, names: Sequence[str]) -> Prices:
        """The same where these models cost nothing, whatever else is said of them."""
        nothing = Price(date.min, None, "JPY", Decimal(0), Decimal(0), Decimal(0))
        return Prices({**self.models, **dict.fromkeys(names, (nothing,))}, self.rates)


def listed() -> Prices:
    """The list prices of services that come with the program; without rates, so in yen they cost nothing that is known."""
    return load(LISTED)


def load(path: Path) -> Prices:
    """Raises MissingError, InputError, ConfigError: unknown keys, negative prices, two prices for one day."""
    values = config.read_yaml(path)
    for key in values:
        if key not in ("rates", "models"):
            raise _wrong(
                key, Words("その項目はありません。あるのは rates と models です。", "There is no such key. There is rates and models.")
            )
    rates = values.get("rates") or {}
    if not isinstance(rates, dict) or set(rates) - set(UNITS):
        raise _wrong("rates", Words(f"{'と'.join(UNITS)} のレートだけを書けます。", f"It takes the rates of {' and '.join(UNITS)} only."))
    models = values.get("models", {} if rates else None)
    if not isinstance(models, dict) or not (models or rates):
        raise _wrong("models", Words("モデルごとの料金がありません。", "There are no prices of models."))
    return Prices(
        {str(name): _periods(f"models.{name}", rows, _price) for name, rows in models.items()},
        {unit: _periods(f"rates.{unit}", rows, _rate) for unit, rows in rates.items()},
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
    _known(where, row, ("from", "until", "currency", "input", "cached", "output", "source", "above"))
    currency = row.get("currency", "JPY")
    if currency not in ("JPY", *UNITS):
        raise _wrong(f"{where}.currency", Words("JPY か USD か kWh です。", "It is JPY, USD or kWh."))
    source = row.get("source", "")
    if not isinstance(source, str):
        raise _wrong(f"{where}.source", Words("文字列が要ります。", "It takes a string."))
    return Price(*_period(where, row), currency, *_three(where, row), source, _above(where, row.get("above")))


def _three(where: str, row: dict[str, Any]) -> tuple[Decimal, Decimal, Decimal]:
    """Input, cached input (as input, where it is not said), output."""
    asked = _amount(where, row, "input")
    cached = _amount(where, row, "cached") if "cached" in row else asked
    return asked, cached, _amount(where, row, "output")


def _above(where: str, row: Any) -> Above | None:
    if row is None:
        return None
    if not isinstance(row, dict) or type(row.get("tokens")) is not int or row["tokens"] < 1:
        raise _wrong(f"{where}.above", Words("tokens（1 以上の整数）が要ります。", "It takes tokens, a whole number from 1."))
    _known(f"{where}.above", row, ("tokens", "input", "cached", "output"))
    return Above(row["tokens"], *_three(f"{where}.above", row))


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
