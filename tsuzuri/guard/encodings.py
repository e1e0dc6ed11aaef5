"""The ways a secret may be written that are looked for: one table, for the search, the tests and the page.

In: a secret. Out: its written forms (several where the alignment of bytes matters). `how` says how each is found:
    letters   by its letters and digits alone, whatever stands between them
    raw       by its visible characters, as they are
    decoded   after escapes in the text have been read (also when only some characters are escaped)
    packed    by taking apart every long run of letters and digits in the text
It searches nothing itself.
"""

from __future__ import annotations

import base64
import codecs
import gzip
import string
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tsuzuri.errors import Words

_LOW, _UP = string.ascii_lowercase, string.ascii_uppercase
_KANA = """
エー ビー シー ディー イー エフ ジー エイチ アイ ジェイ ケー エル エム エヌ オー ピー キュー アール エス ティー ユー ブイ ダブリュー エックス ワイ ゼット
ゼロ ワン ツー スリー フォー ファイブ シックス セブン エイト ナイン
""".split()  # noqa: SIM905
_NATO = """
alfa bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar papa quebec romeo sierra tango uniform victor
whiskey xray yankee zulu zero one two three four five six seven eight nine
""".split()  # noqa: SIM905
_MORSE = """
.- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --..
----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----.
""".split()  # noqa: SIM905
_BRAILLE = "⠁⠃⠉⠙⠑⠋⠛⠓⠊⠚⠅⠇⠍⠝⠕⠏⠟⠗⠎⠞⠥⠧⠺⠭⠽⠵⠴⠂⠆⠒⠲⠢⠖⠶⠦⠔"
_SPELLED = _LOW + string.digits
_UPSIDE = str.maketrans(_LOW, "ɐqɔpǝɟƃɥᴉɾʞlɯuodbɹsʇnʌʍxʎz")
_SMALL = str.maketrans(_LOW, "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘqʀꜱᴛᴜᴠᴡxʏᴢ")
_CYRILLIC = str.maketrans("aceopxyijsABCEHKMOPTX", "асеорхуіјѕАВСЕНКМОРТХ")
_LEET = str.maketrans("aeiostAEIOST", "431057431057")
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Encoding:
    called: Words
    how: Literal["letters", "raw", "decoded", "packed"]
    forms: Callable[[str], tuple[str, ...]]


def _one(called: Words, how: Literal["letters", "raw", "decoded", "packed"], form: Callable[[str], str]) -> Encoding:
    return Encoding(called, how, lambda secret: (form(secret),))


def _aligned(encode: Callable[[bytes], bytes], group: int, symbols: int, bits: int) -> Callable[[str], tuple[str, ...]]:
    """Forms for each place in a group of bytes at which the secret may begin: only the symbols that come from it alone."""

    def forms(secret: str) -> tuple[str, ...]:
        data = secret.encode()
        found = []
        for before in range(group):
            whole = encode(b"\0" * before + data).decode().rstrip("=")
            first = -(-before * 8 // bits)
            last = (before + len(data)) * 8 // bits
            found.append(whole[first:last])
        return tuple(found)

    return forms


def _each(form: Callable[[str], str], between: str = "") -> Callable[[str], str]:
    return lambda secret: between.join(map(form, secret))


def _bytes(form: str, between: str = "") -> Callable[[str], str]:
    return lambda secret: between.join(form.format(byte) for byte in secret.encode())


def _spelled(words: Sequence[str], between: str) -> Callable[[str], tuple[str, ...]]:
    """Letters and digits as the words for them; nothing for a secret with other letters."""

    def forms(secret: str) -> tuple[str, ...]:
        return (between.join(words[at] if (at := _SPELLED.find(c)) >= 0 else c for c in secret.lower()),) if secret.isascii() else ()

    return forms


def _shift(by: int) -> Callable[[str], str]:
    table = str.maketrans(_LOW + _UP, _LOW[by:] + _LOW[:by] + _UP[by:] + _UP[:by])
    return lambda secret: secret.translate(table)


def _rot47(secret: str) -> str:
    return "".join(chr(33 + (ord(c) + 14) % 94) if 33 <= ord(c) < 127 else c for c in secret)


def _base58(secret: str) -> str:
    number, made = int.from_bytes(secret.encode(), "big"), ""
    while number:
        number, rest = divmod(number, 58)
        made = _BASE58[rest] + made
    return made


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _alternating(escape: Callable[[str], str]) -> Callable[[str], str]:
    """Every other character escaped."""
    return lambda secret: "".join(escape(c) if at % 2 else c for at, c in enumerate(secret))


ENCODINGS: Mapping[str, Encoding] = {
    "plain": _one(Words("そのまま", "as it is"), "letters", str),
    "upper": _one(Words("大文字", "capitals"), "letters", str.upper),
    "lower": _one(Words("小文字", "small letters"), "letters", str.lower),
    "full-width": _one(Words("全角", "full width"), "letters", _each(lambda c: chr(ord(c) + 0xFEE0) if 33 <= ord(c) < 127 else c)),
    "spaced": _one(Words("一字ごとに空白", "a space after each character"), "letters", " ".join),
    "dashed": _one(Words("一字ごとにハイフン", "a hyphen after each character"), "letters", "-".join),
    "dotted": _one(Words("一字ごとに中黒", "a dot after each character"), "letters", "・".join),
    "zero-width": _one(Words("一字ごとに幅のない文字", "an invisible character after each"), "letters", "\u200b".join),
    "lines": _one(Words("一字ごとに改行", "a line break after each character"), "letters", "\n".join),
    "emoji": _one(Words("一字ごとに絵文字", "an emoji after each character"), "letters", "🔑".join),
    "markdown": _one(Words("一字ごとに Markdown の太字", "each character bold in Markdown"), "letters", _each(lambda c: f"**{c}**")),
    "combining": _one(Words("一字ごとに結合文字", "a combining mark on each character"), "letters", "\u0336".join),
    "reversed": _one(Words("逆順", "reversed"), "letters", lambda s: s[::-1]),
    "rot13": _one(Words("ROT13", "ROT13"), "letters", lambda s: codecs.encode(s, "rot13")),
    "caesar": Encoding(Words("シーザー暗号（1〜25 字）", "Caesar, by 1 to 25"), "letters", lambda s: tuple(_shift(by)(s) for by in range(1, 26))),
    "atbash": _one(Words("アトバシュ", "Atbash"), "letters", lambda s: s.translate(str.maketrans(_LOW + _UP, _LOW[::-1] + _UP[::-1]))),
    "rot47": _one(Words("ROT47", "ROT47"), "raw", _rot47),
    "leet": _one(Words("数字での書き換え（leet）", "leetspeak"), "letters", lambda s: s.translate(_LEET)),
    "lookalike": _one(Words("見た目の同じキリル文字", "Cyrillic letters that look alike"), "letters", lambda s: s.translate(_CYRILLIC)),
    "circled": _one(Words("丸囲み文字", "circled letters"), "letters", _each(lambda c: chr(0x24D0 + ord(c) - 97) if c in _LOW else c)),
    "mathematical": _one(Words("数学用の太字", "mathematical bold"), "letters", _each(lambda c: chr(0x1D41A + ord(c) - 97) if c in _LOW else c)),
    "small capitals": _one(Words("小型大文字", "small capitals"), "letters", lambda s: s.lower().translate(_SMALL)),
    "regional": _one(Words("国旗用の文字", "regional indicators"), "letters", _each(lambda c: chr(0x1F1E6 + ord(c) - 97) if c in _LOW else c)),
    "tags": _one(Words("見えないタグ文字", "invisible tag characters"), "letters", _each(lambda c: chr(0xE0000 + ord(c)) if ord(c) < 127 else c)),
    "upside-down": _one(Words("上下逆さ", "upside down"), "letters", lambda s: s.lower().translate(_UPSIDE)[::-1]),
    "base64": Encoding(Words("Base64（三通りの位置）", "Base64, in three alignments"), "letters", _aligned(base64.b64encode, 3, 4, 6)),
    "base64 url": Encoding(Words("URL 用の Base64", "Base64 for URLs"), "letters", _aligned(base64.urlsafe_b64encode, 3, 4, 6)),
    "base64 spaced": _one(Words("Base64、一字ごとに空白", "Base64, spaced"), "letters", lambda s: " ".join(_b64(s.encode()).rstrip("="))),
    "base64 utf-16": _one(Words("UTF-16 の Base64", "Base64 of UTF-16"), "letters", lambda s: _b64(s.encode("utf-16-le")).rstrip("=")),
    "base64 reversed": _one(Words("Base64 の逆順", "Base64, reversed"), "letters", lambda s: _b64(s.encode()).rstrip("=")[::-1]),
    "base32": Encoding(Words("Base32（五通りの位置）", "Base32, in five alignments"), "letters", _aligned(base64.b32encode, 5, 8, 5)),
    "base58": _one(Words("Base58", "Base58"), "letters", _base58),
    "base85": _one(Words("Base85", "Base85"), "raw", lambda s: base64.b85encode(s.encode()).decode()),
    "ascii85": _one(Words("Ascii85", "Ascii85"), "raw", lambda s: base64.a85encode(s.encode()).decode()),
    "hex": _one(Words("十六進", "hexadecimal"), "letters", _bytes("{:02x}")),
    "hex upper": _one(Words("十六進（大文字）", "hexadecimal, capitals"), "letters", _bytes("{:02X}")),
    "hex separated": _one(Words("十六進（区切りつき）", "hexadecimal, separated"), "letters", _bytes("{:02x}", ":")),
    "hex 0x": _one(Words("十六進（0x つき）", "hexadecimal with 0x"), "letters", _bytes("0x{:02x}", ", ")),
    "hex utf-16": _one(Words("UTF-16 の十六進", "hexadecimal of UTF-16"), "letters", lambda s: s.encode("utf-16-be").hex()),
    "binary": _one(Words("二進", "binary"), "letters", _bytes("{:08b}", " ")),
    "octal": _one(Words("八進", "octal"), "letters", _bytes("{:03o}", " ")),
    "decimal": _one(Words("文字の番号（十進）", "character codes, decimal"), "letters", _bytes("{}", " ")),
    "percent": _one(Words("パーセント符号化", "percent-encoding"), "letters", _bytes("%{:02X}")),
    "percent mixed": _one(Words("パーセント符号化（一部）", "percent-encoding, in part"), "decoded", _alternating(lambda c: "".join(f"%{b:02x}" for b in c.encode()))),
    "percent twice": _one(Words("パーセント符号化（二重、一部）", "percent-encoding, twice"), "decoded", _alternating(lambda c: f"%25{ord(c):02x}" if c.isascii() else c)),
    "quoted-printable": _one(Words("Quoted-printable", "quoted-printable"), "letters", _bytes("={:02X}")),
    "unicode escape": _one(Words("\\u によるエスケープ", "\\u escapes"), "letters", _each(lambda c: f"\\u{ord(c):04x}")),
    "unicode escape mixed": _one(Words("\\u によるエスケープ（一部、JSON）", "\\u escapes, in part (JSON)"), "decoded", _alternating(lambda c: f"\\u{ord(c):04x}")),
    "hex escape mixed": _one(Words("\\x によるエスケープ（一部）", "\\x escapes, in part"), "decoded", _alternating(lambda c: f"\\x{ord(c):02x}" if c.isascii() else c)),
    "entities": _one(Words("文字参照（十進）", "entities, decimal"), "letters", _each(lambda c: f"&#{ord(c)};")),
    "entities hex": _one(Words("文字参照（十六進）", "entities, hexadecimal"), "letters", _each(lambda c: f"&#x{ord(c):x};")),
    "entities mixed": _one(Words("文字参照（一部）", "entities, in part"), "decoded", _alternating(lambda c: f"&#{ord(c)};")),
    "morse": Encoding(Words("モールス符号", "Morse"), "raw", _spelled(_MORSE, " ")),
    "braille": Encoding(Words("点字", "braille"), "letters", _spelled(_BRAILLE, "")),
    "nato": Encoding(Words("通話表（アルファ、ブラボー）", "spelling alphabet"), "letters", _spelled(_NATO, " ")),
    "kana": Encoding(Words("文字の読み（エー、ビー）", "letters spelled in kana"), "letters", _spelled(_KANA, "、")),
    "base64 twice": _one(Words("Base64 を二回", "Base64, twice"), "packed", lambda s: _b64(_b64(s.encode()).encode())),
    "base64 of reversed": _one(Words("逆順の Base64", "Base64 of reversed"), "packed", lambda s: _b64(s[::-1].encode())),
    "base64 of rot13": _one(Words("ROT13 の Base64", "Base64 of ROT13"), "packed", lambda s: _b64(codecs.encode(s, "rot13").encode())),
    "base64 of hex": _one(Words("十六進の Base64", "Base64 of hexadecimal"), "packed", lambda s: _b64(s.encode().hex().encode())),
    "hex of base64": _one(Words("Base64 の十六進", "hexadecimal of Base64"), "packed", lambda s: _b64(s.encode()).encode().hex()),
    "gzip base64": _one(Words("gzip の Base64", "gzip, then Base64"), "packed", lambda s: _b64(gzip.compress(s.encode(), mtime=0))),
    "zlib base64": _one(Words("zlib の Base64", "zlib, then Base64"), "packed", lambda s: _b64(zlib.compress(s.encode()))),
}  # fmt: skip
