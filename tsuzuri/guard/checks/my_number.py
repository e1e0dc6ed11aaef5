"""マイナンバー (個人番号): twelve digits, the last of which follows from the others.

In: a text. Out: numbers whose check digit is right, and that a word near them names, or that stand in the usual groups of four and are not
said to be of an order or a product: one in eleven numbers of twelve digits passes by chance.
Source of the check digit: 行政手続における特定の個人を識別するための番号の利用等に関する法律の施行規則, 第五条.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tsuzuri.errors import Words
from tsuzuri.guard.checks._context import SIX_DIGITS, digits, near, of_a_thing
from tsuzuri.guard.finding import Finding, found
from tsuzuri.guard.normal import Normal

LABEL = Words("マイナンバー", "My Number")
PERSONAL = True
NEEDS = (SIX_DIGITS,)
FOUND = (
    ("マイナンバーは１２３４－５６７８－９０１８です。", ("１２３４－５６７８－９０１８",)),
    ("個人番号：123456789018", ("123456789018",)),
    ("個人番号 1234 5678\n9018 を登録", ("1234 5678\n9018",)),
)
NOT = ("マイナンバーは1234-5678-9012です。", "注文番号 123456789018 を出荷しました。", "売上は123,456,789,018円です。")

_NUMBER = re.compile(r"(?<![\d.,-])(?:\d{12}|\d{4}(?:-|[ \n])\d{4}(?:-|[ \n])\d{4})(?![\d-]|[.,]\d)")
_NAMED = re.compile(r"マイナンバー|マイ・ナンバー|個人番号|my\s?number", re.IGNORECASE)
_LICENCE = re.compile(r"免許")


def find(seen: Normal) -> Iterator[Finding]:
    for match in _NUMBER.finditer(seen.text):
        if check_digit(digits(match[0])[:11]) != digits(match[0])[11]:
            continue
        named = near(_NAMED, seen, match.start(), 40) or _NAMED.search(seen.text, match.end(), match.end() + 20)
        if not named and (len(match[0]) == 12 or of_a_thing(seen, match.start()) or near(_LICENCE, seen, match.start(), 30)):
            continue
        yield found("my_number", seen, *match.span(), 0.99 if named else 0.8)


def check_digit(first: Sequence[int]) -> int:
    """Of the eleven digits before it."""
    rest = sum(digit * (n + 1 if n <= 6 else n - 5) for n, digit in enumerate(reversed(first), start=1)) % 11
    return 0 if rest <= 1 else 11 - rest
