"""Choose the translation pairs of this repository from a larger collection.

    python sample/make_translation.py --data DIR   choose from DIR/instruct/ja_en_translation_kyoto.jsonl.zst and DIR/eval/kyoto_translation

Out: tasks/translation/train.jsonl.zst and held_out.jsonl.zst, records {ja, en, source}. Both are of the Japanese-English Bilingual
Corpus of Wikipedia's Kyoto Articles (NICT), CC BY-SA 3.0: tasks/translation/README.md names it. Pairs of which the Japanese sentence
is longer than LONGEST characters are left out of the training set; the held-out sentences are all there, from articles that are not
in it. Nothing is changed.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator
from pathlib import Path

import zstandard

HERE = Path(__file__).parent / "tasks" / "translation"
LONGEST = 36  # characters


def pairs(path: Path) -> Iterator[dict[str, str]]:
    """The instructions taken off: the sentence stands in a paragraph of its own, in either language."""
    with path.open("rb") as file:
        for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8"):
            record = json.loads(line)
            asked, answer = (message["content"] for message in record["messages"])
            head, _, sentence = asked.partition("\n\n")
            into_english = "英語に" in head or "英訳" in head or "into English" in head
            ja, en = (sentence, answer) if into_english else (answer, sentence)
            yield {"ja": ja, "en": en, "source": record["source"].rpartition(":")[2]}


def write(path: Path, records: list[dict[str, str]]) -> None:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_bytes(zstandard.ZstdCompressor(level=19).compress(text.encode()))
    print(f"{path.name}: {len(records):,}, {path.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--longest", type=int, default=LONGEST)
    parser.add_argument("--out", type=Path, default=HERE)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    found = pairs(given.data / "instruct" / "ja_en_translation_kyoto.jsonl.zst")
    write(given.out / "train.jsonl.zst", [pair for pair in found if len(pair["ja"]) <= given.longest])
    lines = (given.data / "eval" / "kyoto_translation" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    held = [json.loads(line) for line in lines]
    write(given.out / "held_out.jsonl.zst", [{"ja": one["ja"], "en": one["en"], "source": one["doc"]} for one in held])


if __name__ == "__main__":
    main()
