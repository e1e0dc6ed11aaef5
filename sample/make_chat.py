"""Choose the chat examples of this repository from a larger collection, and pack those written for it.

    python sample/make_chat.py --data DIR   choose from DIR/instruct/*.jsonl.zst (fields messages, source, licence)
    python sample/make_chat.py              only pack chat_written.jsonl again

Out: chat/selected.jsonl.zst and chat/written.jsonl.zst, records {messages, source, licence[, credit]}, and a table of counts.
Only public domain, MIT and CC BY; never share-alike. Seeded: the same collection gives the same examples.
It does not attribute: that is `python sample/make.py`, to be run after this.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import zstandard

Record: TypeAlias = dict[str, Any]
Adapt: TypeAlias = Callable[[Record], Record | None]  # a record made fit for a small model, or None where it cannot be

HERE = Path(__file__).parent
LONGEST = 600  # characters of an example, about 400 tokens
ANSWER = 260  # characters of an answer: a small model cannot keep a longer thread
FREE = re.compile(r"MIT|Apache-2\.0|PD(-JP| \(.*\))?|CC BY (3\.0|4\.0)")  # and nothing after it: no SA, NC, ND
JAPANESE = r"ぁ-んァ-ヶー々〆一-龯"
ASDC = "Megagon Labs（Accommodation Search Dialog Corpus、句読点を整えた）"
CODE_CREDITS = {
    "github:cpprefjp/site": "cpprefjp 日本語リファレンス執筆者一同（説明の冒頭を抜粋し、文末を改めた）",
    "github:rurema/doctree": "Ruby リファレンスマニュアル刷新計画（説明の冒頭を抜粋した）",
    "github:php/doc-ja": "PHP ドキュメンテーショングループ（説明の冒頭を抜粋し、文末を改めた）",
}

# ── text


CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
HALF = str.maketrans({"?": "？", "!": "！", ",": "、", "｡": "。", "､": "、"})


def tidy(text: str) -> str:
    """NFC, Japanese punctuation after Japanese letters, no space between sentences; code is left as it is."""
    pieces = CODE.split(unicodedata.normalize("NFC", text).strip())
    return "".join(piece if i % 2 else _tidy_prose(piece) for i, piece in enumerate(pieces))


def _tidy_prose(text: str) -> str:
    text = re.sub(rf"(?<=[{JAPANESE}）」。、！？])[?!,｡､]", lambda m: m[0].translate(HALF), text)
    text = re.sub(rf"\((?=[^()\n]*[{JAPANESE}])([^()\n]*)\)", r"（\1）", text)
    text = re.sub(r"(?<=[。！？、）」])[ 　]+", "", text)
    text = re.sub(r"(?m)^[ 　]*-[ 　]*(?=[^\s-])", "- ", text.replace("。：", "。"))
    text = re.sub(r"(?<=[\d円日時])~", "〜", text)
    return re.sub(rf"(?<=[{JAPANESE}])[ 　]+(?=[{JAPANESE}])", "", text)


def closed(text: str) -> str:
    """The text with its last full stop, where a Japanese sentence was left without one."""
    return text + "。" if re.search(rf"[{JAPANESE}）]$", text) else text


ODD = re.compile(r"\ufffd|、、|。。|、。|。、|？？|！！|[･・]{2}|\.\.|…|[ｦ-ﾟ]|[☀-➿\U0001f000-\U0001faff]|http|#%|[wｗ]{2,}$|（笑）")
SLIPS = re.compile(r"ましました|茣蓙|ででし|がが|をを|てす|らのの|いいすか|感染街|コロナ")
HARSH = re.compile(r"殺|死|自殺|性的|セックス|レイプ|裸|ナイフ|暴力|暴行|血|薬物|麻薬|奴隷|穢多|非人|支那|乞食|女郎|娼|めくら|気狂|気違|賤")


def sound(record: Record) -> bool:
    """Roles take turns and end with the assistant, nothing empty, nothing broken, nothing long."""
    messages = record["messages"]
    roles = [message["role"] for message in messages]
    talk = roles[1:] if roles[:1] == ["system"] else roles
    contents = [message["content"] for message in messages]
    return (
        len(talk) >= 2
        and len(talk) % 2 == 0
        and talk == ["user", "assistant"] * (len(talk) // 2)
        and all(content.strip() for content in contents)
        and sum(map(len, contents)) <= LONGEST
        and not any(ODD.search(CODE.sub("", content)) for content in contents)
    )


def tidied(record: Record, credit: str = "") -> Record:
    messages = [{"role": message["role"], "content": tidy(message["content"])} for message in record["messages"]]
    return {"messages": messages, "source": record["source"], "licence": record["licence"], **({"credit": credit} if credit else {})}


def replaced(record: Record, question: str, answer: str, credit: str) -> Record:
    """The record with another question and answer, both from its own words."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "source": record["source"], "licence": record["licence"], "credit": credit}


# ── one adaptation for each collection

# Read one by one and left out: wrong or outdated facts, slips of the pen, claims about itself, advice that may harm.
LEFT_OUT = frozenset((
    247, 361, 435, 510, 734, 921, 954, 992, 996, 1267, 1289, 1332, 1341, 1580, 1708, 1762, 1827, 1918, 1963, 1967, 1994, 2084, 2241,
    2352, 2523, 2624, 2718, 2855, 3050, 3315, 3373, 3523, 3682, 3979, 4290, 4342, 4742, 4777, 4984, 5065, 5608, 5896, 5920, 6152,
    6358, 6431, 6849, 7431, 7462, 7915, 8044, 8172, 8337, 8514, 8521, 8565, 8635, 8707, 8895, 8942, 8977, 9419, 9807, 9841, 10126,
    10203, 10631, 10878, 10909, 10981, 11775, 12182, 12690, 12713, 13521, 13855, 14009, 14022, 14036, 14377, 14658, 15046, 15099,
    15108, 15473, 16107, 16372, 16399, 16450, 16671, 16768, 17265, 17432, 17777, 17781, 17867, 17984, 18041, 18075, 18085, 18119,
    18168, 18237, 18477, 18658, 18687, 18926, 18931, 18964, 19220, 19223, 19373, 19400, 19758, 20332, 20465, 20508, 20577, 20759,
    21090, 21147, 21393, 21460, 21474, 21498, 21780, 22107, 22279, 22408, 22672, 22777, 22822, 22958, 23101, 23135, 23312, 23317,
    23331, 23357, 23572, 23763, 23955, 24078, 24274, 24485, 24814, 24941, 24961, 25037, 25162, 25497, 25525, 25798, 26055, 26478,
    26628, 26894, 26920, 26991, 27192, 27274, 27409, 28241, 28269, 28521, 28565, 28639, 28814, 28946, 29048, 29255, 29591, 30244,
    30534, 30603, 30755, 30914, 31330, 31422, 31753, 31824, 31986, 31990, 32045, 32189, 32324, 32725, 32738, 32808, 32989, 32991,
    32999, 33195, 33310, 33458, 33474, 33634, 33735, 33786, 34326, 34446, 34618, 34786, 34851, 35253, 35270, 35325, 35694, 35793,
    35865, 36190, 36297, 36431, 36555, 36574, 36583, 36753, 36897, 37041, 37097, 37215, 37441, 37540, 37753, 37783, 38023, 38067,
    38823, 38845, 39302, 39311, 39388, 39456, 39461, 39483, 39677, 39738, 39777, 39834, 40251, 40426, 40501, 40881, 40891, 40913,
    41038, 41418, 41502, 41582, 41593, 41754, 41827, 41834, 41876, 42009, 42046, 42113, 42146, 42285, 42334, 42575, 42906, 43113,
    43275, 43297, 43473, 43521, 44191, 44319, 44614, 45262, 45329, 45481, 45916, 45964, 46046, 46259, 46296, 46734, 47044, 47644,
    47728, 47829, 47882, 48157, 48256, 48265, 48326, 48356, 48452, 48542, 48729, 49081, 49220, 49310, 49364,
))  # fmt: skip


def instruction(record: Record) -> Record | None:
    number = int(record["source"].rsplit(".", 1)[-1])
    found = tidied(record, "Megagon Labs（instruction_ja、句読点を整えた）")
    question, answer = found["messages"][0]["content"], found["messages"][-1]["content"]
    as_found = record["messages"][-1]["content"]
    read = len(as_found) <= 170 or (len(answer) <= 205 and "\n" not in as_found)  # the others nobody has looked at
    return found if read and len(question) <= 120 and number not in LEFT_OUT else None


POLITE = re.compile(r"(です|ます|ました|ません|でした|でしょう|ましょう|ください|下さい|ませ)[かねよ]*[。？！]$")


def hotel(record: Record) -> Record | None:
    """Whole turns from the start, up to the last answer that fits; every answer a whole, polite sentence."""
    found = tidied(record, ASDC)
    messages = found["messages"]
    while messages and (messages[-1]["role"] != "assistant" or sum(len(m["content"]) for m in messages) > LONGEST):
        messages = messages[:-1]
    found["messages"] = [{**m, "content": closed(m["content"])} if m["role"] == "assistant" else m for m in messages]
    answers = [m["content"] for m in found["messages"] if m["role"] == "assistant"]
    opening = next((m["content"] for m in messages if m["role"] == "user"), "")
    whole = all(8 <= len(answer) <= ANSWER and POLITE.search(answer) for answer in answers)
    slip = any("\n" in m["content"] or SLIPS.search(m["content"]) for m in messages)
    return found if whole and len(opening) >= 8 and not slip else None


def law(record: Record) -> Record | None:
    found = tidied(record)
    return found if len(found["messages"][-1]["content"]) <= 330 else None


def kanji(record: Record) -> Record | None:
    """Words of several kanji, answered in a sentence: a lone kanji with inflection has only part of a reading."""
    found = tidied(record)
    question, answer = (message["content"] for message in found["messages"])
    asked, sentence = question.split("\n\n", 1)
    word = re.search(r"「([一-龯々]{2,})」", asked)
    if not word or not re.fullmatch(r"「[ぁ-ん]+」と読みます。", answer) or HARSH.search(question) or len(question) > 140:
        return None
    inflected = re.search(rf"{word[1]}(?![のはがをにへともでや、。」』一-龯ァ-ヶ])", sentence)
    return None if inflected else found


def moral(record: Record) -> Record | None:
    found = tidied(record, "Language Media Lab（JCommonsenseMorality）")
    return None if HARSH.search(found["messages"][0]["content"]) else found


def intent(record: Record) -> Record | None:
    return tidied(record, ASDC)


def rewrite(record: Record) -> Record | None:
    found = tidied(record, ASDC)
    return None if re.search("お客様が|お客様は|知りたい", found["messages"][-1]["content"]) else found


HEADERS = re.compile(
    r"algorithm|any|array|atomic|bitset|cctype|chrono|cmath|complex|condition_variable|cstdio|cstdlib|cstring|ctime|deque|"
    r"exception|filesystem|fstream|functional|future|iomanip|iostream|istream|iterator|limits|list|map|memory|mutex|numeric|"
    r"optional|ostream|queue|random|ranges|regex|set|span|sstream|stack|stdexcept|streambuf|string|string_view|thread|tuple|"
    r"type_traits|unordered_map|unordered_set|utility|variant|vector"
)
CLASSES = re.compile(
    r"Array|Class|Comparable|Dir|Enumerable|Enumerator|File|Float|Hash|Integer|IO|Kernel|MatchData|Math|Method|Module|NilClass|"
    r"Numeric|Object|Proc|Random|Range|Rational|Regexp|String|Struct|Symbol|Thread|Time"
)
CPP = re.compile(r".*<(\w+)>\S* *(?:にある|の) ([a-z]\w*) (?:は何|につい).*")
PHP = re.compile(r"PHPの ([a-z]\w*)(?:\(\))? (?:は何|関数の).*")
PHP_PLACES = re.compile(r"reference/(array|ctype|datetime|dir|exec|filesystem|json|math|mbstring|outcontrol|pcre|random|strings|url|var)/")
RUBY = re.compile(r"manual/api/_builtin/(\w+)\.md")


def code(record: Record) -> Record | None:
    """The first words of a reference page, as an answer; what is not named in the question alone is left out."""
    owner = ":".join(record["source"].split(":")[:2])
    form = {"github:cpprefjp/site": cpp, "github:rurema/doctree": ruby, "github:php/doc-ja": php}[owner]
    pair = form(record)
    return replaced(record, tidy(pair[0]), tidy(pair[1]), CODE_CREDITS[owner]) if pair else None


def cpp(record: Record) -> tuple[str, str] | None:
    question, answer = (message["content"] for message in record["messages"])
    named, told = CPP.fullmatch(question), polite(answer.split("\n\n")[0])
    if not named or not HEADERS.fullmatch(named[1]) or named[2].startswith("operator") or not told:
        return None
    thing = told.endswith("です。") or named[2] == named[1] or named[2].endswith("_t")
    asks = "とは何ですか。" if thing else "は何をしますか。"
    return f"C++の <{named[1]}> にある `{named[2]}` {asks}", told


def php(record: Record) -> tuple[str, str] | None:
    if not PHP_PLACES.search(record["source"]):
        return None
    question, answer = (message["content"] for message in record["messages"])
    named, told = PHP.fullmatch(question), polite(answer.split("\n\n")[0])
    return (f"PHPの `{named[1]}` は何をする関数ですか。", told) if named and told and told.endswith("ます。") else None


def ruby(record: Record) -> tuple[str, str] | None:
    """The prose after the signature, and a short example that follows at once."""
    place = RUBY.search(record["source"])
    if not place or not CLASSES.fullmatch(place[1]):
        return None
    question, answer = (message["content"] for message in record["messages"])
    prose, example = "", ""
    for part in answer.split("\n\n")[1:]:
        if part.startswith("```ruby") and part.endswith("```") and len(part) <= 150:
            example = "\n\n" + part
        if part.startswith(("-", "#", "`", "|", "*", " ", "@")) or len(prose + part) > 140:
            break
        prose += part.replace("\n", "")
    whole = re.search(r"(ます|です|ません)。$", prose) and not re.search(r"異なります。$|次の(よう|通り)|以下の|下記|上記|参照", prose)
    return (question, prose + example) if whole else None


VERBS = {  # how a plain sentence of the references ends, and how one says it politely
    "である": "です", "ではない": "ではありません", "する": "します", "返す": "返します", "行う": "行います", "行なう": "行います",
    "おこなう": "行います", "表す": "表します", "示す": "示します", "求める": "求めます", "得る": "得ます", "調べる": "調べます",
    "える": "えます", "つける": "つけます", "べる": "べます", "出す": "出します", "探す": "探します", "込む": "込みます", "待つ": "待ちます",
    "持つ": "持ちます", "作る": "作ります", "開く": "開きます", "閉じる": "閉じます", "含む": "含みます", "進める": "進めます",
    "戻す": "戻します", "移す": "移します", "できる": "できます", "れる": "れます", "ている": "ています", "なる": "なります", "使う": "使います",
    "用いる": "用います", "満たす": "満たします", "指す": "指します", "丸める": "丸めます", "除く": "除きます", "消す": "消します",
}  # fmt: skip


def polite(paragraph: str) -> str | None:
    """A short plain paragraph in polite words, or None where an ending is not known."""
    if "\n" in paragraph or not 8 <= len(paragraph) <= 150 or re.search(r"[（(][^（()）]*。|^[-#|<*]|^これら|\\|C\+\+\d\d", paragraph):
        return None
    sentences = [_polite(sentence) for sentence in re.split("。", paragraph) if sentence.strip()]
    return "".join(f"{sentence}。" for sentence in sentences) if all(sentences) else None


def _polite(sentence: str) -> str | None:
    sentence = sentence.strip()
    for length in (4, 3, 2):
        if sentence[-length:] in VERBS:
            return sentence[:-length] + VERBS[sentence[-length:]]
    if re.search(r"(ます|です|ません)$", sentence):
        return sentence
    noun = re.search(r"(クラス|関数|オブジェクト|型|定数|マニピュレータ|テンプレート|マクロ|例外)$", sentence)
    return sentence + "です" if noun else None


# ── choosing


@dataclass(frozen=True, slots=True)
class Choice:
    """How many examples of a collection are wanted. Templated ones weigh little: they make answers terse."""

    file: str
    wanted: int
    adapt: Adapt
    same_answers: int = 1  # how often one and the same last answer may be given


CHOICES = (
    Choice("ja_instruction_megagon", 400, instruction),
    Choice("ja_hotel_dialog_asdc", 1_200, hotel),
    Choice("ja_code_reference", 800, code),
    Choice("ja_law_purpose", 200, law),
    Choice("ja_kanji_reading_aozora", 180, kanji),
    Choice("ja_moral_jcm", 30, moral, same_answers=15),
    Choice("ja_intent_asdc", 60, intent, same_answers=8),
    Choice("ja_query_rewrite_asdc", 140, rewrite),
)


@dataclass(slots=True)
class Taken:
    """What became of one collection."""

    read: int = 0
    not_free: int = 0
    held_out: int = 0  # stands in a test set
    unfit: int = 0
    repeated: int = 0
    records: list[Record] = field(default_factory=list)


def choose(records: Iterable[Record], choice: Choice, held_out: frozenset[str] = frozenset()) -> Taken:
    """Up to `wanted` examples in a seeded order; no opening twice, no answer more often than allowed."""
    taken = Taken()
    rows = list(records)
    random.Random(choice.file).shuffle(rows)  # noqa: S311  an order, not a secret
    openings: set[str] = set()
    answers: Counter[str] = Counter()
    for row in rows:
        if len(taken.records) == choice.wanted:
            break
        taken.read += 1
        if not FREE.fullmatch(row["licence"]):
            taken.not_free += 1
            continue
        if any(message["content"].rsplit("：", 1)[-1].strip() in held_out for message in row["messages"]):
            taken.held_out += 1
            continue
        record = choice.adapt(row)
        if record is None or not sound(record):
            taken.unfit += 1
            continue
        opening = next(m["content"] for m in record["messages"] if m["role"] == "user")
        answer = record["messages"][-1]["content"]
        if opening in openings or answers[answer] == choice.same_answers:
            taken.repeated += 1
            continue
        openings.add(opening)
        answers[answer] += 1
        taken.records.append(record)
    return taken


def test_sentences(data: Path) -> frozenset[str]:
    """The sentences of the morality test set, where the collection has it beside: one does not train on a test."""
    found: set[str] = set()
    for path in sorted((data / "eval" / "commonsense_moral_ja").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            found.update(cell.strip() for row in csv.reader(file) for cell in row if len(cell.strip()) > 4)
    return frozenset(found)


def lines(path: Path) -> Iterator[Record]:
    with path.open("rb") as raw:
        for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(raw), encoding="utf-8"):
            yield json.loads(line)


def write(path: Path, records: list[Record]) -> None:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_bytes(zstandard.ZstdCompressor(level=19).compress(text.encode()))


def select(data: Path, out: Path) -> dict[str, Taken]:
    """Write `selected.jsonl.zst` under `out`; what became of each collection. Raises FileNotFoundError."""
    held_out = test_sentences(data)
    found = {c.file: choose(lines(data / "instruct" / f"{c.file}.jsonl.zst"), c, held_out) for c in CHOICES}
    records = [record for taken in found.values() for record in taken.records]
    random.Random("chat").shuffle(records)  # noqa: S311
    write(out / "selected.jsonl.zst", records)
    return found


def pack(written: Path, out: Path) -> int:
    """Write `written.jsonl.zst` under `out`, as the readable file has it; the number of examples."""
    records = [json.loads(line) for line in written.read_text(encoding="utf-8").splitlines()]
    write(out / "written.jsonl.zst", records)
    return len(records)


def table(found: dict[str, Taken]) -> str:
    rows = [f"{'collection':28}{'read':>8}{'not free':>10}{'held out':>10}{'unfit':>8}{'repeated':>10}{'chosen':>8}"]
    for name, t in found.items():
        rows.append(f"{name:28}{t.read:8,}{t.not_free:10,}{t.held_out:10,}{t.unfit:8,}{t.repeated:10,}{len(t.records):8,}")
    rows.append(f"{'all':28}{sum(t.read for t in found.values()):8,}{'':38}{sum(len(t.records) for t in found.values()):8,}")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder that holds instruct/")
    data = parser.parse_args().data
    if data:
        try:
            print(table(select(data, HERE / "chat")))
        except FileNotFoundError as error:
            parser.error(f"{error.filename} is not there")
    print(f"{'written':28}{pack(HERE / 'chat_written.jsonl', HERE / 'chat'):72,}")


if __name__ == "__main__":
    main()
