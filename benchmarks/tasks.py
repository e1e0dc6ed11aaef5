"""What the recipes of tasks come to: each run to its end, its score beside those of its rivals, with intervals and minutes.

    python benchmarks/tasks.py                          all of them, from the samples of this repository
    python benchmarks/tasks.py --data DIR classify      those named, from the larger files that sample/make_tasks.py wrote to DIR
    python benchmarks/tasks.py --runs DIR               where the runs are and stay; finished stages are not run again
    python benchmarks/tasks.py --start DIR classify     the same task taught to the finished encoder of DIR

The recipes of encoders begin alike: the stages up to `masked` are run once and copied, and their seconds are counted in each.
The record keeps what was measured before on the tasks that are not named, each row with its machine. It decides no claim: `beats_all`
says what held.
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

from tsuzuri.config import read_yaml

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
    parser.add_argument("--start", type=Path, help="a finished encoder, in place of the stages before the task")
    given = parser.parse_args()
    unknown = {*given.tasks} - {*TASKS}
    if unknown:
        parser.error(f"no such task: {', '.join(sorted(unknown))}")
    known = [name for name, task in TASKS.items() if given.start is None or task.files]
    if not {*given.tasks} <= {*known}:
        parser.error(f"--start is for tasks of encoders: {', '.join(known)}")
    kept = _protocol.RESULTS / "tasks.json"
    before = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {"rows": []}
    rows = {key(row): {"machine": before["machine"], **row} for row in before["rows"]}
    with tempfile.TemporaryDirectory() as place:
        runs = (given.runs or Path(place)).resolve()
        for name in given.tasks or known:
            row = measured(name, given.data, runs, given.start) | {"machine": _protocol.machine()}
            rows[key(row)] = row
            ordered = sorted(rows.values(), key=lambda row: ([*TASKS].index(row["task"]), row["data"], row.get("start") or ""))
            _protocol.write("tasks", {"rows": ordered})
            sys.stdout.write(f"{row['task']}: {row['score']}, beats all: {row['beats_all']}\n")


def key(row: dict[str, Any]) -> tuple[str, str, str | None]:
    return row["task"], row["data"], row.get("start")


def measured(name: str, data: Path | None, runs: Path, start: Path | None) -> dict[str, Any]:
    """Runs the recipe and reads its report."""
    task = TASKS[name]
    recipe, settings, path = task.recipe, list[str](), Path("recipes") / f"{task.recipe}.yaml"
    out = runs / f"{name}-{'sample' if data is None else 'more'}{'' if start is None else '-start'}"
    if start is not None:
        out.mkdir(parents=True, exist_ok=True)
        section = {**read_yaml(_protocol.ROOT / path)[recipe], "start": str(start.resolve())}
        path = out / "asked.yaml"
        path.write_text(json.dumps({"name": recipe, "stages": [recipe], recipe: section}, ensure_ascii=False), encoding="utf-8")
    elif task.files:
        begin(out, runs)
    if task.files and (data is not None or name != recipe):  # not the files that the recipe names
        place = "sample/tasks" if data is None else data.resolve()
        settings += [f"{recipe}.{key}=[{place}/{task.files}.{part}.jsonl.zst]" for key, part in (("inputs", "train"), ("test", "test"))]
    subprocess.run(
        [sys.executable, "-m", "tsuzuri", "run", str(path), *settings, f"out={out}"],
        cwd=_protocol.ROOT,
        env={**os.environ, "TSUZURI_LANG": "en"},  # of the names in the record
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return row_of(name, recipe, json.loads((out / "report.json").read_text(encoding="utf-8")), data)


def row_of(name: str, recipe: str, report: dict[str, Any], data: Path | None) -> dict[str, Any]:
    results = report["results"]
    score = translation(results) if "translation" in results else results[recipe]
    start = report["recipe"].get(recipe, {}).get("start") if TASKS[name].files else None
    stages = [recipe] if start else [*results]
    made = recipe if start else next(stage for stage in ("masked", "span", "seq2seq") if stage in results)
    row = {key: score[key] for key in ("metric", "score", "rivals")} | {
        "task": name,
        "data": "sample" if data is None else "more",
        "start": "encoder" if start else None,
        "learned_from": results["seq2seq"]["pairs"] if made == "seq2seq" else score["rows"] * report["recipe"][recipe].get("group", 1),
        "parameters": results[made]["parameters"],
        "seed": report["recipe"][recipe if recipe in results else made]["seed"],
        "seconds": sum(results[stage]["seconds"] for stage in stages),
        "stages": {stage: results[stage]["seconds"] for stage in stages},
        "results": {stage: relative(results[stage]) for stage in stages if stage != "tokenizer"},
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
