"""One text read as a person reads it, with a way back to the places of the original.

`plain`: NFKC, every hyphen and dash one `-`, invisible characters gone, tag characters as the letters they hide. For personal data.
`folded`: besides, small letters, katakana as hiragana, letters of other scripts that look Latin as Latin, digits inside words as
the letters they stand for, no spaces between Japanese characters or between single letters. For rules about words.
The law: `span` of any stretch of the result is the stretch of the original that it came from.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, pairwise

DASHES = "‐‑‒–—―−⁃﹣－˗─━"
LOOKALIKE = str.maketrans(
    "аеорсухіјѕԁһԛԝӏкмтнвгпАВЕКМНОРСТХІЈЅαοερικντυχηωΑΒΕΖΗΙΚΜΝΟΡΤΥΧɑɡıℓᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ",
    "aeopcyxijsdhqwlkmthbrnabekmhopctxijsaoepikvtuxnwabezhikmnoptyxagilabcdefghijklmnoprstuvwyz",
)
LEET = str.maketrans("0134578@$!|", "oieastbasii")
_TAGS = 0xE0000  # a tag character hides the ASCII letter of its last seven bits


@dataclass(frozen=True, slots=True)
class Normal:
    """`places[i]`, `stops[i]`: where the original of text[i] begins and ends. None: everywhere i and i + 1."""

    original: str
    text: str
    places: array[int] | None = None
    stops: array[int] | None = None

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """The original's stretch of text[start:stop], which is not empty."""
        if self.places is None or self.stops is None:
            return start, stop
        return self.places[start], self.stops[stop - 1]


def plain(text: str) -> Normal:
    """See above. One pass over the text."""
    if text.isascii():
        return Normal(text, text)
    table = _table()
    if not odd().search(text):
        return even(text)
    parts: list[str] = []
    places, stops = array("l"), array("l")
    at = 0
    for match in [*_irregular().finditer(text), None]:
        end = match.start() if match else len(text)
        parts.append(text[at:end].translate(table))
        places.extend(range(at, end))
        stops.extend(range(at + 1, end + 1))
        if match is None:
            break
        made = _made(match[0])
        parts.append(made)
        places.extend([end] * len(made))
        stops.extend([match.end()] * len(made))
        at = match.end()
    return Normal(text, _dashed("".join(parts)), places, stops)


def even(text: str) -> Normal:
    """`plain` of a text without odd characters: every character becomes one."""
    return Normal(text, _dashed(_replaced(text)))


def _replaced(text: str) -> str:
    """Every character of the table as the one it becomes: of a long text one kind after the other, which is faster by half; none becomes
    another of the table."""
    table = _table()
    kinds = set(_changing().findall(text)) if len(text) > _LONG_TEXT else None
    if kinds is None or len(kinds) > _MANY_KINDS:
        return text.translate(table)
    for character in kinds:
        text = text.replace(character, table.get(ord(character), character))
    return text


_LONG_TEXT, _MANY_KINDS = 400, 60


@functools.cache
def _changing() -> re.Pattern[str]:
    """A character of the table, or any beyond the first plane."""
    return re.compile(f"[{_class(code for code in sorted(_table()) if code < 0x10000)}\U00010000-\U0010ffff]")


def folded(text: str) -> Normal:
    """See above. What is told of `plain`, and the rest."""
    return fold(plain(text))


def fold(seen: Normal) -> Normal:
    """`folded`, from what is plain already."""
    text = seen.text.translate(_hiragana()).translate(LOOKALIKE)
    text = _WORD.sub(lambda word: word[0].translate(LEET), text)
    spread = [match.span() for match in _SPREAD.finditer(text)]
    cut = sorted({*(match.span() for match in _GAP.finditer(text)), *(span for a, b in spread for span in _spaces(text, a, b))})
    if not cut:
        return Normal(seen.original, text, seen.places, seen.stops)
    kept = [(a, b) for (_, a), (b, _) in pairwise([(0, 0), *_joined(cut), (len(text), 0)]) if a < b]
    places, stops = array("l"), array("l")
    for a, b in kept:
        places.extend(range(a, b) if seen.places is None else seen.places[a:b])
        stops.extend(range(a + 1, b + 1) if seen.stops is None else seen.stops[a:b])
    return Normal(seen.original, "".join(text[a:b] for a, b in kept), places, stops)


# letters and digits mixed, beginning or ending with a letter, are a word written with digits; 2026 and 3.5 are none
_WORD = re.compile(r"(?<![\w@$!|])(?=[\w@$!|]{0,30}[a-z])[a-z0-9@$!|]*[a-z][a-z0-9@$|]*[a-z0-9]", re.ASCII)
_JAPANESE = "ぁ-ゖァ-ヺー一-鿿々〆"
_GAP = re.compile(
    rf"(?<=[{_JAPANESE}。、「」【】:!?])[ \t\u3000·・._*~|/-]{{1,3}}(?=[{_JAPANESE}。、「」【】:!?])"  # before and behind a Japanese character
    r"|(?<=[^a-z][a-z])[ ._*~|/-](?=[a-z](?:[^a-z]|$))|(?<=^[a-z])[ ._*~|/-](?=[a-z](?:[^a-z]|$))"  # s p a c e d
)


_SPREAD = re.compile(r"(?:[^ \n](?: {3}| (?! ))){6,}")  # a space after every character; what was a space is now three


def _spaces(text: str, start: int, stop: int) -> list[tuple[int, int]]:
    """What to leave out of a stretch that is spread with spaces."""
    return [(m.start(), m.end() - (m.end() - m.start() == 3)) for m in re.compile(" +").finditer(text, start, stop)]


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted spans without overlap."""
    found: list[tuple[int, int]] = []
    for start, stop in spans:
        if found and start < found[-1][1]:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    return found


def _dashed(text: str) -> str:
    """Long numbers in kanji as digits, and ー and の inside a number as hyphens; one character stays one character."""
    return _LONG.sub("-", _NUMERALS.sub(_digits, text))


def _digits(match: re.Match[str]) -> str:
    made = match[0].translate(KANJI_DIGITS)
    return made if sum(map(str.isdigit, made)) >= 7 else match[0]


KANJI_DIGITS = str.maketrans("〇零一二三四五六七八九の", "00123456789-")
_NUMERALS = re.compile("[〇零一二三四五六七八九][〇零一二三四五六七八九の -]{5,40}[〇零一二三四五六七八九]")


_LONG = re.compile(r"(?<=[0-9)])[ー~〜](?=[0-9(])")


@functools.cache
def _table() -> dict[int, str]:
    """Of every character that becomes exactly one other."""
    dashes = {ord(dash): "-" for dash in DASHES}
    table = {
        code: made.translate(dashes)
        for code in range(0x80, 0x30000)
        if len(made := unicodedata.normalize("NFKC", chr(code))) == 1 and made != chr(code) and not 0xD800 <= code < 0xE000
    }
    return table | dashes | {0x3000: " ", 0xA0: " "}


@functools.cache
def _irregular() -> re.Pattern[str]:
    """Stretches in which one character does not become one: half-width kana with marks, what is combined, what is invisible."""
    unseen, strange = _class(filter(_unseen, chain(*_EVERY))), _class(filter(_odd, chain(*_EVERY)))
    return re.compile(rf"[^\n{_MARKS}](?:[{unseen}]{{0,8}}[{_MARKS}])+|[{strange}{_MARKS}]")


@functools.cache
def odd() -> re.Pattern[str]:
    """A character without which no stretch is irregular, or any beyond the first plane: one class that is searched fast."""
    first = _class(filter(_odd, chain(range(0x80, 0xD800), range(0xE000, 0x10000))))
    return re.compile(f"[{first}{_MARKS}\U00010000-\U0010ffff]")


_EVERY = (range(0x80, 0xD800), range(0xE000, 0x30000), range(_TAGS, _TAGS + 0x200))
_MARKS = "\u0300-\u036f\u3099\u309a\uff9e\uff9f"


def _class(codes: Iterable[int]) -> str:
    """Ascending codes as the inside of a character class."""
    ranges: list[list[int]] = []
    for code in codes:
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"{re.escape(chr(a))}-{re.escape(chr(b))}" for a, b in ranges)


def _odd(code: int) -> bool:
    character = chr(code)
    return _invisible(character) or len(unicodedata.normalize("NFKC", character)) != 1


def _unseen(code: int) -> bool:
    return _invisible(chr(code))


def _invisible(character: str) -> bool:
    code = ord(character)
    return unicodedata.category(character) == "Cf" or 0xFE00 <= code < 0xFE10 or _TAGS <= code < _TAGS + 0x200 or code in (0x115F, 0x3164)


def _made(odd: str) -> str:
    """What an irregular stretch becomes: nothing for what is invisible, its letter for a tag."""
    shown = "".join(
        chr(ord(c) - _TAGS) if _TAGS + 0x20 <= ord(c) < _TAGS + 0x7F else c
        for c in odd
        if not _invisible(c) or _TAGS + 0x20 <= ord(c) < _TAGS + 0x7F
    )
    return unicodedata.normalize("NFKC", shown).translate(_table())


@functools.cache
def _hiragana() -> dict[int, str]:
    """Katakana to hiragana, and capitals to small letters where that is one character."""
    kana = {code: chr(code - 0x60) for code in range(0x30A1, 0x30F7)}
    small = {code: low for code in range(0x41, 0x530) if len(low := chr(code).lower()) == 1 and low != chr(code)}
    return kana | small
