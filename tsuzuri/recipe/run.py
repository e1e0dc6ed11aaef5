"""Run a recipe: each stage in its folder, finished ones skipped, a changed one and all after it run again.

In: a Recipe. Out: `OUT/<stage>/…` with a `stage.json` each (settings, fingerprint, results, seconds), then a report.
A stage's fingerprint is the hash of its settings, of its input files, and of the fingerprint before it.
"""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tsuzuri import __version__, device
from tsuzuri.config import to_yaml
from tsuzuri.directory import write_text
from tsuzuri.errors import ConfigError, SpaceError, Words
from tsuzuri.folder import find, suggestion
from tsuzuri.recipe.recipe import STAGES, Recipe
from tsuzuri.train import shard
from tsuzuri.train.watch import Watch, clock

RECORD = "stage.json"  # of a finished stage
STARTED = "started.json"  # of an unfinished one
GIB = 1 << 30


@dataclass(slots=True)
class Context:
    """What a stage may know: where it works, what came before it, and whom to tell."""

    recipe: Recipe
    directory: Path  # its own
    watch: Watch
    results: dict[str, dict[str, Any]] = field(default_factory=dict)  # of the stages before, by name

    def before(self, stage: str) -> Path:
        """The folder of an earlier stage."""
        assert stage in self.results, "a stage names in NEEDS what it reads"
        return self.directory.parent / stage


def run(recipe: Recipe, watch: Watch, *, until: str | None = None) -> dict[str, dict[str, Any]]:
    """All stages in order, or those up to `until`; returns what each has to say, with its seconds. Interrupted, the same
    call goes on.
    """
    stages = recipe.head.stages
    if until is not None:
        stages = stages[: stages.index(known(until, stages)) + 1]
    out, first = recipe.out, device.rank()[0] == 0
    if first:
        write_text(out / "recipe.yaml", to_yaml(recipe.values))
    results: dict[str, dict[str, Any]] = {}
    before = ""
    for number, name in enumerate(stages, 1):
        settings, directory = recipe.sections[name], out / name
        module = find(STAGES, name)
        before = fingerprint(before, name, settings, module.inputs(settings))
        title = f"[{number}/{len(stages)}] {name}"
        done = _record(directory)
        meet()  # every process has looked before the first one writes
        gone = _gone(out, done) if done and done["fingerprint"] == before else None
        if done and done["fingerprint"] == before and gone is None:
            if first:
                (directory / STARTED).unlink(missing_ok=True)  # killed just after the record was written
            watch.notice(Words(f"{title}：済んでいます（{clock(done['seconds'])}）。", f"{title}: done before ({clock(done['seconds'])})."))
        else:
            watch.notice(f"{title}：{_first_line(module.__doc__)}")
            if gone:
                watch.notice(
                    Words(
                        f"済んでいましたが、{gone} がないか変わっているので、作り直します。",
                        f"It was done, but {gone} is missing or has changed: making it anew.",
                    )
                )
            context = Context(recipe, directory, watch, dict(results))
            if first:
                _make_room(directory, before, watch)
                done = _run_stage(module, settings, context, before)
            else:
                done = _follow(module, settings, context)
        results[name] = {**done["results"], "seconds": done["seconds"], "peak_bytes": done["peak_bytes"]}
    return results


def known(stage: str, stages: list[str]) -> str:
    """The stage, if the recipe has it."""
    if stage not in stages:
        raise ConfigError(
            Words(f"段階「{stage}」まで実行しようとしました。", f"Running up to the stage '{stage}'."),
            found=Words(f"この設定ファイルにあるのは {'、'.join(stages)} です。", f"This recipe has {', '.join(stages)}."),
            todo=suggestion(stage, stages),
        )
    return stage


def meet() -> None:
    """Under torchrun, wait for the other processes; alone, nothing."""
    if device.rank()[1] > 1:
        shard.join()
        torch.distributed.barrier()


def _follow(module: Any, settings: Any, context: Context) -> dict[str, Any]:
    """What a process other than the first does: train along where the stage is shared, else wait for its record."""
    meet()
    if getattr(module, "SHARED", False):
        module.run(settings, context)
    meet()
    done = _record(context.directory)
    assert done is not None, "the first process wrote the record before it came to the meeting"
    return done


def fingerprint(before: str, name: str, settings: Any, inputs: Sequence[Path]) -> str:
    """What the result of a stage depends on, as a hash."""
    content = [before, name, __version__, to_yaml(settings)]
    for path in inputs:
        with path.open("rb") as file:
            content.append(hashlib.file_digest(file, "sha256").hexdigest())
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _run_stage(module: Any, settings: Any, context: Context, mark: str) -> dict[str, Any]:
    """Runs one stage; the seconds of an interrupted earlier try are counted in."""
    started = context.directory / STARTED
    earlier = json.loads(started.read_text(encoding="utf-8"))["seconds"] if started.is_file() else 0.0
    begun = time.perf_counter()

    def note() -> float:
        seconds = earlier + time.perf_counter() - begun
        write_text(started, json.dumps({"fingerprint": mark, "seconds": seconds}))
        return seconds

    note()
    meet()  # the stage's folder is there
    try:
        results = module.run(settings, context)
    finally:
        seconds = note()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # bytes
    record = {"fingerprint": mark, "seconds": seconds, "peak_bytes": peak, "settings": to_yaml(settings), "results": results}
    record["files"] = _made(context, module)
    write_text(context.directory / RECORD, json.dumps(record, ensure_ascii=False, indent=1))
    started.unlink()
    meet()  # the record is there
    return record


def _made(context: Context, module: Any) -> dict[str, int]:
    """Every file that the stage has left, from the run's directory on, and its size: what must be there for it to count as done."""
    places = [context.directory, *(context.recipe.out / name for name in getattr(module, "LEAVES", ()))]
    found = (file for place in places for file in place.rglob("*") if file.is_file() and file.name not in (RECORD, STARTED))
    return {file.relative_to(context.recipe.out).as_posix(): file.stat().st_size for file in sorted(found)}


def _gone(out: Path, record: dict[str, Any]) -> str | None:
    """The first file of a finished stage that is missing or has another size."""
    for name, size in record["files"].items():
        file = out / name
        if not file.is_file() or file.stat().st_size != size:
            return str(name)
    return None


def _record(directory: Path) -> dict[str, Any] | None:
    """What a finished stage wrote down; None when it is not finished or the record cannot be read."""
    try:
        record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        return record if {"fingerprint", "seconds", "peak_bytes", "results", "files"} <= set(record) else None
    except (OSError, ValueError):
        return None


def _make_room(directory: Path, mark: str, watch: Watch) -> None:
    """Keep the unfinished work of the same stage to resume it; move anything else aside, so that nothing is lost."""
    started = directory / STARTED
    if started.is_file() and mark in started.read_text(encoding="utf-8"):
        return
    if directory.exists() and any(directory.iterdir()):  # an empty one: killed just before the work began
        finished = (directory / RECORD).is_file()
        aside = directory.with_name(f"{directory.name}.{'previous' if finished else 'unfinished'}")
        shutil.rmtree(aside, ignore_errors=True)  # of its own kind: an unfinished one never takes a finished one's place
        directory.rename(aside)
        watch.notice(
            Words(
                f"設定か入力が変わったので作り直します。前のものは {aside} にあります。",
                f"Settings or inputs changed: making it anew. The old one is {aside}.",
            )
        )
    directory.mkdir(parents=True, exist_ok=True)


def check_writable(out: Path) -> None:
    asked = Words(f"出力先 {out} を用意しようとしました。", f"Preparing the output directory {out}.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".probe"
        probe.write_bytes(b"")
        probe.unlink()
        free = shutil.disk_usage(out).free
    except OSError as error:
        raise SpaceError(
            asked,
            found=Words(f"書き込めません（{error.strerror}）。", f"It cannot be written ({error.strerror})."),
            todo=Words("権限を確かめるか、out= で別の場所を指定してください。", "Check permissions, or give another place with out=."),
        ) from error
    if free < GIB:
        raise SpaceError(
            asked,
            found=Words(f"空きが {free >> 20} MiB しかありません。", f"Only {free >> 20} MiB are free."),
            todo=Words("1 GiB 以上空けるか、out= で別の場所を指定してください。", "Free at least 1 GiB, or give another place with out=."),
        )


def _first_line(text: str | None) -> str:
    ja, _, en = (text or "").partition("\n")[0].partition(" / ")
    return str(Words(ja, en or ja))
