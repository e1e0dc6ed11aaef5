"""`tsuzuri bench`: numbers that follow from each other, doubts that are told, and an end when it is asked for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from tsuzuri.chat import template
from tsuzuri.commands import bench, cli
from tsuzuri.errors import ConfigError, MissingError
from tsuzuri.evals.speed import Spread
from tsuzuri.model import weights
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.native import library
from tsuzuri.text import fast

SAMPLE = Path(__file__).parent.parent / "data" / "ryoriten.txt"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "model"
    path.mkdir()
    tokenizer = fast.train("bpe", [SAMPLE.read_text(encoding="utf-8")], 600)
    shape = Shape(
        vocab_size=600, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, max_position_embeddings=512
    )
    weights.save(Transformer(shape).initialise(1), path)
    tokenizer.save(path)
    template.save(path)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["bench", *(str(each) for each in arguments)])


@pytest.fixture(scope="module")
def measured(directory: Path) -> tuple[dict[str, Any], str]:
    """The result of one run, and what it said meanwhile."""
    threads = torch.get_num_threads()
    try:
        result = run("--model", directory, "--quantize", "q8_0", "--threads", "1", "--rounds", "2", "--watts", "36", "--json")
    finally:
        torch.set_num_threads(threads)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), result.stderr


def test_the_numbers_follow_from_each_other(measured: tuple[dict[str, Any], str], directory: Path) -> None:
    found, told = measured
    assert set(found) == {
        "machine", "threads", "device", "model", "lengths", "rounds", "bounds", "speeds", "reached", "others", "warnings", "energy",
    }  # fmt: skip
    assert (found["threads"], found["rounds"], found["model"]["form"], found["model"]["name"]) == (1, 2, "q8_0", directory.name)
    assert found["model"]["native"] == isinstance(library.load(), library.Library)
    assert set(found["speeds"]) == set(bench.NAMES) and set(found["bounds"]) == {*bench.BOUNDS, "cache_bytes"}
    for name, spread in found["speeds"].items():
        assert len(spread["samples"]) == 2 and 0 < min(spread["samples"]) <= spread["low"] <= spread["median"] <= spread["high"], name
    for name in bench.BOUNDS:
        assert found["bounds"][name] == max(found["speeds"][name]["samples"])
    speeds = {name: spread["median"] for name, spread in found["speeds"].items()}
    read, products = found["bounds"]["read_bytes_per_second"], max(found["bounds"][f"{kind}_flops"] for kind in ("float32", "bfloat16"))
    model, reached = found["model"], found["reached"]
    assert reached["decode_mbu"] == pytest.approx(speeds["decode_tokens_per_second"] * model["token_bytes"] / read)
    assert reached["batch_mbu"] == pytest.approx(speeds["batch_tokens_per_second"] / 16 * model["token_bytes"] / read)
    assert reached["batch_mfu"] == pytest.approx(speeds["batch_tokens_per_second"] * model["token_flops"] / products)
    assert reached["prefill_mfu"] == pytest.approx(speeds["prefill_tokens_per_second"] * model["prompt_token_flops"] / products)
    energy = found["energy"]
    assert energy["served"] == directory.parent.name, "as it is served, not as its directory"
    # 36 W for a second are 36 J; a million tokens of a joule each are 1 / 3.6 kWh
    assert energy["output_kwh"] == pytest.approx(10 / speeds["decode_tokens_per_second"])
    assert energy["input_kwh"] == pytest.approx(10 / speeds["prefill_tokens_per_second"])
    assert model["parameters"] == sum(weight.numel() for weight in weights.load(directory).parameters())
    assert found["machine"]["torch"] == torch.__version__ and found["machine"]["cpu"]["cores"] >= 1
    assert [line for line in told.splitlines() if "回" in line or "慣らし" in line] == ["慣らし", "2 回のうち 1 回目", "2 回のうち 2 回目"]


def test_a_person_is_shown_the_same(
    measured: tuple[dict[str, Any], str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = measured
    monkeypatch.setenv("COLUMNS", "120")
    bench._show({**found, "warnings": ["きょうは雨です。"]})
    shown = capsys.readouterr().out
    assert f"{found['speeds']['decode_tokens_per_second']['median']:,.0f} tok/s" in shown
    assert f"{found['reached']['decode_mbu']:.0%}" in shown and f"{found['bounds']['read_bytes_per_second'] / 1e9:,.0f} GB/s" in shown
    assert f"{found['speeds']['first_token_seconds']['median'] * 1e3:,.1f} ms" in shown
    assert "注意: きょうは雨です。" in shown and "スレッド 1" in shown
    assert f"currency: kWh, input: {found['energy']['input_kwh']:.4g}, cached: 0" in shown, "as a table of prices takes it"


def test_nobody_is_charged_for_a_guess(measured: tuple[dict[str, Any], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tsuzuri.recipe import measure

    monkeypatch.setattr(measure, "ENERGY", tmp_path / "none")
    assert bench._energy(measured[0], None, tmp_path) is None
    assert "--watts" in bench._told_energy({**measured[0], "energy": None})
    counter = tmp_path / "energy"
    monkeypatch.setattr(measure, "ENERGY", counter)
    told = iter(["1000000", "9000000"])
    monkeypatch.setattr(measure, "_energy", lambda: int(next(told)))
    found = bench._energy(measured[0], None, tmp_path)
    assert found is not None and "RAPL" in found["how"]


QUIET: dict[str, Any] = {
    "machine": {"cpu": {"cores": 2}}, "others": {"load_before": 0.1, "cores": 0.02}, "bounds": {"cache_bytes": 1000}, "model": {"token_bytes": 5000},
}  # fmt: skip
STEADY = Spread((100.0, 101.0, 102.0))


@pytest.mark.parametrize(
    ("change", "spread", "told"),
    [
        ({}, STEADY, []),
        ({"others": {"load_before": None, "cores": None}, "bounds": {"cache_bytes": None}}, STEADY, []),
        ({"others": {"load_before": 1.5, "cores": 0.02}}, STEADY, ["負荷 1.5"]),
        ({"others": {"load_before": 0.1, "cores": 0.5}}, STEADY, ["平均 0.5 コア"]),
        ({}, Spread((100.0, 150.0, 200.0)), ["一つの生成"]),
        ({"model": {"token_bytes": 500}}, STEADY, ["キャッシュ"]),
    ],
)
def test_doubts_are_told(change: dict[str, Any], spread: Spread, told: list[str]) -> None:
    found = [
        str(words)
        for words in bench._warnings({**QUIET, **change}, {"decode_tokens_per_second": spread, "float32_flops": Spread((1.0, 9.0))})
    ]
    assert len(found) == len(told) and all(part in line for part, line in zip(told, found, strict=True))


def test_an_interrupt_ends_it_at_once(directory: Path) -> None:
    line = [sys.executable, "-m", "tsuzuri", "bench", "--model", str(directory), "--rounds", "1000"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TSUZURI_LANG": "ja"})
    assert process.stderr is not None
    assert process.stderr.readline().strip() == "慣らし"
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "中断しました。" in told and "Traceback" not in told


def test_refusals(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(run("--model", tmp_path / "nowhere").exception, MissingError)
    monkeypatch.chdir(tmp_path)
    assert isinstance(run().exception, MissingError)
    assert run("--model", directory, "--rounds", "1").exit_code == 2
    assert run("--model", directory, "--quantize", "nf4").exit_code == 2
    assert isinstance(run("--model", directory, "--threads", "0").exception, ConfigError)
