"""カード番号: 14 to 19 digits with the prefix and length of an issuer and a right last digit (Luhn).

In: a text. Out: the numbers, in the usual groups or in one. Source: ISO/IEC 7812-1, annex B; issuers' published ranges.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tsuzuri.errors import Words
from tsuzuri.guard.checks._context import SIX_DIGITS, digits, of_a_thing
from tsuzuri.guard.finding import Finding, found
from tsuzuri.guard.normal import Normal

LABEL = Words("カード番号", "card")
PERSONAL = True
NEEDS = (SIX_DIGITS,)
FOUND = (
    ("カードは４１１１－１１１１－１１１１－１１１１です", ("４１１１－１１１１－１１１１－１１１１",)),
    ("3530 1113 3330 0000", ("3530 1113 3330 0000",)),
    ("378282246310005 と 3782-822463-10005", ("378282246310005", "3782-822463-10005")),
    ("5555-5555-\n5555-4444", ("5555-5555-\n5555-4444",)),
)
NOT = ("4111-1111-1111-1112", "9111 1111 1111 1111", "追跡番号 4111111111111111", "0.4111111111111111")

_GAP = r"(?:-\n?|[ \n])"
_NUMBER = re.compile(
    rf"(?<![\d.,-])(?:\d{{14,19}}|\d{{4}}{_GAP}\d{{4}}{_GAP}\d{{4}}{_GAP}\d{{4}}(?:{_GAP}\d{{1,3}})?|\d{{4}}{_GAP}\d{{6}}{_GAP}\d{{4,5}})(?![\d-]|[.,]\d)"
)
_ISSUER = re.compile(
    r"4\d{15}(?:\d{3})?|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[68]\d)\d{11}|6(?:011|5\d\d|4[4-9]\d)\d{12}|62\d{14,17}"
)


def find(seen: Normal) -> Iterator[Finding]:
    for match in _NUMBER.finditer(seen.text):
        number = digits(match[0])
        if _ISSUER.fullmatch("".join(map(str, number))) and luhn(number) and not of_a_thing(seen, match.start()):
            yield found("card", seen, *match.span(), 0.98)


def luhn(number: Sequence[int]) -> bool:
    """Whether the last digit is right."""
    return sum(digit if n % 2 == 0 else digit * 2 - 9 * (digit > 4) for n, digit in enumerate(reversed(number))) % 10 == 0
