"""Cleaning one document, and the reasons to leave one out.

In: the text of a document. Out: the text as it will be learned, or the reason it will not be. Order: Aozora's markup,
line ends and invisible characters, Unicode form, then the filters, cheapest first. It compares no two documents: `dedup.py`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from tsuzuri.errors import Words
from tsuzuri.text.corpus import aozora

Form: TypeAlias = Literal["none", "nfc", "nfkc"]

INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069]")  # soft hyphen, zero width, marks of direction
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
TRAILING = re.compile(r"[ \t　]+$", re.MULTILINE)
BLANK = re.compile(r"\n{3,}")
LETTER = re.compile(r"[^\W_]")

MAX_REPLACED = 0.002  # share of U+FFFD: more than one or two slips means it was decoded wrongly
MIN_LETTERS = 0.4  # share of characters that are letters, kana, kanji or digits: below it is a table or ASCII art
MAX_REPEATED = 0.5  # share of lines that stood before in the same document: menus, boilerplate, spam

REASONS: Mapping[str, Words] = {
    "empty": Words("空", "empty"),
    "short": Words("短すぎる", "too short"),
    "broken": Words("文字化け", "wrongly decoded"),
    "symbols": Words("記号や表が大半", "mostly symbols or tables"),
    "repetition": Words("同じ行の繰り返し", "the same lines over and over"),
    "duplicate": Words("完全な重複", "exact duplicate"),
    "near_duplicate": Words("ほぼ同じ文書", "near duplicate"),
    "over_limit": Words("上限（max_bytes）を超えた分", "beyond max_bytes"),
}


def clean(text: str, form: Form) -> str:
    """The text without markup and invisible characters, in the Unicode form asked for; a space at a line's end is no text."""
    text = aozora.clean(text)
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n\n").replace("\f", "\n")
    text = CONTROL.sub("", INVISIBLE.sub("", text))
    if form != "none":
        text = unicodedata.normalize("NFC" if form == "nfc" else "NFKC", text)
    return BLANK.sub("\n\n", TRAILING.sub("", text)).strip("\n")


def fault(text: str, min_characters: int) -> str | None:
    """The first reason of REASONS to leave a cleaned text out, or None."""
    if not text.strip():
        return "empty"
    if len(text) < min_characters:
        return "short"
    return next((reason for reason, holds in _FILTERS.items() if holds(text)), None)


def broken(text: str) -> bool:
    return text.count("\ufffd") > MAX_REPLACED * len(text)


def symbols(text: str) -> bool:
    dense = "".join(text.split())
    return len(dense) - len(LETTER.sub("", dense)) < MIN_LETTERS * len(dense)


def repetition(text: str) -> bool:
    """Long lines weigh more: repeated characters are counted, not repeated lines."""
    lines = [line.strip() for line in text.split("\n")]
    total = sum(map(len, lines))
    return total - sum(map(len, set(lines))) > MAX_REPEATED * total


_FILTERS: Mapping[str, Callable[[str], bool]] = {"broken": broken, "symbols": symbols, "repetition": repetition}
