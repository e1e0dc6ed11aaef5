"""What stands just before a number says what it is: one way to look back, shared by the checks.

In: a normalised text and a place. Out: whether one of the words stands near before it. It looks no farther than BEFORE.
"""

from __future__ import annotations

import re

from tsuzuri.guard.normal import Normal

BEFORE = 60  # characters; a stream keeps as many of what is already gone
SIX_DIGITS = r"[0-9](?:[-() .\n]{0,4}[0-9]){5}"  # NEEDS of numbers: the shortest has seven, in groups with at most this between them
# numbers of things, not of people: what carries one of these just before it is none of ours
_OF_THINGS = re.compile(
    r"(?:注文|受注|発注|伝票|追跡|送り状|問い?合わ?せ|管理|製造|シリアル|商品|製品|品|型|部品|請求書|見積書?|案件|整理|ロット|図面|議案|稟議|契約書)"
    r"(?:番号|コード|No\.?|ID|番)|JAN|ISBN|SKU|型番|品番|(?:order|tracking|serial|invoice|part|ticket)\s?(?:no\.?|number|id|#)",
    re.IGNORECASE,
)


def near(words: re.Pattern[str], seen: Normal, start: int, reach: int = BEFORE) -> bool:
    """Whether one of the words stands in the `reach` characters before `start`."""
    return words.search(seen.text, max(0, start - min(reach, BEFORE)), start) is not None


def of_a_thing(seen: Normal, start: int) -> bool:
    """Whether the number is said to be that of an order, a product, a parcel."""
    return near(_OF_THINGS, seen, start, 16)


def digits(text: str) -> list[int]:
    return [int(character) for character in text if character.isdigit()]
