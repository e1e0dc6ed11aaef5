"""Choose the sample text of this repository from a larger collection, and write down what was chosen.

    python sample/make.py --data DIR        choose from DIR/pretrain/*.jsonl.zst (fields text, title, source, licence[, author, credit])
    python sample/make.py                   only renew manifest.json and ATTRIBUTION.md from the files that are here

Only public domain and CC BY; never share-alike. Seeded: the same collection gives the same sample.
It does not clean: that is `tsuzuri corpus build`, which also removes near duplicates across kinds.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import random
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

HERE = Path(__file__).parent
LONGEST = 12_000  # characters of a document; a longer work is cut at paragraph ends
AUTHOR_BYTES = 450_000  # no author fills more than about 3 % of the literature
KNOWN = 0.5  # a technical page of which half stood in earlier pages is boilerplate
NOTE = (
    "Works longer than 12,000 characters were cut at paragraph ends into documents of the same title, numbered in `part`; "
    "parts under 200 characters were left out. Otherwise the texts are as in their source. "
    "12,000 字を超える作品は段落の切れ目で分け、題名はそのままで `part` に番号を付けました。200 字に満たない部分は除きました。"
)
# kind -> (files, UTF-8 bytes to choose from each)
WANTED: dict[str, list[tuple[str, int]]] = {
    "literature": [(f"aozora_modern-{i}of4", 3_400_000) for i in (1, 2, 3, 4)],
    "government": [("gov_ict_whitepaper", 5_100_000)],
    "law": [("gov_laws_2013", 3_900_000)],
    "technical": [("docs_cpprefjp", 2_100_000), ("docs_rurema", 2_000_000), ("docs_php", 1_700_000), ("docs_ms_dotnet", 2_200_000)],
}
FREE = re.compile(r"PD(-JP| \(.*\))?|CC BY (2\.1( JP)?|3\.0|4\.0)")  # and nothing after it: no SA, NC, ND
CREDITS = {  # how the projects ask to be named, where the records do not say
    "github:cpprefjp/site": "cpprefjp 日本語リファレンス執筆者一同",
    "github:rurema/doctree": "Ruby リファレンスマニュアル刷新計画",
    "github:php/doc-ja": "PHP ドキュメンテーショングループ",
    "github:zfhrp6/docs.ja-jp": "Microsoft Corporation とドキュメント貢献者",
    "megagonlabs/asdc": "Megagon Labs（Accommodation Search Dialog Corpus）",
    "megagonlabs/instruction_ja": "Copyright (c) 2022 Anthropic, 2023 kunishou, 2023 Megagon Labs",
    "Language-Media-Lab/commonsense-moral-ja": "Copyright (c) 2022 Masashi Takeshita",
    "openai/grade-school-math": "Copyright (c) 2021 OpenAI",
}
PUBLIC_DOMAIN = """\
- PD-JP: 日本で著作権の保護期間が満了した作品です。ほかの国では期間が異なることがあります。 \
Copyright has expired in Japan; other countries may count otherwise.
- PD (Copyright Act of Japan Art. 13): 法令は著作権の目的となりません（著作権法第13条）。 Laws are not subject to copyright.
- 青空文庫 / Aozora Bunko: <https://www.aozora.gr.jp/>（底本、入力者、校正者の名は各レコードの credit に / editions, typists and \
proofreaders are named in `credit` of each record）"""
MIT = """\
## MIT License

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files \
(the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge, \
publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so, \
subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF \
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE \
FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION \
WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
LICENCES = {
    "CC BY 2.1": "https://creativecommons.org/licenses/by/2.1/jp/",
    "CC BY 3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC BY 4.0": "https://creativecommons.org/licenses/by/4.0/",
    "MIT": "https://opensource.org/license/mit",
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
}
JAPANESE = re.compile(r"[ぁ-んァ-ヶー々一-龯]")
HIRAGANA = re.compile(r"[ぁ-ん]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    data = parser.parse_args().data
    if data:
        for kind, parts in WANTED.items():
            records = [record for name, size in parts for record in choose(data / "pretrain" / f"{name}.jsonl.zst", size)]
            random.Random(kind).shuffle(records)  # noqa: S311  an order, not a secret
            write(HERE / "pretrain" / f"{kind}.jsonl.zst", records)
    found = manifest()
    (HERE / "manifest.json").write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (HERE / "ATTRIBUTION.md").write_text(attribution(found), encoding="utf-8")


def choose(path: Path, size: int) -> Iterator[dict[str, str]]:
    """Whole works in a seeded order until `size` bytes are passed, each cut into documents."""
    technical = path.name.startswith("docs_")
    fits = technical_prose if technical else prose
    records = [record for record in lines(path) if FREE.fullmatch(record["licence"]) and fits(record["text"])]
    random.Random(path.name).shuffle(records)  # noqa: S311
    seen: set[int] = set()
    authors: Counter[str] = Counter()
    total = 0
    for record in records:
        length, author = len(record["text"].encode()), record.get("author", "")
        if (author and authors[author] + length > AUTHOR_BYTES) or (technical and known(record["text"], seen)):
            continue
        authors[author] += length
        for part in parts(record):
            total += len(part["text"].encode())
            yield part
        if total >= size:
            return


def prose(text: str) -> bool:
    """Modern prose: mostly Japanese, enough hiragana, not the same lines over and over."""
    return sound(text) and share(JAPANESE, text) >= 0.45 and share(HIRAGANA, text) >= 0.2 and repeated(text) < 0.25


def technical_prose(text: str) -> bool:
    """Explanations, not code or tables: the lines that hold Japanese make up most of the page."""
    rows = [row for row in text.splitlines() if row.strip()]
    told = sum(len(row) for row in rows if JAPANESE.search(row) and not row.lstrip().startswith(("|", "//", "#include")))
    return sound(text) and told >= 0.6 * sum(map(len, rows)) and share(JAPANESE, text) >= 0.3 and repeated(text) < 0.3


def sound(text: str) -> bool:
    """Long enough to learn from, and decoded rightly in its source."""
    return len(text) >= 300 and "\ufffd" not in text


def share(pattern: re.Pattern[str], text: str) -> float:
    return len(pattern.findall(text)) / max(1, len(text))


def repeated(text: str) -> float:
    rows = [row for row in text.splitlines() if row.strip()]
    return 1 - len(set(rows)) / max(1, len(rows))


def known(text: str, seen: set[int]) -> bool:
    """Whether most of the page stood in earlier ones: every eighth 12-character piece, by hash. Remembers a page that is new."""
    pieces = {code for i in range(len(text) - 12) if (code := zlib.crc32(text[i : i + 12].encode())) % 8 == 0}
    if len(pieces & seen) > KNOWN * len(pieces):
        return True
    seen |= pieces
    return False


def parts(record: dict[str, str]) -> Iterator[dict[str, str]]:
    """One record, or several cut at paragraph ends; title and number say where each came from."""
    kept = {key: record[key] for key in ("title", "source", "licence") if record.get(key)}
    credit = "、".join(record[key] for key in ("author", "credit") if record.get(key))
    if credit:
        kept["credit"] = credit
    text = record["text"].strip()
    pieces: list[str] = []
    while len(text) > LONGEST:
        cut = text.rfind("\n", LONGEST // 2, LONGEST)
        cut = cut if cut > 0 else LONGEST
        pieces.append(text[:cut].strip())
        text = text[cut:].strip()
    pieces.append(text)
    for number, piece in enumerate(pieces, 1):
        if len(piece) >= 200:
            yield {"text": piece, **kept, **({"part": f"{number}/{len(pieces)}"} if len(pieces) > 1 else {})}


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as raw:
        for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(raw), encoding="utf-8"):
            yield json.loads(line)


def write(path: Path, records: list[dict[str, str]]) -> None:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_bytes(zstandard.ZstdCompressor(level=19).compress(text.encode()))


def manifest() -> dict[str, Any]:
    """What lies here: sizes, hashes, and each source with its licence and credits."""
    files = []
    for path in sorted(path for kind in ("chat", "pretrain") for path in (HERE / kind).glob("*.jsonl.zst")):
        records = list(lines(path))
        sources: dict[tuple[str, str], Counter[str]] = {}
        for record in records:
            credits = sources.setdefault((origin(record["source"]), record["licence"]), Counter())
            credits[credit_of(record)] += 1
        files.append(
            {
                "path": path.relative_to(HERE).as_posix(),
                "records": len(records),
                "characters": sum(map(len, map(words, records))),
                "text_bytes": sum(len(words(record).encode()) for record in records),
                "bytes": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "licences": sorted({record["licence"] for record in records}),
                "sources": [
                    {"source": source, "licence": licence, "records": sum(credits.values()), "credits": sorted(c for c in credits if c)}
                    for (source, licence), credits in sorted(sources.items())
                ],
            }
        )
    return {"note": NOTE, "files": files}


def words(record: dict[str, Any]) -> str:
    """All text of a record: a document's, or what is said in a conversation."""
    return str(record["text"]) if "text" in record else "".join(message.get("content") or "" for message in record["messages"])


def origin(source: str) -> str:
    """The collection a record came from: github:owner/name, or what stands before the first colon."""
    return ":".join(source.split(":")[: 2 if source.startswith("github:") else 1])


def credit_of(record: dict[str, Any]) -> str:
    """Who is to be named: nobody for the public domain, else the record's own credit with the title of a work, else the project's."""
    if record["licence"].startswith("PD"):
        return ""
    if not record.get("credit"):
        return CREDITS.get(origin(record["source"]), "")
    return f"「{record['title']}」{record['credit']}" if origin(record["source"]) == "aozorabunko" else str(record["credit"])


def attribution(found: dict[str, Any]) -> str:
    """The manifest for people: every source with its licence and whom to name, and what the licences ask to be said."""
    rows = ["# 出典と利用条件 / Attribution", "", "`python sample/make.py` が manifest.json から作ります。", "", found["note"], ""]
    for file in found["files"]:
        rows += [
            f"## {file['path']}（{file['records']:,} 件）",
            "",
            "| 出典 / source | 利用条件 / licence | 件数 | 著作者の表示 / credit |",
            "|---|---|---|---|",
        ]
        rows += [f"| {link(s['source'])} | {s['licence']} | {s['records']:,} | {'；'.join(s['credits']) or '–'} |" for s in file["sources"]]
        rows.append("")
    licences = {licence for file in found["files"] for licence in file["licences"]}
    rows += [f"- {name}: <{address}>" for name, address in sorted(LICENCES.items()) if any(one.startswith(name) for one in licences)]
    text = sum(file["text_bytes"] for file in found["files"])
    size = sum(file["bytes"] for file in found["files"])
    rows += [PUBLIC_DOMAIN, "", f"合計 / total: {text / 1e6:.1f} MB of text, {size / 1e6:.1f} MB compressed.", ""]
    rows += [MIT] if "MIT" in licences else []
    rows += ["## tests/data/ryoriten.txt", "", "宮沢賢治「注文の多い料理店」（著作権の保護期間が満了）。", ""]
    return "\n".join(rows)


def link(source: str) -> str:
    name = source.removeprefix("github:")
    return f"[{name}](https://github.com/{name})" if source.startswith("github:") else source


if __name__ == "__main__":
    main()
