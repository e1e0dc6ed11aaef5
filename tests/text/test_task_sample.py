"""The samples of tasks: sources and licences are said, and nothing that is measured on is also learned from."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

TASKS = Path(__file__).parents[2] / "sample" / "tasks"
PAIRS = [
    *((path, path.with_name(path.name.replace(".train.", ".test."))) for path in sorted(TASKS.glob("*.train.jsonl.zst"))),
    (TASKS / "translation" / "train.jsonl.zst", TASKS / "translation" / "held_out.jsonl.zst"),
]
ASKED = ("text", "question", "one", "ja")  # what a record asks, by its task


def records(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as file:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")
        return [json.loads(line) for line in lines]


def asked(record: dict[str, Any]) -> tuple[str, ...]:
    return tuple(record[key] for key in (*ASKED, "other", "context") if key in record)


def test_every_file_is_of_a_pair() -> None:
    assert {path for pair in PAIRS for path in pair} == set(TASKS.rglob("*.jsonl.zst"))


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].relative_to(TASKS).as_posix())
def test_what_is_measured_on_is_not_learned_from(pair: tuple[Path, Path]) -> None:
    train, test = (list(map(asked, records(path))) for path in pair)
    assert len(train) >= 1000
    assert len(test) >= 200
    assert len(set(test)) == len(test)
    assert not set(train) & set(test)


def test_sources_and_licences_are_named() -> None:
    text = (TASKS / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for path in TASKS.glob("*.jsonl.zst"):
        name = path.name.partition(".")[0]
        row = next(line for line in text.splitlines() if name in line.partition("|")[2].partition("|")[0].replace(",", " ").split())
        for record in records(path):
            repository = record["source"].rpartition("github:")[2].partition(":")[0].partition("/")[2]
            assert repository and repository.partition("/")[0] in row, (name, record["source"])
            assert record["licence"].split(" (")[0] in row.replace("（", " ("), (name, record["licence"])
    kyoto = (TASKS / "translation" / "README.md").read_text(encoding="utf-8")
    assert "CC BY-SA 3.0" in kyoto
    assert "NICT" in kyoto
    assert all(record["source"] for path in (TASKS / "translation").glob("*.zst") for record in records(path))
