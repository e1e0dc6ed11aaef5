"""`tsuzuri prune`: what is written is an ordinary model with zeros in it, and the loss that is told is the one that is there."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

import tsuzuri
from tsuzuri.chat import template
from tsuzuri.commands import cli
from tsuzuri.errors import ConfigError, InputError, MissingError
from tsuzuri.model import weights
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.text import fast

SAMPLE = Path(__file__).parent.parent / "data" / "ryoriten.txt"
TEXT = "二人の若い紳士が、すっかりイギリスの兵隊のかたちをして、ぴかぴかする鉄砲をかついで、山奥を歩いておりました。"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tokenizer = fast.train("bpe", [SAMPLE.read_text(encoding="utf-8")], 600)
    shape = Shape(
        vocab_size=600, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=90, max_position_embeddings=128
    )
    model, generator = Transformer(shape), torch.Generator().manual_seed(3)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1, generator=generator)
    weights.save(model.bfloat16(), path)
    tokenizer.save(path)
    template.save(path)
    return path


@pytest.fixture
def held(tmp_path: Path) -> Path:
    path = tmp_path / "held.jsonl"
    path.write_text("".join(json.dumps({"text": TEXT + str(n)}) + "\n" for n in range(3)), encoding="utf-8")
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(each) for each in arguments])


@pytest.mark.parametrize("how", [["--sparsity", "0.5"], ["--pattern", "2:4"], ["--sparsity", "0.5", "--scope", "model"]], ids=" ".join)
def test_pruned_written_and_opened(directory: Path, tmp_path: Path, held: Path, how: list[str]) -> None:
    out = tmp_path / "pruned"
    result = run("prune", directory, "--out", out, "--text", held, "--json", *how)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    model, whole = weights.load(out), weights.load(directory)
    zeros = {name: int((weight == 0).sum()) for name, weight in model.named_parameters() if bool((weight == 0).any())}
    assert {name: zeros[name] / model.get_parameter(name).numel() for name in zeros} == told["matrices"]
    assert sum(zeros.values()) == told["zeros"] and told["share"] == pytest.approx(0.5, abs=1e-4)
    assert model.blocks[0].mixer.query.weight.dtype == torch.bfloat16, "stored as it was"
    for name, weight in whole.named_parameters():
        found = model.get_parameter(name)
        assert torch.equal(found, torch.where(found == 0, 0, weight)), "what stays is as it was"
    kept = [f"blocks.{i}.feedforward.down.weight" for i in (0, 1)] if "2:4" in how else []
    assert told["kept"] == kept
    recorded = json.loads((out / "pruning.json").read_text(encoding="utf-8"))
    assert {**recorded, "bits_per_byte": told["bits_per_byte"]} == told
    for path, part in ((directory, "before"), (out, "after")):
        scores = [tsuzuri.load(path, dtype="float32").score(TEXT + str(n)) for n in range(3)]
        bits = sum(nats for nats, _ in scores) / math.log(2) / sum(size for _, size in scores)
        assert told["bits_per_byte"][part] == pytest.approx(bits, rel=1e-6)
    assert told["bits_per_byte"]["difference"] == pytest.approx(told["bits_per_byte"]["after"] - told["bits_per_byte"]["before"])
    assert "3/3" in result.stderr or "3 of 3" in result.stderr


def test_calibrated(directory: Path, tmp_path: Path, held: Path) -> None:
    plain, weighed = tmp_path / "plain", tmp_path / "weighed"
    run("prune", directory, "--out", plain, "--sparsity", "0.5", "--scope", "row")
    result = run("prune", directory, "--out", weighed, "--sparsity", "0.5", "--calibrate", SAMPLE, "--text", held)
    assert result.exit_code == 0, result.output
    assert "14" in result.stdout and "50.0%" in result.stdout and "0.5" not in result.stderr
    told = json.loads((weighed / "pruning.json").read_text(encoding="utf-8"))
    assert (told["calibrated"], told["scope"]) == (14, "row")
    one, other = (weights.load(path).blocks[1].feedforward.down.weight for path in (plain, weighed))
    assert bool(((one == 0).sum(1) == 45).all()) and bool(((other == 0).sum(1) == 45).all())
    assert not torch.equal(one == 0, other == 0)


def test_a_pruned_model_is_quantised_like_any_other(directory: Path, tmp_path: Path) -> None:
    run("prune", directory, "--out", tmp_path / "pruned", "--pattern", "2:4")
    result = run("quantize", tmp_path / "pruned", tmp_path / "narrow", "--json")
    assert result.exit_code == 0, result.output
    weight = tsuzuri.load(tmp_path / "narrow").model.blocks[0].mixer.query.weight
    assert float((weight == 0).float().mean()) >= 0.5
    assert (tmp_path / "narrow" / "pruning.json").is_file()
    assert isinstance(run("prune", tmp_path / "narrow", "--out", tmp_path / "x", "--pattern", "2:4").exception, ConfigError)


def test_an_encoder_is_pruned_but_has_no_bits_per_byte(directory: Path, tmp_path: Path, held: Path) -> None:
    encoder, out = tmp_path / "encoder", tmp_path / "out"
    encoder.mkdir()
    shape = Shape(
        vocab_size=600, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, causal=False, head="masked"
    )
    weights.save(Transformer(shape).initialise(1), encoder, "tsuzuri")
    fast.load(directory).save(encoder)
    half = ["prune", encoder, "--out", out, "--sparsity", "0.5", "--calibrate", SAMPLE]
    assert isinstance(run(*half, "--text", held).exception, ConfigError) and not out.exists()
    assert run(*half).exit_code == 0
    assert weights.load(out).shape == shape


def test_refusals(directory: Path, tmp_path: Path, held: Path) -> None:
    out = tmp_path / "out"
    empty, missing, blank = tmp_path / "empty.txt", tmp_path / "nowhere.txt", tmp_path / "blank.jsonl"
    empty.write_text("")
    blank.write_text('{"text": ""}\n')
    half = ["prune", directory, "--out", out, "--sparsity", "0.5"]
    for more, kind in (
        (["--pattern", "2:4"], ConfigError),
        (["--calibrate", held, "--text", held], ConfigError),
        (["--calibrate", empty], InputError),
        (["--text", empty], InputError),
        (["--text", blank], InputError),
        (["--text", missing], MissingError),
    ):
        assert isinstance(run(*half, *more).exception, kind), more
        assert not out.exists()
    assert isinstance(run("prune", directory, "--out", out).exception, ConfigError)
    assert run("prune", directory, "--out", out, "--sparsity", "1").exit_code == 2
    assert run("prune", directory, "--out", out, "--pattern", "1:4").exit_code == 2
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    result = run("prune", directory, "--out", tmp_path / "full", "--sparsity", "0.5", "--text", held)
    assert isinstance(result.exception, ConfigError) and "3/3" not in result.stderr, "before anything is measured"
