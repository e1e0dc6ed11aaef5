"""`tsuzuri doctor` and `tsuzuri quantize`, and `--quantize` of the verbs that open a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

import tsuzuri
from tsuzuri.chat import template
from tsuzuri.commands import cli
from tsuzuri.errors import ConfigError, InputError
from tsuzuri.model import weights
from tsuzuri.model.adapt import quantize
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.native import library
from tsuzuri.text import fast

SAMPLE = Path(__file__).parent.parent / "data" / "ryoriten.txt"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tokenizer = fast.train("bpe", [SAMPLE.read_text(encoding="utf-8")], 600)
    shape = Shape(
        vocab_size=600, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=80, max_position_embeddings=512
    )
    model, generator = Transformer(shape), torch.Generator().manual_seed(3)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1, generator=generator)
    weights.save(model, path)
    tokenizer.save(path)
    template.save(path)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(each) for each in arguments])


def test_the_doctor_says_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    found = json.loads(run("doctor", "--json").output)
    assert found["torch"] == torch.__version__ and found["cpu"]["cores"] >= 1 and found["bytes"]["free_disk"] > 0
    loaded = library.load()
    if isinstance(loaded, library.Library):
        assert found["native"] == {"used": loaded.variant, "runnable": list(loaded.variants)}
        assert loaded.variant in run("doctor").output
    monkeypatch.setenv(library.VARIABLE, "off")
    assert json.loads(run("doctor", "--json").output)["native"]["used"] is None
    assert "TSUZURI_NATIVE=off" in run("doctor").output


@pytest.mark.parametrize("calibrated", [False, True])
def test_quantised_saved_and_opened(directory: Path, tmp_path: Path, calibrated: bool) -> None:
    out = tmp_path / "narrow"
    more = ["--calibrate", SAMPLE] if calibrated else []
    result = run("quantize", directory, out, "--form", "q4_0", "--json", *more)
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    assert told["kept"] == [f"blocks.{i}.feedforward.down.weight" for i in (0, 1)]
    assert told["bytes_after"] < told["bytes_before"] / 3
    assert bool(told["scaled"]) == calibrated
    opened, plain = tsuzuri.load(out), tsuzuri.load(directory)
    assert quantize.form_of(opened.model) == "q4_0" and "q4_0" in repr(opened)
    ids = opened.tokenizer.encode("二人の若い紳士が")
    assert ids == plain.tokenizer.encode("二人の若い紳士が")
    difference = (opened.logits(ids) - plain.logits(ids)).std() / plain.logits(ids).std()
    assert 0 < float(difference) < 0.5
    assert "down.weight" in run("quantize", directory, tmp_path / "again").output


def test_quantised_on_loading(directory: Path) -> None:
    """The verbs' --quantize, and the same from Python: with the library or without, nearly the same words."""
    plain, narrow = (
        json.loads(run("next", "二人の", "--model", directory, "--json", *more).output) for more in ([], ["--quantize", "q8_0"])
    )
    assert plain != narrow and {row["id"] for row in plain[:3]} & {row["id"] for row in narrow[:3]}
    model = tsuzuri.load(directory, quantize="q8_0")
    assert [row.id for row in model.next("二人の", k=10)] == [row["id"] for row in narrow]


def test_without_the_library_it_is_the_same_model(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = list(range(100, 140))
    for form, noise in ((None, 1e-5), ("q8_0", 0.05), ("q4_0", 0.05), ("nf4", 1e-5)):
        native = tsuzuri.load(directory, quantize=form)
        with monkeypatch.context() as patched:
            patched.setenv(library.VARIABLE, "off")
            plain = tsuzuri.load(directory, quantize=form)
        assert plain.engine.model is plain.model
        wanted = plain.logits(ids)
        assert float((native.logits(ids) - wanted).std() / wanted.std()) < noise
        assert abs(native.score("二人の若い紳士が")[0] - plain.score("二人の若い紳士が")[0]) < 1


def test_refusals(directory: Path, tmp_path: Path) -> None:
    run("quantize", directory, tmp_path / "narrow")
    with pytest.raises(ConfigError, match="q8_0"):
        tsuzuri.load(tmp_path / "narrow", quantize="q4_0")
    assert quantize.form_of(tsuzuri.load(tmp_path / "narrow", quantize="q8_0").model) == "q8_0"
    assert isinstance(run("quantize", tmp_path / "narrow", tmp_path / "twice").exception, ConfigError)
    with pytest.raises(ConfigError, match="q4_0"):
        tsuzuri.load(directory, quantize="q4_k")
    (tmp_path / "empty.txt").write_text("")
    assert isinstance(run("quantize", directory, tmp_path / "x", "--calibrate", tmp_path / "empty.txt").exception, InputError)
    assert not (tmp_path / "x").exists()
