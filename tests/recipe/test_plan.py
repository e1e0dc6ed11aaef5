"""`tsuzuri plan`: what it counts is what the run then has, and the probe is a real step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from place import ROOT, SMALL

from tsuzuri.commands import cli
from tsuzuri.model.transformer import Transformer
from tsuzuri.recipe import plan as plan_module
from tsuzuri.recipe import recipe as recipes
from tsuzuri.recipe.plan import Plan, describe, load, plan
from tsuzuri.recipe.stages import sft
from tsuzuri.text import fast

TINY = ROOT / "recipes/tiny.yaml"
FEW = ["size=2", "tokenizer.vocab_size=600", "pretrain.batch=2", "pretrain.length=64", "sft.length=64", "watts=30", "pretrain.steps=10"]


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan(recipes.read(TINY, FEW))


def test_parameters_and_memory_are_counted_from_the_shape(planned: Plan) -> None:
    settings = recipes.read(TINY, FEW).sections["pretrain"]
    model = Transformer(settings.model.shape(600, settings.length))
    count = sum(weight.numel() for weight in model.parameters())
    assert planned.parameters == count == sum(planned.by_component.values())
    narrow = settings.precision == "bfloat16"  # as this machine has it
    assert planned.memory["weights"] == planned.memory["gradients"] == (2 if narrow else 4) * count
    assert planned.memory["masters"] == (4 if narrow else 0) * count
    assert planned.memory["moments"] == 8 * count


def test_time_energy_and_money_follow_from_the_probe(planned: Plan) -> None:
    stage = next(stage for stage in planned.stages if stage.stage == "pretrain")
    assert stage.seconds and stage.seconds > 0
    assert planned.watts == 30
    assert planned.kwh == pytest.approx(30 * planned.seconds / 3.6e6)
    assert planned.yen == pytest.approx(31 * planned.kwh)
    assert stage.flops and stage.flops > 6 * planned.parameters * 10 * 2 * 64


def test_twice_the_steps_cost_twice(planned: Plan) -> None:
    twice = plan(recipes.read(TINY, [*FEW, "pretrain.steps=20"]))
    assert twice.stages[0].flops == 2 * (planned.stages[0].flops or 0)


def test_what_does_not_fit_into_the_minutes_is_left_out_in_proportion(planned: Plan) -> None:
    """Half the time is half the steps, half the epochs and half the text, to a twentieth; more time than needed changes nothing."""
    recipe = recipes.read(TINY, [*FEW, "pretrain.steps=1000", f"minutes={planned.seconds * 1000 / 60}"])
    assert plan(recipe).share == 1
    assert (plan_module._share(1, 120), plan_module._share(1, 90), plan_module._share(1, 1e9)) == (0.5, 0.65, 0.05)
    assert plan_module._share(None, 1e9) == plan_module._share(2, 120) == 1
    half, whole = recipe.shortened(0.5), recipe
    for name, field in (("pretrain", "steps"), ("pretrain", "train_tokens"), ("sft", "epochs")):
        assert getattr(half.sections[name], field) == getattr(whole.sections[name], field) / 2 == half.values[name][field]
    assert half.sections["corpus"] == whole.sections["corpus"] and half.values["minutes"] == whole.values["minutes"]


def test_a_run_is_as_long_as_its_plan_says_and_goes_on_so(tmp_path: Path) -> None:
    """`minutes` too few for 400 steps: the run trains as many as planned, says so, and the same command finds all done."""
    (tmp_path / "sample").symlink_to(ROOT / "sample")
    few = [setting for setting in SMALL if "pretrain.steps" not in setting]
    command = [sys.executable, "-m", "tsuzuri", "run", str(TINY), *few, "pretrain.steps=400", "minutes=0.05", f"out={tmp_path}/run"]
    first, again = (
        subprocess.run([*command, "--until", "pretrain", "--json"], cwd=tmp_path, capture_output=True, text=True) for _ in range(2)
    )
    assert first.returncode == again.returncode == 0, first.stderr
    planned = json.loads((tmp_path / "run/plan.json").read_text(encoding="utf-8"))["plan"]
    assert planned["share"] < 1 and "minutes に収まるよう" in first.stderr
    steps = planned["stages"][0]["steps"]
    assert steps == round(400 * planned["share"]) == json.loads(first.stdout)["pretrain"]["steps"]
    assert f"steps: {steps}\n" in (tmp_path / "run/recipe.yaml").read_text(encoding="utf-8")
    assert "pretrain：済んでいます" in again.stderr
    assert not (tmp_path / "run/report.md").exists(), "the report is of whole runs"


def test_epochs_of_conversations_are_guessed_from_their_characters(planned: Plan, life: Path) -> None:
    """With a vocabulary of 1,000 there are up to half as many tokens again as with the 4,096 the guess is made for."""
    settings = recipes.read(TINY).sections["sft"]
    tokenizer = fast.load(life / "runs/tiny/model")
    tokens = sum(len(example.ids) for example in sft.examples(settings, tokenizer)[0])
    assert 1.0 < tokens / settings.length / sft.expected_rows(settings) < 1.6
    stage = next(stage for stage in planned.stages if stage.stage == "sft")
    assert stage.about and stage.steps and stage.seconds and "約" in describe(planned)


def test_the_plan_is_read_back_for_the_same_recipe_only(planned: Plan, tmp_path: Path) -> None:
    recipe = recipes.read(TINY, FEW)
    (tmp_path / "plan.json").write_text(json.dumps({"recipe": recipe.values, "plan": planned.as_json()}), encoding="utf-8")
    assert load(tmp_path / "plan.json", recipe) == planned
    assert load(tmp_path / "plan.json", recipes.read(TINY, [*FEW, "seed=2"])) is None


def test_the_verb_prints_a_table_or_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sample").symlink_to(ROOT / "sample")
    monkeypatch.chdir(tmp_path)
    for arguments, check in (([], "パラメータ"), (["--json"], '"parameters"')):
        done = CliRunner().invoke(cli, ["plan", str(TINY), *FEW, *arguments])
        assert done.exit_code == 0 and check in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["sample"], "a plan writes nothing"


def test_a_person_reads_every_part(planned: Plan) -> None:
    text = describe(planned)
    for word in ("パラメータ", "メモリ", "ディスク", "pretrain", "sft", "MFU", "kWh", "円"):
        assert word in text
