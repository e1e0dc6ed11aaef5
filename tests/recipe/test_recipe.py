"""A recipe as values: the dial derives, what is written wins, and what cannot be is refused by name before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tsuzuri import device
from tsuzuri.config import to_yaml
from tsuzuri.errors import ConfigError, TsuzuriError
from tsuzuri.model.transformer import Transformer
from tsuzuri.recipe.recipe import Recipe, derive, read, resolve

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
TINY = next(path for path in RECIPES if path.stem == "tiny")
LEAST: dict[str, Any] = {
    "name": "試し",
    "size": 4,
    "stages": ["corpus", "tokenizer", "pretrain", "sft"],
    "corpus": {"inputs": ["sample/pretrain"]},
    "pretrain": {"steps": 10},
    "sft": {"inputs": ["sample/chat"], "epochs": 1},
}


def changed(**sections: Any) -> dict[str, Any]:
    """`LEAST` with some sections' keys changed; a value that is no mapping replaces."""
    return {**LEAST, **{key: {**LEAST.get(key, {}), **value} if isinstance(value, dict) else value for key, value in sections.items()}}


def parameters(recipe: Recipe) -> int:
    """Of the blocks: what the dial turns."""
    pretrain = recipe.sections["pretrain"]
    shape = pretrain.model.shape(recipe.sections["tokenizer"].vocab_size, pretrain.length)
    return sum(weight.numel() for weight in Transformer(shape, device="meta").blocks.parameters())


# ── the dial


@pytest.mark.parametrize("size", [1, 4, 12, 128])
def test_the_dial_turns_depth_width_heads_and_learning_rate(size: int) -> None:
    pretrain = resolve(changed(size=size)).sections["pretrain"]
    assert (pretrain.model.num_hidden_layers, pretrain.model.num_attention_heads, pretrain.model.hidden_size) == (size, size, 64 * size)
    assert abs(pretrain.model.intermediate_size - pretrain.model.hidden_size * 8 / 3) <= 32
    assert pretrain.learning_rate == pytest.approx(resolve(LEAST).sections["pretrain"].learning_rate * (4 / size) ** 0.5, rel=1e-3)


@pytest.mark.parametrize(("size", "millions"), [(4, "3.2"), (6, "10.6"), (12, "85")])
def test_the_dial_gives_as_many_parameters_as_it_says(size: int, millions: str) -> None:
    """The numbers of `derive`'s docstring, which people choose by: without embedding and head, to the digits given."""
    assert f"{size}: {millions} M" in " ".join((derive.__doc__ or "").split())
    assert parameters(resolve(changed(size=size))) / 1e6 == pytest.approx(float(millions), rel=0.01)


def test_the_seed_reaches_the_stages_but_not_the_corpus() -> None:
    """Another seed is another start, order and draw on the same text; a seed of a stage's own wins."""
    seeds = [{name: getattr(section, "seed", None) for name, section in resolve(changed(seed=seed)).sections.items()} for seed in (1, 9)]
    assert seeds[0] == {"corpus": 0, "tokenizer": None, "pretrain": 1, "sft": 2}
    assert seeds[1] == {"corpus": 0, "tokenizer": None, "pretrain": 9, "sft": 10}
    assert resolve(changed(seed=9, pretrain={"seed": 4})).sections["pretrain"].seed == 4


def test_the_precision_that_the_machine_decides_is_written_down() -> None:
    recipe = resolve(changed(pretrain={"precision": "auto"}, sft={"precision": "float64"}))
    chosen = str(device.dtype("auto")).removeprefix("torch.")
    assert recipe.sections["pretrain"].precision == recipe.values["pretrain"]["precision"] == chosen
    assert recipe.values["sft"]["precision"] == "float64"


def test_what_the_recipe_says_wins_over_the_dial_key_by_key() -> None:
    pretrain = resolve(changed(pretrain={"learning_rate": 0.5, "model": {"hidden_size": 128}})).sections["pretrain"]
    assert pretrain.learning_rate == 0.5
    assert (pretrain.model.hidden_size, pretrain.model.num_hidden_layers) == (128, 4)


def test_without_the_dial_the_shape_must_be_written() -> None:
    with pytest.raises(ConfigError, match=r"pretrain\.model"):
        resolve(changed(size=None))
    model = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    assert resolve(changed(size=None, pretrain={"model": model})).sections["pretrain"].model.hidden_size == 32


def test_the_resolved_values_say_everything_and_give_the_same_recipe() -> None:
    """What is saved beside a run reproduces it, though the dial may turn otherwise in a later version."""
    recipe = resolve(LEAST)
    again = resolve(yaml.safe_load(to_yaml(recipe.values)))
    assert (again.head, again.sections, again.values) == (recipe.head, recipe.sections, recipe.values)
    assert recipe.values["pretrain"]["model"]["hidden_size"] == 256
    assert recipe.values["tokenizer"]["vocab_size"] == recipe.sections["tokenizer"].vocab_size


def test_the_place_of_a_run() -> None:
    assert resolve(LEAST).out == Path("runs/試し")
    assert resolve({**LEAST, "out": "elsewhere"}).out == Path("elsewhere")


# ── the recipes we ship


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_we_ship_resolves(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parents[1])
    recipe = read(path)
    assert recipe.head.name == path.stem
    assert list(recipe.sections) == recipe.head.stages


def test_overrides_win_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RECIPES[0].parents[1])
    recipe = read(TINY, ["pretrain.learning_rate=3e-4", "size=6", "pretrain.model.num_hidden_layers=2", "seed=9"])
    pretrain = recipe.sections["pretrain"]
    assert (pretrain.learning_rate, pretrain.model.hidden_size, pretrain.model.num_hidden_layers) == (3e-4, 384, 2)
    assert recipe.head.seed == 9


# ── what cannot be

UNKNOWN = [
    (changed(pretrian={"steps": 1}), ["「pretrian」", "「pretrain」"]),
    (changed(sed=3), ["「sed」", "「seed」"]),
    (changed(pretrain={"stesp": 1}), ["「pretrain.stesp」", "「steps」"]),
    (changed(pretrain={"model": {"hiden_size": 1}}), ["「pretrain.model.hiden_size」", "「hidden_size」"]),
    (changed(stages=["corpus", "tokeniser"]), ["「tokeniser」", "「tokenizer」"]),
    (changed(stages=["corpus", "tokenizer", "pretrain"]), ["「sft」"]),
    (changed(pretrain={"model": {"position": "rotory"}}), ["「rotory」", "「rotary」"]),
    (changed(pretrain={"model": {"norm": "gated"}}), ["「gated」", "rms_norm"]),
    (changed(pretrain={"model": {"family": "lama"}}), ["「lama」", "「llama」"]),
    (changed(pretrain={"optimizer": "mouon"}), ["「pretrain.optimizer」", "「muon」"]),
    (changed(pretrain={"schedule": "linear"}), ["「pretrain.schedule」", "wsd"]),
    (changed(pretrain={"precision": "float16"}), ["float16", "bfloat16"]),
    (changed(tokenizer={"kind": "bep"}), ["「bep」", "「bpe」"]),
    (changed(pretrain=3), ["pretrain"]),
    (changed(pretrain=0), ["pretrain"]),
    (changed(pretrain={"model": 3}), ["pretrain.model"]),
    (changed(name=3), ["「name」", "文字列"]),
    (changed(stages="corpus"), ["「stages」", "並び"]),
    (changed(seed="a"), ["「seed」", "整数"]),
]
IMPOSSIBLE = [
    (changed(size=0), ["size"]),
    (changed(size=129), ["size", "129"]),
    (changed(stages=[]), ["stages", "空"]),
    (changed(pretrain={"model": {"num_attention_heads": 3}}), ["num_attention_heads", "割り切れません"]),
    (changed(pretrain={"model": {"num_key_value_heads": 3}}), ["num_key_value_heads", "割り切れません"]),
    (changed(pretrain={"model": {"head_dim": 5}}), ["head_dim", "偶数"]),
    (changed(pretrain={"model": {"position": "learned"}}), ["position", "learned", "llama"]),
    (changed(pretrain={"model": {"family": "ngram", "num_attention_heads": 4}}), ["num_attention_heads"]),
    (changed(tokenizer={"vocab_size": 100}), ["100", "260"]),
    (changed(sft={"length": 512}), ["512", "256"]),
    (changed(pretrain={"epochs": 2.0}), ["steps", "epochs"]),
    (changed(pretrain={"steps": None}), ["steps", "epochs"]),
    (changed(pretrain={"steps": 0}), ["steps"]),
    (changed(pretrain={"batch": -1}), ["batch"]),
    (changed(pretrain={"length": 0}), ["length が 0"]),
    (changed(pretrain={"learning_rate": -1.0}), ["learning_rate"]),
    (changed(pretrain={"learning_rate": float("nan")}), ["learning_rate"]),
    (changed(pretrain={"warmup": 0.7, "decay": 0.7}), ["warmup", "decay"]),
    (changed(sft={"validation_fraction": 2.0}), ["validation_fraction"]),
    (changed(stages=["corpus", "corpus", "tokenizer", "pretrain", "sft"]), ["corpus"]),
    (changed(stages=["corpus", "pretrain", "tokenizer", "sft"]), ["tokenizer"]),
]


@pytest.mark.parametrize(("values", "named"), [*UNKNOWN, *IMPOSSIBLE], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_what_cannot_be_is_refused_by_name(values: dict[str, Any], named: list[str]) -> None:
    resolve(LEAST)
    with pytest.raises(TsuzuriError) as caught:
        resolve(values)
    for words in named:
        assert words in str(caught.value)
