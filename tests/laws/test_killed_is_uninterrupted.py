"""`tsuzuri run`, killed or stopped anywhere and started again with the same command, ends in the same bytes; so it does after
a full disk and a damaged checkpoint. Real processes, real signals, real limits."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import pytest
from place import ROOT

from tsuzuri.text.corpus.read import read
from tsuzuri.train import checkpoint

STEPS = 12
RECIPE = f"""\
name: test
size: 1
threads: 1
stages: [corpus, tokenizer, pretrain]
corpus: {{inputs: [texts.jsonl], validation_fraction: 0.1}}
tokenizer: {{vocab_size: 400}}
pretrain: {{start: bigram, steps: {STEPS}, batch: 4, length: 64, train_tokens: 20000, checkpoint_every: 2}}
"""
BYTES = 400_000  # of real text: enough for each stage to last long enough to be met in the middle


def write_recipe(place: Path) -> Path:
    total = 0

    def within(size: int) -> bool:
        nonlocal total
        total += size
        return total < BYTES

    documents = takewhile(lambda d: within(len(d.text.encode())), read([ROOT / "sample/pretrain/technical.jsonl.zst"]))
    lines = [json.dumps({"text": document.text}, ensure_ascii=False) + "\n" for document in documents]
    (place / "texts.jsonl").write_text("".join(lines), encoding="utf-8")
    (place / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return place


@contextmanager
def started(place: Path, limit: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """The command of a person, in `place`; no file may grow beyond `limit` bytes, as on a disk that is full."""
    command = [sys.executable, "-m", "tsuzuri", "run", "recipe.yaml"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=place, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, **pipes)
    if limit is not None:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def finish(place: Path, limit: int | None = None) -> tuple[int, str]:
    """(exit status, what was said)"""
    with started(place, limit) as process:
        _, said = process.communicate(timeout=120)
        return process.returncode, said


def signalled(place: Path, when: Callable[[], bool], number: int) -> int:
    """Start, send the signal while `when()` holds, and wait for the end. The process stands still while we look twice."""
    with started(place) as process:
        while process.poll() is None:
            if when():
                process.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
                held = when()
                if held:
                    process.send_signal(number)
                process.send_signal(signal.SIGCONT)
                if held:
                    process.communicate(timeout=120)
                    return process.returncode
            time.sleep(0.0005)
        pytest.fail(f"the run was over before that moment came: {process.communicate()[1]}")


def steps(place: Path) -> int:
    """Lines of the journal."""
    path = place / "runs/test/pretrain/metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def there(place: Path, pattern: str) -> Callable[[], bool]:
    return lambda: any((place / "runs/test").glob(pattern))


def between_checkpoints(place: Path) -> Callable[[], bool]:
    return lambda: steps(place) >= 3 and steps(place) % 2 == 1


MOMENTS: dict[str, Callable[[Path], Callable[[], bool]]] = {
    "in the corpus": lambda place: there(place, "corpus/.text.*.tmp"),
    "in the tokenizer": lambda place: there(place, "tokenizer/started.json"),
    "while text becomes ids": lambda place: there(place, "pretrain/shards/.*.tmp"),
    "in a step": between_checkpoints,
    "while a checkpoint is written": lambda place: there(place, "pretrain/checkpoints/.step-*.tmp"),
    "before the report": lambda place: there(place, "pretrain/stage.json"),
}


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is left by a run that nothing interrupted."""
    place = write_recipe(tmp_path_factory.mktemp("whole"))
    status, said = finish(place)
    assert status == 0, said
    return place


def weights(place: Path) -> bytes:
    return (place / f"runs/test/pretrain/checkpoints/step-{STEPS:08}/model/model.safetensors").read_bytes()


def assert_same(place: Path, wanted: Path) -> None:
    """The weights to the last byte; every step once in the journal; nothing half-done left about."""
    assert weights(place) == weights(wanted)
    journals = [(p / "runs/test/pretrain/metrics.jsonl").read_text(encoding="utf-8").splitlines() for p in (place, wanted)]
    mine, theirs = ([(json.loads(line)["step"], json.loads(line)["loss"]) for line in lines] for lines in journals)
    assert mine == theirs
    assert [step for step, _ in mine] == list(range(1, STEPS + 1))
    files = [sorted(str(file.relative_to(p)) for file in (p / "runs").rglob("*")) for p in (place, wanted)]
    assert files[0] == files[1]


def test_killed_at_every_moment_of_its_life(tmp_path: Path, wanted: Path) -> None:
    """One run, killed without warning six times, each time further on."""
    place = write_recipe(tmp_path)
    for moment in MOMENTS.values():
        assert signalled(place, moment(place), signal.SIGKILL) == -signal.SIGKILL
    status, said = finish(place)
    assert status == 0, said
    assert_same(place, wanted)


def newest(place: Path) -> Path:
    found, _ = checkpoint.latest(place / "runs/test/pretrain/checkpoints")
    assert found is not None
    return found


def test_stopped_out_of_room_and_damaged_on_the_way(tmp_path: Path, wanted: Path) -> None:
    """One run that is asked to stop (130, saved), cannot write its next checkpoint (2, in words, the one before still good),
    is asked to stop the other way, and finds its newest checkpoint cut off (a notice, and on from the one before)."""
    place = write_recipe(tmp_path)
    assert signalled(place, between_checkpoints(place), signal.SIGINT) == 130
    first = newest(place)
    assert first.name == f"step-{steps(place):08}"

    status, said = finish(place, limit=max(path.stat().st_size for path in first.rglob("*")) - 1000)
    assert status == 2
    assert "空き容量が足りません" in said and "Traceback" not in said
    assert newest(place) == first
    assert not list(first.parent.glob(".*"))

    later = int(first.name[5:]) + 3
    assert signalled(place, lambda: steps(place) >= later and between_checkpoints(place)(), signal.SIGTERM) == 130
    older, last = sorted(first.parent.iterdir())
    assert last.name == f"step-{steps(place):08}"
    os.truncate(last / "state.safetensors", 1000)

    status, said = finish(place)
    assert status == 0, said
    assert f"途中保存 {last.name} は壊れているので、一つ前を使います" in said
    assert f"{int(older.name[5:])} ステップ目の続きから再開" in said
    assert_same(place, wanted)
