"""Two processes (FSDP2 over gloo, started by torchrun) train as one does, and go on from each other's checkpoints."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from place import ROOT

from tsuzuri.model import weights
from tsuzuri.text.corpus.read import read
from tsuzuri.train import checkpoint

SAMPLE = ROOT / "sample/pretrain/technical.jsonl.zst"
SCRIPT = Path(__file__).with_name("parallel.py")
CASES: dict[str, dict[str, Any]] = {
    "adamw": {"precision": "float32", "optimizer": "adamw"},
    "muon": {"precision": "float64", "optimizer": "muon"},  # in float32 it turns matrices in bfloat16, which no tolerance can compare
    "tied": {"precision": "float64", "optimizer": "muon", "tied": True},
    "parts": {"precision": "float32", "optimizer": "adamw", "micro_batch": 1},
    "clipped": {"precision": "float32", "optimizer": "adamw", "clip": 0.01},
}
TOLERANCE = {"float32": 1e-5, "float64": 1e-11}


def entry(directory: Path, case: str, stop: int | None = None) -> dict[str, Any]:
    return {"directory": str(directory / case), "stop": stop, "choices": CASES[case]}


def alone(runs: list[dict[str, Any]]) -> None:
    runpy.run_path(str(SCRIPT))["main"](json.dumps(runs))


def together(runs: list[dict[str, Any]]) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT), json.dumps(runs)]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`one` and `two`: whole runs by so many processes. `handed-…`: stopped in the middle by one kind, finished by the other."""
    path = tmp_path_factory.mktemp("shard")
    one, two, to_two, to_one = (path / name for name in ("one", "two", "handed-to-two", "handed-to-one"))
    alone([entry(one, case) for case in CASES] + [entry(to_two, case, stop=3) for case in CASES])
    together(
        [entry(two, case) for case in CASES] + [entry(to_two, case) for case in CASES] + [entry(to_one, case, stop=3) for case in CASES]
    )
    stopped = {case: checkpoint.latest(to_one / case / "checkpoints")[0] for case in CASES}
    assert {case: found and found.name for case, found in stopped.items()} == dict.fromkeys(CASES, "step-00000003")
    alone([entry(to_one, case) for case in CASES])
    return path


def journal(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("how", ["two", "handed-to-two", "handed-to-one"])
def test_losses_norms_and_scores_are_those_of_one_process(place: Path, how: str, case: str) -> None:
    wanted, found = journal(place / "one" / case), journal(place / how / case)
    assert [record["step"] for record in found] == [1, 2, 3, 4, 5, 6]
    tolerance = TOLERANCE[CASES[case]["precision"]]
    for mine, theirs in zip(found, wanted, strict=True):
        assert set(mine) == set(theirs)
        for name in {"loss", "gradient_norm", "bits_per_byte", "tokens", "factor"} & set(theirs):
            assert mine[name] == pytest.approx(theirs[name], rel=tolerance), (mine["step"], name)
    assert wanted[-1]["loss"] < wanted[0]["loss"] - 0.01, "it did not learn"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("how", ["two", "handed-to-two", "handed-to-one"])
def test_the_last_checkpoint_is_that_of_one_process(place: Path, how: str, case: str) -> None:
    """Whole tensors under their own names: weights that a single process loads, and the optimizer's state."""
    found, wanted = (checkpoint.latest(place / kind / case / "checkpoints")[0] for kind in (how, "one"))
    assert found is not None and wanted is not None
    assert found.name == wanted.name == "step-00000006"
    tolerance = TOLERANCE[CASES[case]["precision"]]
    pairs = [(weights.load(path / "model").state_dict(), checkpoint.load(path).tensors) for path in (found, wanted)]
    for mine, theirs in zip(*pairs, strict=True):
        assert set(mine) == set(theirs)
        for name, value in theirs.items():
            if not name.startswith("rng."):
                assert mine[name].dtype == value.dtype and mine[name].shape == value.shape
                assert (mine[name] - value).norm() <= 10 * tolerance * value.norm(), name


RECIPE = """\
name: test
size: 1
stages: [corpus, tokenizer, pretrain]
minutes: 5
corpus: {inputs: [texts.jsonl], validation_fraction: 0.1}
tokenizer: {vocab_size: 400}
pretrain: {start: bigram, precision: float32, optimizer: adamw, steps: 4, batch: 4, length: 64, train_tokens: 20000}
"""


def test_the_command_itself_under_torchrun(tmp_path: Path) -> None:
    """`torchrun -m tsuzuri run`: plan, all stages and the report, with the losses of the command alone."""
    texts = [json.dumps({"text": document.text}, ensure_ascii=False) for document in islice(read([SAMPLE]), 40)]
    losses = {}
    for name, launcher in (("one", []), ("two", ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"])):
        place = tmp_path / name
        place.mkdir()
        (place / "texts.jsonl").write_text("\n".join(texts), encoding="utf-8")
        (place / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
        command = [sys.executable, *launcher, "-m", "tsuzuri", "run", "recipe.yaml"]
        done = subprocess.run(command, cwd=place, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("# test") == 1, "one process reports"
        losses[name] = [record["loss"] for record in journal(place / "runs/test/pretrain")]
    assert len(losses["one"]) == 4
    assert losses["two"] == pytest.approx(losses["one"], rel=1e-5)
