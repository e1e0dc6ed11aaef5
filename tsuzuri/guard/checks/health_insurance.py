"""健康保険の記号・番号: 被保険者等記号・番号 and the insurer's number, each behind the word for it.

In: a text. Out: what stands behind 記号 and 番号 (and 枝番) near a word for health insurance, and eight digits behind 保険者番号. Symbols in kanji or
kana are not found. Since 2020 none may be asked for without need (健康保険法 第百九十四条の二).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tsuzuri.errors import Words
from tsuzuri.guard.checks._context import near
from tsuzuri.guard.finding import Finding, found
from tsuzuri.guard.normal import Normal

LABEL = Words("健康保険の番号", "health insurance number")
PERSONAL = True
NEEDS = ("記号|番号|枝番",)
FOUND = (
    ("健康保険証 記号 １２３４５６７８ 番号 １２３", ("１２３４５６７８", "１２３")),
    ("被保険者証の記号：21700023、番号：456（枝番 01）", ("21700023", "456", "01")),
    ("保険者番号：06123456", ("06123456",)),
    ("国民健康保険の記号は12-34、番号は5678です。", ("12-34", "5678")),
)
NOT = ("記号 1234 番号 567 の部品", "健康保険の窓口は3番です。", "保険者番号の欄が空白です", "ゆうちょ銀行 記号 10120 番号 12345671")

_GAP = r"[\s:は、,/・]{0,4}"
_NUMBER = re.compile(
    rf"(?:(?<![一-鿿])(?:記号|番号|枝番)|被保険者(?:記号|番号)|(?P<insurer>保険者番号)){_GAP}(?P<number>\d{{1,8}}(?:-\d{{1,4}})?)"
    r"(?![\d-]|[.,]\d|\s?[件円人個名番階つの](?!号))"
)
_NAMED = re.compile(r"健康保険|健保|国保|社保|保険証|被保険者|資格確認書")


def find(seen: Normal) -> Iterator[Finding]:
    for match in _NUMBER.finditer(seen.text):
        if match["insurer"] or near(_NAMED, seen, match.end()):
            yield found("health_insurance", seen, *match.span("number"), 0.978)
