"""郵便番号: three digits and four, behind a 〒, a word that names it, or before a prefecture.

In: a text. Out: postal codes, the 〒 included. 123-4567 alone is none: it may be any number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tsuzuri.errors import Words
from tsuzuri.guard.checks._context import SIX_DIGITS, near
from tsuzuri.guard.checks._places import PREFECTURES
from tsuzuri.guard.finding import Finding, found
from tsuzuri.guard.normal import Normal

LABEL = Words("郵便番号", "postal code")
PERSONAL = True
NEEDS = (SIX_DIGITS,)
FOUND = (
    ("〒１００－０００１ 東京都千代田区", ("〒１００－０００１",)),
    ("郵便番号は1000001です", ("1000001",)),
    ("100-0001 東京都千代田区千代田1-1", ("100-0001",)),
)
NOT = ("部品 100-0001 を発注", "電話は03-100-0001です", "〒マークの説明は100ページ")

_CODE = re.compile(r"〒\s?(?:\d{3}-\d{4}|\d{7})(?![\d-])|(?<![\d.,A-Za-z-])(?:\d{3}-\d{4}|\d{7})(?![\d-]|[.,]\d)")
_NAMED = re.compile(r"郵便番号|postal code|zip(?: code)?", re.IGNORECASE)
_PLACE = re.compile(rf"\s{{0,2}}(?:{PREFECTURES})")


def find(seen: Normal) -> Iterator[Finding]:
    for match in _CODE.finditer(seen.text):
        if match[0][0] == "〒" or near(_NAMED, seen, match.start(), 10) or ("-" in match[0] and _PLACE.match(seen.text, match.end())):
            yield found("postal_code", seen, *match.span(), 0.96)
