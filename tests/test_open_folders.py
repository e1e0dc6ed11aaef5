"""Every file of every open folder keeps the contract its folder states: a new file is tested without being told."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
import torch

from tsuzuri.errors import ConfigError
from tsuzuri.folder import find, names
from tsuzuri.guard.finding import look
from tsuzuri.model import weights
from tsuzuri.model.parts._place import Place
from tsuzuri.model.past import Causal
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.serve.app import doors
from tsuzuri.text import fast
from tsuzuri.text.kinds import KINDS

CHECKS, COMMANDS, FAMILIES, OBJECTIVES, PARTS, PROVIDERS, ROUTES, STAGES = OPEN = (
    "tsuzuri.guard.checks",
    "tsuzuri.commands",
    "tsuzuri.model.families",
    "tsuzuri.train.objectives",
    "tsuzuri.model.parts",
    "tsuzuri.chat.providers",
    "tsuzuri.serve.routes",
    "tsuzuri.recipe.stages",
)
SHAPE = Shape(
    vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=32,
    num_key_value_heads=1, norm_eps=1e-4, rope_theta=500.0, attention_bias=True, mlp_bias=True,
)  # fmt: skip


def first_line(package: str, name: str) -> str:
    """Of a file's docstring, without importing it."""
    source = (Path(find(package, name).__file__ or "")).read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def is_settings(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


# ── all of them


@pytest.mark.parametrize("package", OPEN)
def test_a_wrong_name_is_answered_with_the_right_ones(package: str) -> None:
    known = names(package)
    assert known
    with pytest.raises(ConfigError) as caught:
        find(package, f"{known[0]}x")
    assert "、".join(known) in str(caught.value)
    assert f"「{known[0]}」" in str(caught.value)


@pytest.mark.parametrize(("package", "name"), [(package, name) for package in OPEN for name in names(package)])
def test_every_file_says_what_it_is(package: str, name: str) -> None:
    line = first_line(package, name)
    assert 20 <= len(line) <= 160
    if package in (COMMANDS, ROUTES, STAGES):  # shown to people, each in their language
        ja, _, en = line.partition(" / ")
        assert re.search("[ぁ-ん]", ja) and ja.endswith("。")
        assert re.fullmatch("[ -~–…]+", en) and en.endswith("."), en


# ── model/parts

POSITIONS = [torch.arange(6).expand(3, 6), torch.arange(5)]  # (B, T) in training, (N,) in serving


def of_kind(kind: str) -> list[str]:
    return [name for name in names(PARTS) if kind == find(PARTS, name).KIND]


@pytest.mark.parametrize("name", names(PARTS))
@pytest.mark.parametrize("positions", POSITIONS, ids=["training", "serving"])
def test_every_part_is_called_as_its_kind_says(name: str, positions: torch.Tensor) -> None:
    part = find(PARTS, name)
    x = torch.randn(*positions.shape, SHAPE.hidden_size)
    match part.KIND:
        case "norm":
            assert part.Part(SHAPE.hidden_size, 1e-5)(x).shape == x.shape
        case "feedforward":
            assert part.Part(SHAPE, 1)(x).shape == x.shape
        case "mixer":
            assert part.Part(SHAPE, 1)(x, Place(), Causal(positions)).shape == x.shape
        case "block":
            assert isinstance(part.LAST_NORM, bool)
            assert part.Part(SHAPE, 1)(x, Place(), Causal(positions)).shape == x.shape
        case "head":
            found = part.Part(dataclasses.replace(SHAPE, labels=("a", "b")))(x, torch.randn(20, SHAPE.hidden_size))
            assert found.shape[:-1] == x.shape[:-1]
        case "position":
            place = part.Part(SHAPE)(Causal(positions))
            assert isinstance(place, Place)
            sides = {"add": x.shape, "cos": (*positions.shape, 1, SHAPE.head_size)}
            for field, side in {**sides, "sin": sides["cos"]}.items():
                assert getattr(place, field) is None or tuple(getattr(place, field).shape) == tuple(side)
            if place.bias is not None:
                time, heads = positions.shape[-1], SHAPE.num_attention_heads
                assert place.bias(positions, positions).shape == (*positions.shape[:-1], heads, time, time)
        case kind:
            pytest.fail(f"{kind} is no kind of part")


EVERY = list(itertools.product(*map(of_kind, ("block", "norm", "feedforward", "position"))))


@pytest.mark.parametrize("choice", EVERY, ids="-".join)
def test_every_combination_of_parts_is_a_model(choice: tuple[str, ...]) -> None:
    block, norm, feedforward, position = choice
    shape = dataclasses.replace(SHAPE, block=block, norm=norm, feedforward=feedforward, position=position)
    model = Transformer(shape).initialise(1)
    for positions in POSITIONS:
        logits = model(torch.randint(20, positions.shape), Causal(positions))
        assert logits.shape == (*positions.shape, 20)
        assert logits.isfinite().all()
        assert logits.std() > 0
    logits.square().sum().backward()
    untouched = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert untouched == [], "every weight has a part in the result"


# ── model/families

DECODERS = [name for name in names(FAMILIES) if hasattr(find(FAMILIES, name), "names")]


def test_a_family_is_found_by_the_name_that_others_write_into_config_json() -> None:
    assert {find(FAMILIES, name).MODEL_TYPE.replace("-", "_") for name in names(FAMILIES)} == {*names(FAMILIES)}


@pytest.mark.parametrize("name", names(FAMILIES))
def test_a_family_is_a_decoder_wholly_or_not_at_all(name: str) -> None:
    parts = [function for function in ("shape", "config", "names") if hasattr(find(FAMILIES, name), function)]
    assert len(parts) in (0, 3)
    assert len(DECODERS) >= 2


def usual(family: Any, **choices: Any) -> Any:
    """A small shape of that family."""
    small = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    small |= {"max_position_embeddings": 32, "norm_eps": 1e-4}
    kind = getattr(family, "SHAPE", Shape)
    fields = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in {**small, **family.USUAL, **choices}.items() if name in fields})


@pytest.mark.parametrize("name", DECODERS)
def test_a_family_loses_nothing_and_refuses_what_it_does_not_know(name: str) -> None:
    family = find(FAMILIES, name)
    shape = usual(family)
    config = json.loads(json.dumps(family.config(shape)))
    assert family.config(family.shape(config)) == family.config(shape)
    fused = weights.packed(family, shape)
    table = {**family.names(shape), **{ours: each.theirs for each in fused for ours in each.ours}}
    assert set(table) == {weight for weight, _ in weights.build(family, shape, device="meta").named_parameters()}
    theirs = [*family.names(shape).values(), *(each.theirs for each in fused)]
    assert len(set(theirs)) == len(theirs)
    with pytest.raises(ConfigError, match="a_field_of_tomorrow"):
        family.shape({**config, "a_field_of_tomorrow": 1})


@pytest.mark.parametrize("name", DECODERS)
def test_a_family_takes_apart_what_it_puts_together(name: str) -> None:
    """Packed tensors: join(split(x)) = x to the bit, and what is split has the shapes of our weights."""
    family = find(FAMILIES, name)
    shape = usual(family)
    weight = dict(weights.build(family, shape).named_parameters())
    for each in weights.packed(family, shape):
        parts = [torch.randn(weight[ours].shape) for ours in each.ours]
        again = each.split(each.join(parts))
        assert all(torch.equal(one, other) for one, other in zip(again, parts, strict=True))


@pytest.mark.parametrize("name", DECODERS)
def test_a_family_says_what_it_is(name: str) -> None:
    family = find(FAMILIES, name)
    assert re.search("[ぁ-ん]", family.SPECIAL.ja) and family.SPECIAL.ja.endswith("。") and family.SPECIAL.en.endswith(".")
    assert family.EQUATION and family.PAPER and isinstance(family.PUBLIC, dict)


# ── train/objectives


@pytest.mark.parametrize("name", names(OBJECTIVES))
def test_every_objective_has_settings_rows_batches_and_a_loss(name: str) -> None:
    module = find(OBJECTIVES, name)
    assert is_settings(module.Settings)
    assert module.Settings() == module.Settings(), "its own choices have defaults"
    assert parameters(module.Objective)[0] == "settings"
    assert isinstance(inspect.getattr_static(module.Objective, "rows"), property)
    assert parameters(module.Objective.batch) == ["self", "indices"]
    assert parameters(module.Objective.loss) == ["self", "model", "batch"]


# ── recipe/stages


@pytest.mark.parametrize("name", names(STAGES))
def test_every_stage_says_what_it_needs_takes_and_reads(name: str) -> None:
    module = find(STAGES, name)
    assert set(module.NEEDS) <= set(names(STAGES)) - {name}
    assert is_settings(module.Settings)
    assert parameters(module.inputs) == ["settings"]
    assert parameters(module.run) == ["settings", "context"]
    if hasattr(module, "check"):
        assert parameters(module.check) == ["settings", "before"]


# ── guard/checks


@pytest.mark.parametrize("name", names(CHECKS))
def test_every_check_finds_its_own_examples_and_nothing_in_what_only_looks_like_them(name: str) -> None:
    check = find(CHECKS, name)
    assert re.search("[ぁ-んァ-ヶ一-龠]", check.LABEL.ja) and re.fullmatch("[ -~]+", check.LABEL.en)
    assert isinstance(check.PERSONAL, bool)
    assert len(check.FOUND) >= 2 and len(check.NOT) >= 2
    for text, values in check.FOUND:
        found = look(text, [name])
        assert tuple(one.text for one in found) == tuple(values), text
        for one in found:
            assert one.kind.partition(".")[0] == name
            assert one.text == text[one.start : one.stop]
            assert 0 < one.confidence <= 1
    for text in check.NOT:
        assert look(text, [name]) == [], text


@pytest.mark.parametrize("name", names(CHECKS))
@pytest.mark.parametrize(
    "piece", ["0", "1-", "1 ", "a@", "a.", "市区町村", "東京都港区港町1", "様", "ー", "氏名：", "指示", "ignore ", "( ", "https://a.b/?c="]
)
def test_every_check_takes_time_in_proportion_to_the_text(name: str, piece: str) -> None:
    text = piece * (20_000 // len(piece))
    look(text[:100], [name])  # tables and patterns are made once
    start = time.process_time()
    look(text, [name])
    assert time.process_time() - start < 2, "20,000 characters"


# ── serve/routes (their keys, scopes and errors: tests/serve/test_access.py), chat/providers


@pytest.mark.parametrize("name", names(ROUTES))
def test_every_route_says_its_method_its_paths_and_who_may(name: str) -> None:
    module = find(ROUTES, name)
    assert module.METHOD in ("DELETE", "GET", "PATCH", "POST", "PUT") and all(path.startswith("/") for path in module.PATHS)
    assert parameters(module.answer) == ["call"]
    assert [door.name for door in doors([module])] == [name], "its policy is one"


@pytest.mark.parametrize("name", names(PROVIDERS))
def test_every_provider_makes_a_chat_of_an_address_and_refuses_what_is_none(name: str) -> None:
    module = find(PROVIDERS, name)
    assert parameters(module.chat) == ["address", "model", "key"]
    assert callable(module.chat("http://127.0.0.1:9/v1", "m"))
    with pytest.raises(ConfigError):
        module.chat("nowhere", "m")


# ── text/kinds


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tokenizer_loses_nothing_and_knows_its_name(kind: str) -> None:
    text = (Path(__file__).parent / "data" / "ryoriten.txt").read_text(encoding="utf-8")
    tokenizer = fast.train(kind, text.splitlines(), 400)
    assert tokenizer.kind == kind
    assert tokenizer.decode(tokenizer.encode(text + "𠮷🍜\0")) == text + "𠮷🍜\0"
    with pytest.raises(ConfigError) as caught:
        fast.train(f"{kind}x", [text], 400)
    assert "、".join(KINDS) in str(caught.value)
    assert f"「{kind}」" in str(caught.value)


# ── commands

HELP = """
import json, sys
from click.testing import CliRunner
from tsuzuri.commands import cli

found = {}
def visit(command, line):
    result = CliRunner().invoke(cli, [*line, "--help"])
    heavy = [name for name in ("torch", "rich", "tokenizers", "pyarrow", "transformers", "httpx2", "sqlalchemy", "argon2", "cryptography") if name in sys.modules]
    found[" ".join(line)] = [result.exit_code, result.output, heavy]
    if hasattr(command, "list_commands"):
        for name in command.list_commands(None):
            visit(command.get_command(None, name), [*line, name])
visit(cli, [])
print(json.dumps(found))
"""
INTERNAL = re.compile(r"tsuzuri\.[a-z]|\.py\b|torch|Traceback|\bNone\b|\bself\b|\bnoqa\b|<[a-z]+ object")


@pytest.fixture(scope="module", params=["ja", "en"])
def helps(request: pytest.FixtureRequest) -> tuple[str, dict[str, tuple[int, str, list[str]]]]:
    """The language, and (exit status, help, what heavy had been loaded by then) of every verb: all from one process."""
    environment = {**os.environ, "TSUZURI_LANG": request.param}
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, timeout=60, check=True, env=environment)
    return request.param, json.loads(done.stdout)


@pytest.mark.parametrize("name", names(COMMANDS))
def test_every_verb_is_a_command(name: str) -> None:
    command = find(COMMANDS, name).command
    assert isinstance(command, click.Command)
    assert command.help


def test_help_works_for_every_verb_loads_nothing_heavy_and_names_no_internals(
    helps: tuple[str, dict[str, tuple[int, str, list[str]]]],
) -> None:
    _, found = helps
    assert {line.partition(" ")[0] for line in found} == {"", *names(COMMANDS)}
    for line, (status, shown, heavy) in found.items():
        assert status == 0, line
        assert heavy == [], f"{line} --help"
        assert len(shown) > 100, line
        assert not INTERNAL.search(shown), line


def test_the_list_of_verbs_is_in_the_readers_language(helps: tuple[str, dict[str, tuple[int, str, list[str]]]]) -> None:
    language, found = helps
    shown = re.sub(r"\s+", " ", found[""][1])
    for name in names(COMMANDS):
        ja, _, en = first_line(COMMANDS, name).partition(" / ")
        wanted, other = (ja, en) if language == "ja" else (en, ja)
        assert f"{name} {wanted}"[:40] in shown
        assert other not in shown
