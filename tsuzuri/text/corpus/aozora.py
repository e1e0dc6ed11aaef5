"""Aozora Bunko's markup out of a text: ruby, notes, characters outside the code table, header and footer.

In: a text as Aozora Bunko publishes it. Out: what a reader reads, without readings and typesetting notes.
Other text passes unchanged: nothing is removed unless the markup is there. The markup: https://www.aozora.gr.jp/annotation/
"""

from __future__ import annotations

import re
import unicodedata

RULE = re.compile(r"^-{20,}[ \t]*$", re.MULTILINE)  # two of them enclose the key to the symbols
FOOTER = re.compile(r"^底本[：:](?=.{0,3000}\Z).*", re.MULTILINE | re.DOTALL)  # at the end alone: a text may speak of its 底本
RUBY = re.compile(r"《[^《》\n]{1,60}》")
BAR = re.compile(r"｜(?=[^｜《》\n]{1,60}《)")  # where the ruby's base begins
NOTE = re.compile(r"※?［＃[^［］\n]*(?:［[^［］\n]*］[^［］\n]*)*］")
CODE_POINT = re.compile(r"U\+([0-9A-Fa-f]{4,6})")
PLANE = re.compile(r"(?:第[34]水準)?([12])-(\d{1,2})-(\d{1,2})")  # JIS X 0213: plane, row, cell
ACCENT = re.compile(r"〔([^〔〕\n]*)〕")
LETTERS = {"AE&": "Æ", "ae&": "æ", "OE&": "Œ", "oe&": "œ", "s&": "ß", "O/": "Ø", "o/": "ø", "L/": "Ł", "l/": "ł", "?@": "¿", "!@": "¡"}
VOWELS = "AEIOUYaeiouy"
ACCENTS = {  # mark -> combining character, and the letters that take it: l'homme, c'est and a comma stay what they are
    "`": ("\u0300", VOWELS),
    "'": ("\u0301", VOWELS),
    ":": ("\u0308", VOWELS),
    "_": ("\u0304", VOWELS),
    "&": ("\u030a", "Aa"),
    ",": ("\u0327", "Cc"),
    "^": ("\u0302", VOWELS + "CGHJSWcghjsw"),
    "~": ("\u0303", VOWELS + "Nn"),
}
MARKED = [re.escape(letters) for letters in LETTERS] + [f"[{letters}]{re.escape(mark)}" for mark, (_, letters) in ACCENTS.items()]
LETTER = re.compile("|".join(MARKED))
REPEAT = {"／＼": "〳〵", "／″＼": "〴〵"}  # two lines high in print, which is why they are written in two halves
UNKNOWN = "〓"  # the printer's own sign for a character that is not at hand


def is_marked(text: str) -> bool:
    """Whether this is Aozora's markup: a note, a footer, or ruby on kanji more than once."""
    if "［＃" in text or BAR.search(text):
        return True
    return (FOOTER.search(text) is not None and "青空文庫" in text) or len(re.findall(r"[一-龯々]《[ぁ-んァ-ヶー]{1,20}》", text)) >= 3


def clean(text: str) -> str:
    """The text itself. What is not marked up in Aozora's way comes back as it was."""
    if not is_marked(text):
        return text
    text = _body(text)
    text = RUBY.sub("", BAR.sub("", text))
    text = NOTE.sub(_note, text)
    for halves, sign in REPEAT.items():
        text = text.replace(halves, sign)
    return ACCENT.sub(_accented, text)


def _body(text: str) -> str:
    """Without title, key to the symbols, and what follows 底本."""
    rules = list(RULE.finditer(text))
    if len(rules) >= 2 and "《》" in text[rules[0].end() : rules[1].start()]:
        text = text[rules[1].end() :]
    return FOOTER.sub("", text).strip("\n")


def _note(found: re.Match[str]) -> str:
    """A character described by number becomes that character; any other note is typesetting and goes."""
    note = found.group()
    if not note.startswith("※"):
        return ""
    if code := CODE_POINT.search(note):
        return _character(int(code.group(1), 16))
    if place := PLANE.search(note):
        return _from_jis(*map(int, place.groups()))
    return UNKNOWN


def _character(code: int) -> str:
    return chr(code) if code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF else UNKNOWN


def _from_jis(plane: int, row: int, cell: int) -> str:
    """JIS X 0213 through EUC-JIS-2004: rows and cells are bytes above 0xA0; plane 2 stands behind 0x8F."""
    if not (1 <= row <= 94 and 1 <= cell <= 94):
        return UNKNOWN
    data = bytes([0x8F] * (plane == 2) + [0xA0 + row, 0xA0 + cell])
    try:
        return data.decode("euc_jis_2004")
    except UnicodeDecodeError:
        return UNKNOWN


def _accented(found: re.Match[str]) -> str:
    """〔cafe'〕 is café; brackets without such letters are the author's own."""
    inner = found.group(1)
    plain = LETTER.sub(_letter, inner)
    return plain if plain != inner and inner.isascii() else found.group()


def _letter(found: re.Match[str]) -> str:
    letter = found.group()
    return LETTERS.get(letter) or unicodedata.normalize("NFC", letter[0] + ACCENTS[letter[1]][0])
