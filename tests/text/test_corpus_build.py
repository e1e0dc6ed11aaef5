"""The corpus: every document accounted for, a stable split by work, the same bytes again, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tsuzuri import config, directory
from tsuzuri.errors import ConfigError, InputError
from tsuzuri.text.corpus import output
from tsuzuri.text.corpus.build import CorpusSettings, Report, build
from tsuzuri.text.corpus.read import Document, read

STORY = (Path(__file__).parents[1] / "data" / "ryoriten.txt").read_text(encoding="utf-8")
WORDS = [line for line in STORY.replace("。", "。\n").splitlines() if len(line) > 8]
WORDS = list(dict.fromkeys(WORDS))


def essay(number: int, lines: int = 6) -> str:
    """A text of its own: any two share few of the story's sentences."""
    return "\n".join(random.Random(number).sample(WORDS, lines))


def records(count: int) -> list[dict[str, str]]:
    return [
        {"text": essay(i), "title": f"作品{i // 2}", "source": f"github:a/{'bc'[i % 2 == 0 and i % 4 == 0]}:x", "licence": "CC BY 4.0"}
        for i in range(count)
    ]


def write(path: Path, values: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), encoding="utf-8")
    return path


def make(path: Path, out: Path, **settings: Any) -> Report:
    return build(CorpusSettings(inputs=[str(path)], **settings), out, lambda words: None)


def parts(out: Path) -> tuple[list[Document], list[Document]]:
    return list(read([out / "train.jsonl.zst"])), list(read([out / "validation.jsonl.zst"])) if (
        out / "validation.jsonl.zst"
    ).is_file() else []


def test_every_document_is_kept_or_stands_under_its_reason(tmp_path: Path) -> None:
    good = records(40)
    bad = [
        {"text": text, "title": "t"}
        for text in ("", "短い", good[3]["text"], good[5]["text"] + "おわり。", "*" * 200, "同じ行です。\n" * 30)
    ]
    report = make(write(tmp_path / "a.jsonl", [*good, *bad]), tmp_path / "out", near_duplicate_threshold=0.7)
    assert report.dropped == {"empty": 1, "short": 1, "duplicate": 1, "near_duplicate": 1, "symbols": 1, "repetition": 1}
    assert set(report.examples) == set(report.dropped)
    assert report.examples["short"] == {"title": "t", "source": "a.jsonl", "text": "短い"}
    assert report.documents_read == 46 == report.documents_kept + sum(report.dropped.values())
    train, held = parts(tmp_path / "out")
    assert (len(train), len(held)) == (report.train_documents, report.validation_documents)
    assert {d.text for d in train + held} == {r["text"] for r in good}
    assert sum(len(d.text.encode()) for d in train) == report.train_bytes
    assert sum(len(d.text.encode()) for d in held) == report.validation_bytes
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["dropped"] == report.dropped


def test_manifest_says_where_everything_is_from(tmp_path: Path) -> None:
    values = [*records(20), {"text": essay(90), "source": "aozorabunko:1", "title": "は", "licence": "PD-JP", "credit": "入力：某"}]
    make(write(tmp_path / "a.jsonl", values), tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    rows = {(row["source"], row["licence"]): row for row in manifest["sources"]}
    assert rows["aozorabunko", "PD-JP"]["documents"] == 1
    assert rows["aozorabunko", "PD-JP"]["credit"] == ["入力：某"]
    assert sum(row["documents"] for row in rows.values()) == 21
    for name, entry in manifest["files"].items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == entry["sha256"]
    directory.verify(tmp_path / "out")


def test_the_same_input_in_another_order_gives_the_same_bytes(tmp_path: Path) -> None:
    values = records(60)
    make(write(tmp_path / "a.jsonl", values), tmp_path / "one")
    make(write(tmp_path / "a.jsonl", values[::-1]), tmp_path / "two")
    for part in ("train", "validation"):
        assert (tmp_path / "one" / f"{part}.jsonl.zst").read_bytes() == (tmp_path / "two" / f"{part}.jsonl.zst").read_bytes()
    texts = [d.text for d in parts(tmp_path / "one")[0]]
    assert texts != [r["text"] for r in values if r["text"] in set(texts)]  # not the order of the file


def test_works_stay_together_and_more_text_moves_none(tmp_path: Path) -> None:
    make(write(tmp_path / "a.jsonl", records(80)), tmp_path / "one", validation_fraction=0.3)
    make(write(tmp_path / "a.jsonl", records(160)), tmp_path / "two", validation_fraction=0.3)
    train, held = parts(tmp_path / "one")
    assert 0.1 < len(held) / 80 < 0.5
    assert not {(d.title, d.source) for d in train} & {(d.title, d.source) for d in held}
    more_train, more_held = ({d.text for d in part} for part in parts(tmp_path / "two"))
    assert {d.text for d in train} <= more_train
    assert {d.text for d in held} <= more_held


def test_at_least_one_work_is_held_out_and_never_all(tmp_path: Path) -> None:
    for fraction in (0.0001, 0.5):
        report = make(write(tmp_path / "a.jsonl", records(4)), tmp_path / "out", validation_fraction=fraction)
        assert report.train_documents
        assert report.validation_documents
    assert make(tmp_path / "a.jsonl", tmp_path / "out", validation_fraction=0).validation_documents == 0
    one = write(tmp_path / "b.jsonl", [{"text": essay(1), "title": "唯一"}])
    with pytest.raises(InputError, match="validation_fraction"):
        make(one, tmp_path / "out")
    assert make(one, tmp_path / "out", validation_fraction=0).train_documents == 1


def test_max_bytes_takes_a_fair_sample_that_grows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", records(80))
    kept: set[str] = set()
    for limit in (6_000, 12_000):
        report = make(path, tmp_path / "out", max_bytes=limit)
        texts = {d.text for part in parts(tmp_path / "out") for d in part}
        assert kept <= texts
        assert limit * 0.8 < report.train_bytes + report.validation_bytes <= limit
        assert report.dropped["over_limit"] == 80 - len(texts)
        assert report.examples["over_limit"]["text"]
        kept = texts
    make(path, tmp_path / "out", max_bytes=6_000, seed=1)
    assert {d.text for part in parts(tmp_path / "out") for d in part} != kept
    with pytest.raises(InputError, match="max_bytes"):
        make(path, tmp_path / "out", max_bytes=10)


def test_near_duplicates_stay_when_that_is_asked(tmp_path: Path) -> None:
    values = [*records(10), {"text": records(10)[5]["text"] + "おわり。", "title": "別"}]
    assert make(write(tmp_path / "a.jsonl", values), tmp_path / "out", near_duplicate_threshold=0).documents_kept == 11
    assert make(tmp_path / "a.jsonl", tmp_path / "out", near_duplicate_threshold=0.7).documents_kept == 10


def test_normalise_changes_the_text(tmp_path: Path) -> None:
    values = [{"text": text + "か\u3099①", "title": text[:9]} for text in map(essay, range(3))]
    path = write(tmp_path / "a.jsonl", values)
    for form, end in (("none", "か\u3099①"), ("nfc", "が①"), ("nfkc", "が1")):
        make(path, tmp_path / form, normalise=form, validation_fraction=0)
        assert all(d.text.endswith(end) for d in parts(tmp_path / form)[0])


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    make(write(tmp_path / "a.jsonl", records(10)), tmp_path / "out")
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": essay(3)}) + "\n{broken\n", encoding="utf-8")
    with pytest.raises(InputError, match="2 行目"):
        make(tmp_path / "a.jsonl", tmp_path / "out")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "out"]


def test_nothing_left_says_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="短すぎる 2"):
        make(write(tmp_path / "a.jsonl", [{"text": "あ"}, {"text": "い"}]), tmp_path / "out")


@pytest.mark.parametrize(
    "values",
    [
        {"inputs": []},
        {"inputs": ["a"], "validation_fraction": 0.7},
        {"inputs": ["a"], "near_duplicate_threshold": 0.1},
        {"inputs": ["a"], "max_bytes": 0},
        {"inputs": ["a"], "min_characters": -1},
        {"inputs": ["a"], "normalise": "nfd"},
        {"inputs": ["a"], "normalize": "nfc"},
    ],
)
def test_settings_are_checked(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        config.build(CorpusSettings, values)


def test_detected_encodings_are_reported(tmp_path: Path) -> None:
    texts = tmp_path / "in"
    texts.mkdir()
    for number, encoding in enumerate(("utf-8", "cp932", "cp932", "euc_jp", "utf-16")):
        (texts / f"{number}.txt").write_bytes(essay(number).encode(encoding))
    write(texts / "a.jsonl", records(2))
    report = make(texts, tmp_path / "out")
    assert report.encodings == {"UTF-8": 1, "Shift_JIS (CP932)": 2, "EUC-JP": 1, "UTF-16": 1}


def test_only_a_corpus_is_replaced_and_never_its_own_input(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "diary.txt").write_text("大切", encoding="utf-8")
    path = write(tmp_path / "a.jsonl", records(10))
    for out, words in ((own, "別のファイル"), (path, "ファイルです"), (path / "deep" / "er", "ファイルです"), (tmp_path, "入力の")):
        with pytest.raises(ConfigError, match=words):
            make(path, out)
    assert (own / "diary.txt").read_text(encoding="utf-8") == "大切"
    (tmp_path / "empty").mkdir()
    for _ in range(2):  # into an empty directory, and over an earlier corpus
        make(path, tmp_path / "empty")
    with pytest.raises(ConfigError, match="入力の"):
        make(tmp_path / "empty" / "train.jsonl.zst", tmp_path / "empty")
    output.check(tmp_path / "not" / "yet")
