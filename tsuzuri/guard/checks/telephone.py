"""電話番号: Japanese numbers, by how the area codes are dealt out: ten digits, eleven for mobile and IP telephones.

In: a text. Out: numbers with hyphens, spaces, brackets or nothing between; +81 too. A number without any of these must begin with an
area code that exists. Extensions and numbers of three digits (110, 119) are none. Source of the codes: 総務省, 電気通信番号計画.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tsuzuri.errors import Words
from tsuzuri.guard.checks._context import SIX_DIGITS, of_a_thing
from tsuzuri.guard.finding import Finding, found
from tsuzuri.guard.normal import Normal

LABEL = Words("電話番号", "telephone")
PERSONAL = True
NEEDS = (SIX_DIGITS,)
FOUND = (
    ("電話は０９０‐１２３４‐５６７８まで", ("０９０‐１２３４‐５６７８",)),
    ("TEL:03(1234)5678、FAX:（０３）１２３４ー５６７９", ("03(1234)5678", "（０３）１２３４ー５６７９")),
    ("〇九〇の一二三四の五六七八です", ("〇九〇の一二三四の五六七八",)),
    ("+81 90-1234-5678 or 0120-123-456", ("+81 90-1234-5678", "0120-123-456")),
    ("携帯は090-1234-\n5678です", ("090-1234-\n5678",)),
)
NOT = ("2026-11-27に03-12を確認", "注文番号 0312345678", "品番は01-2345-678です", "0.3123-4567-89", "単価0120円、数量123-456")

_GAP = r"(?:-\n?|[ ]-[ ]|[ \n]|[.])"
_CODE = (
    "1[1-9]|22|23|24|25|26|27|28|29|3|42|43|44|45|46|47|48|49|4|52|53|54|5[5-9]|6|72|73|74|75|76|77|78|79|82|83|84|85|86|87|88|89|9[2-9]"
)
_NUMBER = re.compile(
    rf"(?<![\d.,A-Za-z-])(?:"
    rf"(?:\((?P<inner>0[1-9]\d{{0,3}})\)[ ]?|(?P<country>\+81{_GAP}?(?:\(0\)[ ]?)?)?(?P<area>(?(country)0?|0)[1-9]\d{{0,3}})(?:{_GAP}|(?=\()))"
    rf"\(?(?P<local>\d{{1,4}})(?:\)[ ]?|{_GAP})(?P<rest>\d{{3,4}})"
    rf"|(?P<bare>0(?:[5-9]0\d{{8}}|(?:{_CODE})\d{{7,8}}|120\d{{6}}|800\d{{7}}))"
    rf"|(?P<abroad>\+81(?:[5-9]0\d{{8}}|(?:{_CODE})\d{{7,8}}))"
    rf")(?![\d]|-\d|[.,]\d)"
)


def find(seen: Normal) -> Iterator[Finding]:
    for match in _NUMBER.finditer(seen.text):
        if of_a_thing(seen, match.start()):
            continue
        if match["bare"]:
            if _bare(match["bare"]):
                yield found("telephone", seen, *match.span(), 0.8)
        elif match["abroad"] or _grouped(match["inner"] or match["area"], match["local"], match["rest"], bool(match["country"])):
            yield found("telephone", seen, *match.span(), 0.95)


def _bare(number: str) -> bool:
    return len(number) == (11 if re.match("0[5-9]0|0800", number) else 10)


def _grouped(area: str, local: str, rest: str, abroad: bool) -> bool:
    """Whether the groups are those of a Japanese number."""
    area = area if area[0] == "0" else f"0{area}"
    lengths = (len(area), len(local), len(rest))
    if area in ("0120", "0570", "0990"):
        return lengths == (4, 3, 3) or lengths == (4, 2, 4)
    if area == "0800":
        return lengths == (4, 3, 4)
    if re.fullmatch("0[5-9]0", area):
        return lengths == (3, 4, 4)
    return len(area) + len(local) == 6 and len(rest) == 4 and (len(area) > 2 or area in ("03", "04", "06"))
