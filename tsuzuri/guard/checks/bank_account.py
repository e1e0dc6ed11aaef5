"""口座番号: seven digits behind a word that says so, or behind 普通 or 当座 where a bank is spoken of; ゆうちょ's 記号 and 番号.

In: a text. Out: the digits of the account, not the bank's name. Any seven digits may be an account: only context tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tsuzuri.errors import Words
from tsuzuri.guard.checks._context import SIX_DIGITS, near
from tsuzuri.guard.finding import Finding, found
from tsuzuri.guard.normal import Normal

LABEL = Words("口座番号", "bank account")
PERSONAL = True
NEEDS = (SIX_DIGITS,)
FOUND = (
    ("みどり銀行 本店営業部 普通 １２３４５６７", ("１２３４５６７",)),
    ("口座番号：当座 0123456", ("0123456",)),
    ("ゆうちょ銀行 記号 10120 番号 12345671", ("10120", "12345671")),
    ("account number: 7654321", ("7654321",)),
)
NOT = ("普通 1234567 人が来場する規模", "銀行の番号札は1234です", "口座を1234567件開設", "普通郵便で送付 7654321")

_NUMBER = re.compile(
    r"(?:口座番号|口座No\.?|口座|account (?:number|no\.?))(?:[\s:はが、/・()]|普通|当座|貯蓄|預金|種別){0,14}(?P<a>\d{7}|\d{3}-\d{4})(?![\d-]|[.,]\d|\s?(?:[件円人個本]|名(?!義)))"
    r"|(?:普通|当座|貯蓄)(?:預金)?(?:口座)?[\s:はNo./()-]{0,6}(?P<b>\d{7})(?![\d-]|[.,]\d|\s?(?:[件円人個本]|名(?!義)))"
    r"|記号[\s:は]{0,4}(?P<c>1\d{4})(?:-\d)?[\s、,/・]{0,4}番号[\s:は]{0,4}(?P<d>\d{6,8})(?!\d)",
    re.IGNORECASE,
)
_BANK = re.compile(r"銀行|信用金庫|信金|信用組合|農協|JA|労働?金庫?|ゆうちょ|支店|営業部|出張所|口座|振込|振り込|入金")


def find(seen: Normal) -> Iterator[Finding]:
    for match in _NUMBER.finditer(seen.text):
        if match["b"] and not near(_BANK, seen, match.start()):
            continue
        for group in "abcd":
            if match[group]:
                yield found("bank_account", seen, *match.span(group), 0.97)
