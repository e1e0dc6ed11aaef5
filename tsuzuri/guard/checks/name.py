"""氏名: names of people, by a label (氏名：), an honorific or a title behind them, or a surname and a given name side by side.

In: a text. Out: the name alone, without 様 or 部長. The dictionary is small (`_names.py`): a rare name without label or honorific, a
given name alone, a name in Latin letters without Mr. or -san are not found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tsuzuri.errors import Words
from tsuzuri.guard.checks._names import GIVEN, KATAKANA_NOT, NOT_NAMES, SURNAMES
from tsuzuri.guard.finding import Finding, found
from tsuzuri.guard.normal import Normal

LABEL = Words("氏名", "name")
PERSONAL = True
FOUND = (
    ("本日は田中様、鈴木一郎さんがお見えです。", ("田中", "鈴木一郎")),
    ("氏名：鬼龍院 彩花（フリガナ：キリュウイン アヤカ）", ("鬼龍院 彩花", "キリュウイン アヤカ")),
    ("担当は営業部の佐々木部長です", ("佐々木",)),
    ("山田 太郎が出席し、Mr. Smithとスミスさんも来る", ("山田 太郎", "Smith", "スミス")),
    ("ﾀﾅｶさん", ("ﾀﾅｶ",)),
)
NOT = (
    "お客様と皆様、担当者様へ",
    "ユーザー様の仕様は同様です",
    "山口県の中山道を歩く",
    "業者さんとスタッフさん",
    "氏名：未記入",
    "王様と神様",
)

_KANJI = "一-鿿々〆ヶノ"
_SUFFIXES = (
    "さん", "様(?![式々子相態])", "さま", "サマ", "氏(?!名)", "殿", "先生", "くん(?![れせじ])", "君", "ちゃん", "部長", "課長", "係長", "社長", "会長", "専務", "常務",
    "主任", "主査", "店長", "所長", "室長", "次長", "本部長", "取締役", "教授", "准教授", "博士", "医師", "弁護士", "税理士", "議員", "選手", "被告", "容疑者", "監督",
)  # fmt: skip
_SUFFIX = f"(?:{'|'.join(_SUFFIXES)})"
_LABEL = (
    r"(?:氏名|お名前|御名前|名前|フリガナ|ふりがな|カナ氏名|担当者?名?|代表者名?|申込者名?|申請者名?|契約者名?|宛名|受取人|差出人|患者名?|"
    r"被保険者名?|名義人?|口座名義|本人|連絡者|記入者|作成者|承認者|起案者|責任者|出席者|参加者|保護者|緊急連絡先|name)"
)
_NO_VALUE = re.compile(
    r"未記入|未定|不明|なし|無し|記入|同上|省略|匿名|必須|任意|入力|以下|下記|上記|別紙|参照|欄|非公開|株式会社|有限会社|総務|営業|経理|人事|各|全員|本人|担当|確認|空白|[部課係室者]$"
)


def _class(characters: Iterable[str]) -> str:
    return "[" + "".join(sorted(set(characters))) + "]"


# without one of these there is no name: a label before its colon; an honorific behind kanji, katakana or a space; a run that begins like
# a surname and ends like a given name; a given name behind kanji and a space; Mr.; -san
NEEDS = (
    "|".join(rf"{one}(?<=[{_KANJI}ァ-ヺー ]{one.partition('(')[0]})" for one in _SUFFIXES),
    rf"{_class(one[0] for one in SURNAMES)}(?<![{_KANJI}].)[{_KANJI}]{{1,6}}(?<={_class(one[-1] for one in GIVEN)})(?![{_KANJI}])",
    r"[名ナな当者表込請約人義加先e](?:\s?\([^)\n]{1,8}\))?\s?[:=|]",
    rf" (?<=[{_KANJI}] )[{_KANJI}さ]",
    "Mr|Ms|Miss|Dr|Prof|-s(?:an|ama|ensei)",
)

_SURE_LABEL, _SURE_KNOWN, _SURE_FULL, _SURE_UNKNOWN, _SURE_LATIN = 0.95, 0.93, 0.9, 0.75, 0.85
_BEGIN, _END = frozenset(one[0] for one in SURNAMES), frozenset(one[-1] for one in GIVEN)
_SURNAMES, _GIVEN, _WORDS, _FOREIGN = map(frozenset, (SURNAMES, GIVEN, NOT_NAMES, KATAKANA_NOT))
_LABELLED = re.compile(
    rf"{_LABEL}(?:\s?[(（][^)）\n]{{1,8}}[)）])?\s?[:=|]\s{{0,3}}"
    rf"(?P<name>[{_KANJI}]{{1,4}}[ ](?!{_SUFFIX})[{_KANJI}ぁ-ゖ]{{1,4}}|[{_KANJI}]{{1,6}}?|[ァ-ヺー]{{2,8}}[ ・][ァ-ヺー]{{2,8}}|[ァ-ヺー]{{2,8}}"
    rf"|[ぁ-ゖ]{{2,6}}[ ][ぁ-ゖ]{{2,6}}|[A-Z][A-Za-z]+[ ][A-Z][A-Za-z]+)(?=\s?{_SUFFIX}|[^{_KANJI}ぁ-ゖァ-ヺA-Za-z]|$)"
)
_HONORIFIC = re.compile(_SUFFIX)
_FOR_ANYONE = frozenset(("さん", "様", "さま", "氏", "ちゃん", "先生"))  # behind a name that the dictionary has not
_RUN = re.compile(rf"(?<![{_KANJI}])(?P<surname>[{_KANJI}]{{1,7}})(?:[ ](?P<given>[{_KANJI}]{{1,3}}|さくら))?(?![{_KANJI}])")
_HAN = re.compile(f"[{_KANJI}]")
_KATAKANA = re.compile(r"[ァ-ヺー]")
_LATIN = re.compile(r"\b(?:Mr|Ms|Mrs|Miss|Dr|Prof)\.?\s(?P<a>[A-Z][a-z]+(?:\s[A-Z][a-z]+)?)|\b(?P<b>[A-Z][a-z]+)(?=-(?:san|sama|sensei)\b)")
_TRADE = re.compile(r"[者員師屋店社家士]$|^[お御ご]|会社|担当|部署|[部課係室]$")  # before さん and 様 these end a trade, not a name


def find(seen: Normal) -> Iterator[Finding]:
    for match in _LABELLED.finditer(seen.text):
        if not _NO_VALUE.search(match["name"]) and (len(match["name"]) > 1 or match["name"] in _SURNAMES):
            yield found("name", seen, *match.span("name"), _SURE_LABEL)
    for match in _HONORIFIC.finditer(seen.text):
        yield from _before(seen, match.start(), match[0])
    for match in _RUN.finditer(seen.text):
        surname, given = match["surname"], match["given"]
        if given is None or given not in _GIVEN:
            if _full(surname):
                yield found("name", seen, *match.span("surname"), _SURE_FULL)
        elif surname in _SURNAMES or 2 <= len(surname) <= 3:
            yield found("name", seen, *match.span(), _SURE_FULL if surname in _SURNAMES else _SURE_UNKNOWN)
    for match in _LATIN.finditer(seen.text):
        yield found("name", seen, *match.span("a" if match["a"] else "b"), _SURE_LATIN)


def _full(run: str) -> bool:
    """Whether it is a surname and a given name, not both of one character."""
    if len(run) < 3 or run[0] not in _BEGIN or run[-1] not in _END:
        return False
    return run not in _WORDS and any(run[:n] in _SURNAMES and run[n:] in _GIVEN for n in (2, 1, 3))


def _before(seen: Normal, stop: int, honorific: str) -> Iterator[Finding]:
    """The name that ends before an honorific, a space between them or not."""
    text = seen.text
    stop -= text[stop - 1 : stop] == " "
    for kind in (_HAN, _KATAKANA):
        start = _run(text, stop, kind, 9)
        if start == stop:
            continue
        run = text[start:stop]
        if kind is _HAN:
            known = _known(run, alone=text[start - 1 : start] not in ("", " ") or start == 0)
            if known:
                yield found("name", seen, stop - known, stop, _SURE_KNOWN)
                return
            surname = _run(text, start - 1, kind, 4) if text[start - 1 : start] == " " else start
            if text[surname : start - 1] in _SURNAMES or (surname < start and run in _GIVEN):
                yield found("name", seen, surname, stop, _SURE_KNOWN)
                return
        elif text[start - 1 : start] in (" ", "・"):
            start = _run(text, start - 1, kind, 9)
        unknown = text[start:stop]
        if honorific in _FOR_ANYONE and not _no_name(unknown, honorific) and 1 <= len(run) <= (4 if kind is _HAN else 9):
            yield found("name", seen, start, stop, _SURE_UNKNOWN)


def _no_name(unknown: str, honorific: str) -> bool:
    return (
        unknown in _WORDS
        or unknown + honorific in _WORDS
        or unknown in _FOREIGN
        or _TRADE.search(unknown) is not None
        or (honorific == "様" and unknown[-1] in "態異多同仕模各有一")  # 態様, 異様, 多様
        or (len(unknown) == 1 and honorific != "様" and unknown not in _SURNAMES)
    )


def _run(text: str, stop: int, kind: re.Pattern[str], most: int) -> int:
    """Where the characters of a kind that end at `stop` begin, `most` of them at most."""
    start = stop
    while start > 0 and stop - start < most and kind.match(text, start - 1):
        start -= 1
    return start


def _known(run: str, *, alone: bool) -> int:
    """How many characters at the end of a run are a surname, or a surname and a given name; 0: none. A surname of one character
    counts only where nothing stands before it."""
    for length in range(min(len(run), 7), 0, -1):
        name = run[-length:]
        if (name in _SURNAMES and (length > 1 or (alone and len(run) == 1))) or any(
            name[:n] in _SURNAMES and name[n:] in _GIVEN for n in (2, 3, 1) if 0 < n < length and (n > 1 or len(run) == length)
        ):
            return length
    return 0
