"""Choose the examples of the tasks of encoders from a larger collection: `sample/tasks/`.

    python sample/make_tasks.py --data DIR [--out DIR] [--share 2.5] [TASK …]    from DIR/instruct, DIR/eval and DIR/pretrain

`test` files are of evaluation sets, or of texts that no training file has; nothing of them is trained on. Seeded: the same
collection gives the same sample. Attribution and licences are in `sample/tasks/ATTRIBUTION.md`.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

HERE = Path(__file__).parent
SIZES = {  # task -> examples to learn from and to measure on at share 1, at most
    "intent": (1200, 240),
    "moral": (1200, 240),
    "topic": (6000, 1000),
    "tag": (3000, 600),
    "extract": (6000, 1000),
    "embed": (1200, 240),
}
LONGEST = 160  # characters of a text
TOPICS = {  # of the articles on Kyoto, by the letters in front of their number
    "BDS": "仏教", "BLD": "建造物", "CLT": "伝統文化", "EPR": "天皇", "FML": "家系", "GNM": "地名", "HST": "歴史", "LTT": "文学",
    "PNM": "人名", "RLW": "鉄道", "ROD": "道路", "SAT": "神社仏閣", "SCL": "学校", "SNT": "神道", "TTL": "役職・称号",
}  # fmt: skip
CITED = re.compile(r"(?P<answer>.+)です。\[(?P<number>\d)\]")
LAW = re.compile(r"(?P<name>[一-龯ァ-ヶー]{2,24}?(?:法|令|規則|条例))（(?P<number>(?:明治|大正|昭和|平成)[^（）]{2,12}年[^（）]{1,24}号)）")
DATE = re.compile(r"(?:明治|大正|昭和|平成)(?:元|[一二三四五六七八九十]+)年(?:[一二三四五六七八九十]+月(?:[一二三四五六七八九十]+日)?)?")
ARTICLE = re.compile(
    r"第[一二三四五六七八九十百千]+条(?:の[一二三四五六七八九十]+)*(?:第[一二三四五六七八九十]+項)?(?:第[一二三四五六七八九十]+号)?"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=HERE / "tasks")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="none: all")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    makers = {
        "intent": intent,
        "moral": moral,
        "topic": topic,
        "tag": tag,
        "extract": extract,
        "embed": embed,
    }
    for name in given.tasks or makers:
        for part, size, records in zip(("train", "test"), SIZES[name], makers[name](given.data), strict=True):
            chosen = [*records]
            random.Random(f"{name} {part}").shuffle(chosen)  # noqa: S311  an order, not a secret
            write(given.out / f"{name}.{part}.jsonl.zst", chosen[: round(size * given.share)])


def intent(data: Path) -> tuple[list[Any], list[Any]]:
    """What a question to a hotel is about; a text that stands twice is in one part only."""
    found: dict[str, dict[str, Any]] = {}
    for record in lines(data / "instruct" / "ja_intent_asdc.jsonl.zst"):
        text = record["messages"][0]["content"].partition("問い合わせ：")[2].strip()
        found.setdefault(text, {"text": text, "label": record["messages"][1]["content"], **origin(record)})
    texts = sorted(found)
    random.Random(11).shuffle(texts)  # noqa: S311
    cut = len(texts) // 5
    return [found[text] for text in texts[cut:]], [found[text] for text in texts[:cut]]


def moral(data: Path) -> tuple[list[Any], list[Any]]:
    """Whether most people would allow it; the test part is the test set of JCommonsenseMorality."""
    train = [
        {"text": r["messages"][0]["content"].partition("行動：")[2].strip(), "label": r["messages"][1]["content"], **origin(r)}
        for r in lines(data / "instruct" / "ja_moral_jcm.jsonl.zst")
    ]
    with (data / "eval" / "commonsense_moral_ja" / "data_test.csv").open(encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    known = {one["text"] for one in train}
    names = {"0": "許容できる", "1": "許容できない"}
    source = {"source": "Language-Media-Lab/commonsense-moral-ja", "licence": "MIT"}
    return train, [{"text": r["sent"], "label": names[r["label"]], **source} for r in rows if r["sent"] not in known]


def topic(data: Path) -> tuple[list[Any], list[Any]]:
    """What an article on Kyoto is about, from its first sentence; a sentence is in one part only."""
    found: dict[str, dict[str, Any]] = {}
    for record in lines(data / "pretrain" / "wikipedia_kyoto.jsonl.zst"):
        kind = TOPICS[record["source"].rsplit("/", 2)[1]]
        first = record["text"].removeprefix(f"# {record['title']}").strip().split("\n")[0].partition("。")[0]
        if 10 <= len(first) <= LONGEST and not first.startswith("#"):
            found.setdefault(f"{first}。", {"text": f"{first}。", "label": kind, **origin(record)})
    return apart(found, 13)


def apart(found: dict[str, dict[str, Any]], seed: int) -> tuple[list[Any], list[Any]]:
    """(to learn from, to measure on): each text is in one part only."""
    texts = sorted(found)
    random.Random(seed).shuffle(texts)  # noqa: S311
    cut = len(texts) // 10
    return [found[text] for text in texts[cut:]], [found[text] for text in texts[:cut]]


def tag(data: Path) -> tuple[list[Any], list[Any]]:
    """Names of laws, dates and articles. What a name is, the law's number behind it in brackets says; it is taken out, so that
    it cannot be seen. A law's text is in one part only, and so is a sentence that several laws have."""
    records = [*lines(data / "pretrain" / "gov_laws_2013.jsonl.zst")]
    random.Random(12).shuffle(records)  # noqa: S311
    parts: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for number, record in enumerate(records):
        for paragraph in record["text"].split("\n"):
            if LAW.search(paragraph) and 30 <= len(paragraph) <= 160:
                found = law(paragraph)
                parts[number % 5 == 0].setdefault(found["text"], {**found, **origin(record)})
    train, test = parts
    return [*train.values()], [found for text, found in test.items() if text not in train]


def law(paragraph: str) -> dict[str, Any]:
    text, spans, at = "", [], 0
    for match in LAW.finditer(paragraph):
        text += paragraph[at : match.start()]
        spans.append({"start": len(text), "stop": len(text) + len(match["name"]), "label": "法令名"})
        text, at = text + match["name"], match.end()
    text += paragraph[at:]
    for pattern, label in ((DATE, "日付"), (ARTICLE, "条文")):
        for match in pattern.finditer(text):
            if all(match.end() <= span["start"] or match.start() >= span["stop"] for span in spans):
                spans.append({"start": match.start(), "stop": match.end(), "label": label})
    return {"text": text, "spans": sorted(spans, key=lambda span: span["start"])}


def extract(data: Path) -> tuple[list[Any], list[Any]]:
    """Questions and the sentence that has the answer; the test part is of JaQuAD's development set."""
    train = []
    for record in lines(data / "instruct" / "ja_rag_jaquad.jsonl.zst"):
        asked, answer = record["messages"][-2]["content"], record["messages"][-1]["content"]
        texts, _, question = asked.rpartition("\n\n質問：")
        if record["task"] == "extractive_qa":
            context = texts.partition("文章：\n")[2]
        elif cited := CITED.fullmatch(answer):
            answer = cited["answer"]
            context = re.split(r"(?:^|\n\n)\[\d\] .*\n", texts.partition("検索結果：\n")[2])[int(cited["number"])]
        else:
            continue
        if context.count(answer) == 1:  # where it stands twice, nothing says which
            train.append(question_of(question, context, answer, context.index(answer), origin(record)))
    test = []
    for path in sorted((data / "eval" / "jaquad").glob("jaquad_dev_*.json")):
        for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
            for part in article["paragraphs"]:
                for one in part["qas"]:
                    answer = one["answers"][0]
                    if part["context"][answer["answer_start"] :].startswith(answer["text"]):
                        source = {"source": f"SkelterLabsInc/JaQuAD:{one['id']}", "licence": "CC BY-SA 3.0"}
                        test.append(question_of(one["question"], part["context"], answer["text"], answer["answer_start"], source))
    return fitting(train), fitting(test)


def question_of(question: str, context: str, answer: str, start: int, source: dict[str, str]) -> dict[str, Any]:
    """The sentence around the answer."""
    ends = [0, *(m.end() for m in re.finditer(r"[。\n]", context)), len(context)]
    low = max(end for end in ends if end <= start)
    high = min(end for end in ends if end >= start + len(answer))
    return {"question": question, "context": context[low:high].rstrip(), "answer": answer, "start": start - low, **source}


def fitting(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of which neither question nor sentence is too long, and the sentence is more than the answer."""
    return [one for one in found if len(one["question"]) <= 80 and len(one["answer"]) + 5 < len(one["context"]) <= LONGEST]


def embed(data: Path) -> tuple[list[Any], list[Any]]:
    """Pairs of sentences and how close people find them, 0 … 5; the test part is the validation set of JSTS."""
    form = re.compile(r"文1：(.*)\n文2：(.*)", re.DOTALL)
    train = []
    for record in lines(data / "instruct" / "ja_sts_jsts.jsonl.zst"):
        match = form.search(record["messages"][0]["content"])
        if match:
            score = float(record["messages"][1]["content"])
            train.append({"one": match[1].strip(), "other": match[2].strip(), "score": score, **origin(record)})
    path = data / "eval" / "jglue" / "jsts-v1.3" / "valid-v1.3.json"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    source = {"source": "yahoojapan/JGLUE:jsts", "licence": "CC BY-SA 4.0"}
    return train, [{"one": r["sentence1"], "other": r["sentence2"], "score": r["label"], **source} for r in rows]


def origin(record: dict[str, Any]) -> dict[str, str]:
    return {"source": record["source"], "licence": record["licence"]}


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as reader:
        yield from (json.loads(line) for line in io.TextIOWrapper(reader, encoding="utf-8"))


def write(path: Path, records: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_bytes(zstandard.ZstdCompressor(level=19).compress(text.encode()))


if __name__ == "__main__":
    main()
