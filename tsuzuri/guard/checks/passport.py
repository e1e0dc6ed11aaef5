"""旅券番号: two letters and seven digits behind a word that names a passport.

In: a text. Out: the numbers. There is no check digit in the number itself, so a product code alone (AB1234567) is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tsuzuri.errors import Words
from tsuzuri.guard.checks._context import SIX_DIGITS, near
from tsuzuri.guard.finding import Finding, found
from tsuzuri.guard.normal import Normal

LABEL = Words("旅券番号", "passport")
PERSONAL = True
NEEDS = (SIX_DIGITS,)
FOUND = (
    ("パスポート番号：ＴＲ１２３４５６７", ("ＴＲ１２３４５６７",)),
    ("旅券番号は TK 1234567 です", ("TK 1234567",)),
    ("passport no. MU7654321", ("MU7654321",)),
)
NOT = ("品番TR1234567を発注", "パスポートの更新はAB123でお待ちください", "旅券番号はABC1234567")

_NUMBER = re.compile(r"(?<![A-Za-z0-9-])[A-Za-z]{2}[ -]?\d{7}(?![A-Za-z0-9-])")
_NAMED = re.compile(r"パスポート|旅券|passport", re.IGNORECASE)


def find(seen: Normal) -> Iterator[Finding]:
    for match in _NUMBER.finditer(seen.text):
        if near(_NAMED, seen, match.start(), 30):
            yield found("passport", seen, *match.span(), 0.97)
