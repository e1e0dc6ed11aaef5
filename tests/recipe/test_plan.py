"""`tsuzuri plan`: what it counts is what the run then has, and the probe is a real step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from place import ROOT

from tsuzuri.commands import cli
from tsuzuri.model.transformer import Transformer
from tsuzuri.recipe import recipe as recipes
from tsuzuri.recipe.plan import Plan, describe, load, plan

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
    assert planned.memory["weights"] == planned.memory["gradients"] == 2 * count
    assert planned.memory["masters"] == 4 * count
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
