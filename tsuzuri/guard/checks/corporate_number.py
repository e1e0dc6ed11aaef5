"""法人番号: thirteen digits, the first of which follows from the others; with T before it, the number on an invoice.

In: a text. Out: numbers whose check digit is right, where a word, a T or the usual groups say what they are: of the product codes
(JAN) of thirteen digits, one in nine would pass. Source of the check digit: 法人番号の指定等に関する省令, 第二条.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tsuzuri.errors import Words
from tsuzuri.guard.checks._context import SIX_DIGITS, digits, near
from tsuzuri.guard.finding import Finding, found
from tsuzuri.guard.normal import Normal

LABEL = Words("法人番号", "Corporate Number")
PERSONAL = True
NEEDS = (SIX_DIGITS,)
FOUND = (
    ("法人番号：7000012050002", ("7000012050002",)),
    ("登録番号はＴ７０００012050002です。", ("Ｔ７０００012050002",)),
    ("7-0000-1205-0002", ("7-0000-1205-0002",)),
)
NOT = ("法人番号：7000012050003", "JANコード 4901234567894", "会員数は7000012050002を超えない。")

_NUMBER = re.compile(r"(?<![\d.,A-Za-z-])T?(?:-?)(?:\d{13}|\d(?:-|[ \n])\d{4}(?:-|[ \n])\d{4}(?:-|[ \n])\d{4})(?![\d-]|[.,]\d)")
_NAMED = re.compile(r"法人番号|法人等番号|登録番号|インボイス|適格請求書|corporate number", re.IGNORECASE)


def find(seen: Normal) -> Iterator[Finding]:
    for match in _NUMBER.finditer(seen.text):
        number = digits(match[0])
        said = match[0][0] == "T" or len(match[0]) > 13 or near(_NAMED, seen, match.start(), 30)
        if said and check_digit(number[1:]) == number[0]:
            yield found("corporate_number", seen, *match.span(), 0.97)


def check_digit(rest: Sequence[int]) -> int:
    """Of the twelve digits behind it."""
    return 9 - sum(digit * (2 if n % 2 == 0 else 1) for n, digit in enumerate(reversed(rest), start=1)) % 9
