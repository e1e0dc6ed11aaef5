"""What the recipes of tasks come to: each run to its end, its score beside those of its rivals, with intervals and minutes.

    python benchmarks/tasks.py                          all of them, from the samples of this repository
    python benchmarks/tasks.py --data DIR classify      those named, from the larger files that sample/make_tasks.py wrote to DIR
    python benchmarks/tasks.py --runs DIR               where the runs are and stay; finished stages are not run again

The recipes of encoders begin alike: the stages up to `masked` are run once and copied, and their seconds are counted in each.
The record keeps what was measured before on the tasks that are not named. It decides no claim: `beats_all` says what held.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _protocol

BEGINNING = ("corpus", "tokenizer", "masked")


@dataclass(frozen=True, slots=True)
class Task:
    recipe: str
    files: str | None = None  # of an encoder: NAME.train and NAME.test


TASKS = {
    "classify": Task("classify", "topic"),
    "intent": Task("classify", "intent"),
    "tag": Task("tag", "tag"),
    "extract": Task("extract", "extract"),
    "embed": Task("embed", "embed"),
    "span": Task("span"),
    "translate": Task("translate"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(TASKS)}; none: all")
    parser.add_argument("--data", type=Path, help="folder of larger files, for encoders; none: the samples")
    parser.add_argument("--runs", type=Path)
    given = parser.parse_args()
    unknown = {*given.tasks} - {*TASKS}
    if unknown:
        parser.error(f"no such task: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as place:
        runs = (given.runs or Path(place)).resolve()
        kept = _protocol.RESULTS / "tasks.json"
        rows = {(row["task"], row["data"]): row for row in json.loads(kept.read_text(encoding="utf-8"))["rows"]} if kept.is_file() else {}
        for name in given.tasks or TASKS:
            row = measured(name, given.data, runs)
            rows[row["task"], row["data"]] = row
            _protocol.write("tasks", {"rows": [rows[key] for key in sorted(rows, key=lambda key: ([*TASKS].index(key[0]), key[1]))]})
            sys.stdout.write(f"{name}: {row['score']}, beats all: {row['beats_all']}\n")


def measured(name: str, data: Path | None, runs: Path) -> dict[str, Any]:
    """Runs the recipe and reads its report."""
    task = TASKS[name]
    recipe, out, settings = task.recipe, runs / f"{name}-{'sample' if data is None else 'more'}", list[str]()
    if task.files:
        begin(out, runs)
        if data is not None or name != recipe:  # not the files that the recipe names
            place = "sample/tasks" if data is None else data.resolve()
            settings += [f"{recipe}.{key}=[{place}/{task.files}.{part}.jsonl.zst]" for key, part in (("inputs", "train"), ("test", "test"))]
    subprocess.run(
        [sys.executable, "-m", "tsuzuri", "run", f"recipes/{recipe}.yaml", *settings, f"out={out}"],
        cwd=_protocol.ROOT,
        env={**os.environ, "TSUZURI_LANG": "en"},  # of the names in the record
        check=True,
        stdout=subprocess.DEVNULL,
    )
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    results = report["results"]
    score = translation(results) if "translation" in results else results[recipe]
    made = next(stage for stage in ("masked", "span", "seq2seq") if stage in results)
    row = {key: score[key] for key in ("metric", "score", "rivals")} | {
        "task": name,
        "data": "sample" if data is None else "more",
        "learned_from": results["seq2seq"]["pairs"] if made == "seq2seq" else score["rows"] * report["recipe"][recipe].get("group", 1),
        "parameters": results[made]["parameters"],
        "seed": report["recipe"][recipe if recipe in results else made]["seed"],
        "seconds": sum(found["seconds"] for found in results.values()),
        "stages": {stage: found["seconds"] for stage, found in results.items()},
        "results": {stage: relative(found) for stage, found in results.items() if stage != "tokenizer"},
    }
    best = max(rival["interval"][1] for rival in row["rivals"].values())
    return {**row, "beats_all": row["score"]["interval"][0] > best}


def begin(out: Path, runs: Path) -> None:
    """Takes the finished beginning of another run, where there is one; the run itself finds out whether it is its own."""
    for other in sorted(runs.glob("*/masked/stage.json")):
        if not out.exists():
            out.mkdir(parents=True)
            for stage in BEGINNING:
                shutil.copytree(other.parents[1] / stage, out / stage)


def relative(found: dict[str, Any]) -> dict[str, Any]:
    """Without the place of the run."""
    return {key: value for key, value in found.items() if key not in ("directory", "translations", "filled")}


def translation(results: dict[str, Any]) -> dict[str, Any]:
    """chrF in the form of the other tasks."""
    found, count = results["translation"]["chrF"], results["translation"]["sentences"]
    each = {
        name: {"value": one["score"], "interval": one["interval"], "items": count} for name, one in found.items() if name != "difference"
    }
    return {"metric": "chrF", "score": each.pop("model"), "rivals": each}


if __name__ == "__main__":
    main()
