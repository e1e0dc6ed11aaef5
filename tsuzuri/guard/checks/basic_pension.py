"""基礎年金番号: four digits and six, behind a word that names it.

In: a text. Out: the numbers. There is no check digit that is published, so 1234-567890 alone is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tsuzuri.errors import Words
from tsuzuri.guard.checks._context import SIX_DIGITS, near
from tsuzuri.guard.finding import Finding, found
from tsuzuri.guard.normal import Normal

LABEL = Words("基礎年金番号", "Basic Pension Number")
PERSONAL = True
NEEDS = (SIX_DIGITS,)
FOUND = (
    ("基礎年金番号：１２３４－５６７８９０", ("１２３４－５６７８９０",)),
    ("年金手帳の番号は1234567890です。", ("1234567890",)),
    ("Basic Pension Number 1234-567890", ("1234-567890",)),
)
NOT = ("部品 1234-567890 を発注", "基礎年金番号は10桁です。", "年金の支給額は1234567890円ではない。", "基礎年金番号 1234-5678901")

_NUMBER = re.compile(r"(?<![\d.,A-Za-z-])\d{4}[- ]?\d{6}(?![\d-]|[.,]\d|\s?[円件人])")
_NAMED = re.compile(r"基礎年金番号|年金番号|年金手帳|basic pension|pension number", re.IGNORECASE)


def find(seen: Normal) -> Iterator[Finding]:
    for match in _NUMBER.finditer(seen.text):
        if near(_NAMED, seen, match.start(), 24):
            yield found("basic_pension", seen, *match.span(), 0.975)
