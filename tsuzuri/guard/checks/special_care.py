"""要配慮個人情報: what is said of a person's race, creed, social status, illness, disability, criminal record or suffering of a crime.

In: a text. Out: the words that say it (うつ病, 前科), as `special_care.CATEGORY`, where the same sentence says of whom: by I, a relative, a role, an
honorific, or the label of a form. Talk in general (「糖尿病を防ぐ食事」「前科のある人の支援」) is left alone: a topic, a negation, a question, a plan or
news have no person, or say that there is nothing. Source: Act on the Protection of Personal Information, Art. 2(3); its Cabinet Order, Art. 2 and 3.
It looks no farther than the sentence; who is meant by the one before is not known.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from tsuzuri.errors import Words
from tsuzuri.guard.checks._special_care import (
    CARE,
    CHECK,
    CREED,
    CREED_EN,
    CRIME,
    CRIME_EN,
    DISABLED,
    DISABLED_EN,
    ILL,
    ILL_EN,
    NEEDED,
    RACE,
    STATUS,
    VICTIM,
    VICTIM_EN,
    WHO,
    WHO_EN,
)  # fmt: skip
from tsuzuri.guard.finding import Finding, found
from tsuzuri.guard.normal import Normal

LABEL = Words("要配慮個人情報", "special-care information")
PERSONAL = True
NEEDS = NEEDED
CATEGORIES = {
    "race": Words("人種", "race"),
    "creed": Words("信条", "creed"),
    "status": Words("社会的身分", "social status"),
    "medical": Words("病歴・診療", "medical history and care"),
    "checkup": Words("健康診断の結果", "results of health checks"),
    "disability": Words("障害", "disability"),
    "crime": Words("犯罪の経歴・刑事手続", "criminal record and proceedings"),
    "victim": Words("犯罪の被害", "suffering of a crime"),
}
FOUND = (
    ("私は三年前にうつ病と診断されました。", ("うつ病",)),
    ("田中さんは糖尿病で通院している。", ("糖尿病",)),
    ("既往歴：高血圧、胃潰瘍", ("高血圧", "胃潰瘍")),
    ("社員の佐藤には前科がある。", ("前科",)),
    ("母は身体障害者手帳を持っています。", ("身体障害者手帳",)),
    ("My mother was diagnosed with breast cancer.", ("breast cancer",)),
)
NOT = (
    "糖尿病を防ぐ食事について教えてください。",
    "私たちは、うつ病の研究をしています。",
    "彼に前科はない。",
    "田中さんは障害者雇用の研修に出た。",
    "宗教の自由は、すべての人に保障される。",
    "既往歴：なし",
)

# behind what is said: that it is so. Nothing else counts: a topic (について, の研究, を防ぐ) has none of these
_SO = {
    "medical": r"(?:と|だと|の疑いと|であると)?(?:診断|告知|言われ|判明|分か|わか)|で(?:通院|入院|休職|休ん|休み|療養|治療|手術|亡くな|倒れ|薬を|投薬|服薬|退職|苦し|悩|寝たきり|悩ん|障害者)|(?:を|に)(?:患|わずら|発症|かか(?:り|っ)|罹患|再発|抱え|持って(?!い(?:く|け))|経験|煩)|が(?:あり(?!ません)|ある|持病|再発|悪化|見つか|発見|進行|分か|わか|判明)|の(?:治療|手術|ため(?:に)?|既往|持病|疑い|診断|薬|症状が|発作|診察)(?:を受け|で(?!きる)|が(?:あ|見つか|出)|通院|入院|休職|休|中|を飲|歴)|(?:です|なんです|だ|である|だった|でした)(?=[。、,\s]|$|から|ので|が、|そう)|持ち|(?:患者|経験者)(?:です|だ|である)|感染|陽性|を(?:して|受け|した|しまし)",
    "care": r"を(?:飲ん|飲み|服用|処方|使っ|打っ|受け|した|して|しまし)|に(?:通っ|通院|通い|かかっ|入院|行っ)|が(?:処方|必要)|で(?:治療|診)|の(?:処方|薬を)",
    "disability": r"(?:が|を)(?:あり(?!ません)|ある|お持ち|持っ|持つ|抱え|取得|交付|受け|もらっ|使っ|入れて|し)|と(?:診断|言われ|判定)|で(?:す|ある|、|車|白杖|耳|目|手帳|働|通|生|(?=。))|の(?:認定|判定|診断)を|だ|(?:となっ|になっ)",
    "crime": r"が(?:あり(?!ません)|ある|付い|つい|判明|見つか|分か)|(?:を|の)(?:受け|言い渡|判決を|経験)|され|中(?:です|だ|で|に|の身)|に(?:入っ|服役|収容|送られ|いた|なっ|処)|し(?:た|てい|まし|て出)|から(?:出|仮|戻)|持ち|と(?:なっ|なり)|の身|を(?:終え|満了)",
    "victim": r"に(?:あ[っい]|遭[っい]|なっ|なり)|を(?:受け|届け|訴え)|(?:です|だ|である|だった|でした)(?=[。、]|$)|で(?:通院|休|苦し|心)",
    "race": r"(?:です|だ|である|だった|でした|として(?:生まれ|育)|の出身|の血|の家|で、)|として生まれ|の(?:家庭|両親|父|母|祖父|祖母)|であること|に(?:生まれ|当た)",
    "creed": r"(?:です|だ(?!け)|である|だった|でした|で、|なので|であること)|(?:に|へ)(?:入信|入会|改宗|入党|所属)|を(?:信仰|信じ|脱会|受け|支持)|し(?:た|まし|て)|になっ",
    "status": r"(?:です|だ|である|だった|でした|で、|と(?:いう|知られ|言われ|分か)|であること|として)",
    "checkup": r"",
}  # fmt: skip
_NOT_SO = r"(?:では?(?:ない|ありません|なかった|なく)|は?(?:ない|なし|ありません|ございません|なかった)|じゃない|ですか|でしょうか|[?？]|かもしれない人|の(?:人|方)は|の(?:人|方)が|ではなく|と仮定|防ぐ|予防)"
_BETWEEN = r"[^。！？!?\n]{0,28}?"
_LABELLED = {
    "medical": r"(?:既往歴|既往症|病歴|傷病名|病名|診断名|持病|現病歴|治療中の病気|罹患歴|主訴|服薬中の薬|服用中の薬|処方薬|手術歴)",
    "disability": r"(?:障害名|障害の(?:種類|有無|程度|内容)|障害等級|手帳の(?:種類|等級))",
    "crime": r"(?:前科(?:の有無)?|犯罪歴|賞罰|刑罰歴|逮捕歴)",
    "creed": r"(?:宗教|信仰|宗派|支持政党|信条)",
    "race": r"(?:人種|民族)",
    "checkup": r"(?:健診結果|健康診断の結果|判定|総合判定|ストレスチェック(?:の結果)?|検査結果)",
}
_SAID = {
    "medical": (ILL, "medical"), "care": (CARE, "medical"), "disability": (DISABLED, "disability"), "crime": (CRIME, "crime"), "victim": (VICTIM, "victim"),
    "race": (RACE, "race"), "creed": (CREED, "creed"), "status": (STATUS, "status"), "checkup": (CHECK, "checkup"),
}  # fmt: skip
_TOPIC = re.compile(
    r"(?:の|に関する|についての|をめぐる|と闘う人の)(?:研究|勉強|講演|講座|研修|記事|本|論文|資料|番組|映画|小説|物語|歴史|対策|支援|啓発|相談|制度|法律|募金|専門医?|医師|統計|調査|患者会|展示|特集|学会|ポスター|説明|解説|違い|原因|予防)|主人公|歴史上|将軍|天皇"
)
_VALUE = r"(?!\s?(?:なし|無し|無|特になし|不明|未記入|記入|該当|ありません|ない|異常なし|A(?![A-Za-z]))\b?)"


@functools.cache
def _patterns() -> tuple[tuple[str, re.Pattern[str], float], ...]:
    """(category, what it looks like, how sure)."""
    made = []
    for kind, (said, category) in _SAID.items():
        so = f"(?:{_SO.get(kind, '')})" if _SO.get(kind) else ""
        if kind in ("medical", "care", "disability"):
            made.append((category, re.compile(rf"(?P<said>{said}){so}[^。！？!?\n]{{0,12}}?[、,]\s?{WHO}[はがも]"), 0.75))
        made.append(
            (
                category,
                re.compile(rf"{WHO}{_BETWEEN}(?P<said>{said})(?!{_NOT_SO}){so}(?![^。\n]{{0,4}}{_NOT_SO})"),
                0.78 if kind == "care" else 0.8,
            )
        )
    for category, written in (
        ("medical", ILL_EN), ("disability", DISABLED_EN), ("crime", CRIME_EN), ("creed", CREED_EN), ("victim", VICTIM_EN),
    ):  # fmt: skip
        verb = r"(?:was|were|has been|had been|is|am|'m|are|has|have|had|got|suffers?|suffered|lives?|taking|treated|diagnosed|born)"
        made.append(
            (category, re.compile(rf"\b{WHO_EN} ?{verb}(?: (?!not|no|never|n't)[a-z]+){{0,5}}? (?P<said>{written})(?![a-z]| research| prevention| awareness)"), 0.8)
        )  # fmt: skip
    return tuple(made)


@functools.cache
def _labels() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """(category, label of a form and what is filled in)."""
    return tuple(
        (category, re.compile(rf"{label}(?:\s?\([^)\n]{{1,10}}\))?\s?[:=|]\s{{0,3}}(?P<filled>[^。\n|(]{{1,60}})"))
        for category, label in _LABELLED.items()
    )


_EMPTY = re.compile(
    r"^\s*(?:なし|無し?|特に(?:なし|無し)|不明|未記入|未確認|該当(?:なし|せず)|ありません|ない|異常(?:なし|は)|記入|任意|[-/―]|A\s*$|欄|非公開)"
)
_PART = re.compile(r"[、,・/]\s?")


def find(seen: Normal) -> Iterator[Finding]:
    text = seen.text
    for category, label in _labels():
        for match in label.finditer(text):
            yield from _filled(seen, category, *match.span("filled"))
    for start, stop in _sentences(text):
        if not _needed().search(text, start, stop) or _TOPIC.search(text, start, stop):
            continue
        for category, pattern, sure in _patterns():
            for match in pattern.finditer(text, start, stop):
                yield found(f"special_care.{category}", seen, *match.span("said"), sure)


@functools.cache
def _needed() -> re.Pattern[str]:
    return re.compile("|".join(NEEDED))


_ENDS = re.compile(r"[。！？!?\n]|(?<!Mr)(?<!Ms)(?<!Mrs)(?<!Dr)\.\s")


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for match in _ENDS.finditer(text):
        yield start, match.end()
        start = match.end()
    yield start, len(text)


def _filled(seen: Normal, category: str, start: int, stop: int) -> Iterator[Finding]:
    """Each part of what a form says behind a label, unless it says that there is nothing."""
    value = seen.text[start:stop]
    if _EMPTY.search(value):
        return
    at = start
    for part in _PART.split(value):
        begin = seen.text.index(part, at)
        at = begin + len(part)
        kept = part.strip()
        if part.startswith(("(", " ")) or (at > start + len(part) and re.search("[はがをに:]", kept)):
            return  # the next column of the form
        if 1 < len(kept) <= 30 and not _EMPTY.search(kept):
            first = begin + part.index(kept)
            yield found(f"special_care.{category}", seen, first, first + len(kept), 0.9)
