"""運転免許証番号: twelve digits behind a word that names a licence, the eleventh of which follows from the ten before it.

In: a text. Out: numbers whose check digit is right. The first two digits are the office that first issued it (10 to 97).
The rule of the check digit is not published by the police; it is the one that licence readers use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tsuzuri.errors import Words
from tsuzuri.guard.checks._context import SIX_DIGITS, digits, near
from tsuzuri.guard.finding import Finding, found
from tsuzuri.guard.normal import Normal

LABEL = Words("免許証番号", "driver's licence")
PERSONAL = True
NEEDS = (SIX_DIGITS,)
FOUND = (
    ("運転免許証の番号は305012345630です。", ("305012345630",)),
    ("免許証番号 第３０５０１２３４５６３０号", ("３０５０１２３４５６３０",)),
)
NOT = ("運転免許証の番号は305012345650です。", "305012345630", "免許の更新は2026年11月27日です。")

_NUMBER = re.compile(r"(?<![\d.,-])(?:\d{12}|\d{4}[- ]\d{4}[- ]\d{4})(?![\d-]|[.,]\d)")
_NAMED = re.compile(r"運転免許|免許証|免許番号|免許の番号|driver'?s?'? licen[cs]e", re.IGNORECASE)
_WEIGHTS = (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)


def find(seen: Normal) -> Iterator[Finding]:
    for match in _NUMBER.finditer(seen.text):
        number = digits(match[0])
        if near(_NAMED, seen, match.start(), 30) and 10 <= number[0] * 10 + number[1] <= 97 and number[10] in check_digits(number[:10]):
            yield found("drivers_licence", seen, *match.span(), 0.985)


def check_digits(first: Sequence[int]) -> tuple[int, ...]:
    """What may follow the ten digits: the last digit of 11 less the weighted sum's remainder by 11; for 11 some readers write 0."""
    check = 11 - sum(weight * digit for weight, digit in zip(_WEIGHTS, first, strict=True)) % 11
    return (1, 0) if check == 11 else (check % 10,)
