"""住所: from the prefecture, the city or the label to the number of the house, the building included.

In: a text. Out: addresses with a number in them; a town alone (東京都港区) is no one's home. An address may go over one line break.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tsuzuri.errors import Words
from tsuzuri.guard.checks._places import KANA, PREFECTURES
from tsuzuri.guard.finding import Finding, found
from tsuzuri.guard.normal import Normal

LABEL = Words("住所", "address")
PERSONAL = True
NEEDS = (  # the last character of a prefecture, a city or a ward, and soon the number of a house
    r"[都道府県市郡区町村][一-鿿ぁ-ゖァ-ヺー々〆\s]{0,20}?(?:[0-9]{1,5}(?:丁目|番|-[0-9])|[一二三四五六七八九十百]{1,5}(?:丁目|番))",
)
FOUND = (
    ("住所は東京都千代田区丸の内１－１－１です。", ("東京都千代田区丸の内１－１－１",)),
    ("横浜市西区みなとみらい二丁目3番1号 みなとビル5階に移転", ("横浜市西区みなとみらい二丁目3番1号 みなとビル5階",)),
    ("送付先：北海道札幌市中央区北一条西2丁目", ("北海道札幌市中央区北一条西2丁目",)),
    ("大阪府\n堺市堺区南瓦町3番1号", ("大阪府\n堺市堺区南瓦町3番1号",)),
)
NOT = ("東京都の2026年度予算", "大阪市では3件の応募", "横浜市西区に拠点が2-3あります", "福岡県内の5社", "町の1番の人気")

_NUMBER = (
    r"(?:(?:\d{1,3}|[一二三四五六七八九十]{1,3})丁目(?:\s?\d{1,4}(?:番地?|-)?(?:の?\s?\d{1,4}号?)?(?:-\d{1,5}){0,2})?"
    r"|\d{1,5}番(?![町丁])地?(?:の\d{1,4}|-\d{1,4})?(?:\s?\d{1,4}号)?"
    r"|[一二三四五六七八九十百]{1,5}番(?![町丁])地?(?:の?[一二三四五六七八九十]{1,3}号?)?"
    r"|\d{1,5}(?:-\d{1,5}){1,4}号?)(?![\d-]|\s?[年月円%個件名人回倍位社割])"
)
_BUILDING = (
    r"(?:(?:\s[一-鿿ぁ-ゖァ-ヺーA-Za-z々・ヶ]{1,16}?|[一-鿿ァ-ヺーA-Za-z々・ヶ]{1,16}?)(?:ビルディング|ビル|マンション|ハイツ|コーポ|アパート|タワー|荘|レジデンス|メゾン|ハウス|プラザ|団地|パレス)"
    r"(?:[A-Z0-9]{1,3}棟)?(?:\s?\d{1,5}(?:階|F|号室|号)?)?)?(?:\s?\d{1,5}(?:号室|階|F))?"
)
_TOWN = r"[一-鿿ぁ-ゖァ-ヺー々〆ヶケノ]{0,16}?"
_CITY = rf"(?:(?:{KANA})|[一-鿿ヶケ々]{{1,7}}?[市郡区]|[一-鿿]{{1,5}}?[町村])"
_WARD = r"(?:\s?[一-鿿ヶケ々みなとさくらみどり]{1,6}?[区町村])?"
_ADDRESS = re.compile(rf"(?:(?:{PREFECTURES})\s?(?:{_CITY}{_WARD})?|{_CITY}{_WARD})\s?{_TOWN}\s?{_NUMBER}{_BUILDING}")
# what is no part of a town's name, so that a sentence is not read as one
_SENTENCE = re.compile(
    r"では|には|から|まで|など|による|として|について|です|ます|した|する|内の|[はをへも](?=\d)|[にでとが](?=\d)|拠点|予算|年度|役所の|役場の"
)
_LEAD = re.compile(r"^(?:住所|所在地|送付先|届出先|届け先|配送先|勤務先|実家|自宅|転居先|本社|弊社|当社|現住所|新住所)+")


def find(seen: Normal) -> Iterator[Finding]:
    at = 0
    while match := _ADDRESS.search(seen.text, at):
        at = match.end()
        lead = _LEAD.match(match[0])
        start = match.start() + (lead.end() if lead else 0)
        if _SENTENCE.search(seen.text, start, match.end()):
            at = match.start() + 1
            continue
        yield found("postal_address", seen, start, match.end(), 0.9)
