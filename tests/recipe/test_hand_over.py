"""An export is read back, compared and refused above its tolerance; what it found is in the card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tsuzuri
from tsuzuri import directory
from tsuzuri.errors import ConfigError, FormatError
from tsuzuri.model import gguf, weights
from tsuzuri.recipe import hand_over

PROMPTS = ("この法律は、", "吾輩は", "京都の")


@pytest.fixture
def model(life: Path) -> Path:
    return life / "runs/tiny/model"


def test_hugging_face_as_it_is(model: Path, tmp_path: Path) -> None:
    handed = hand_over.write(model, tmp_path / "out")
    assert (handed.difference.logits, handed.difference.divergence, handed.difference.transcript) == (0, 0, 32)
    directory.verify(tmp_path / "out")
    assert tsuzuri.load(tmp_path / "out").chat("こんにちは。", temperature=0, max_tokens=5) == tsuzuri.load(model).chat(
        "こんにちは。", temperature=0, max_tokens=5
    )
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert ("SHA-256" in card and "青空文庫" in card) or "aozorabunko" in card
    assert card.count(hand_over.MARK) == 1
    hand_over.write(tmp_path / "out", tmp_path / "again")
    assert (tmp_path / "again/README.md").read_text(encoding="utf-8").count(hand_over.MARK) == 1


@pytest.mark.parametrize("kind", [*gguf.TYPES])
def test_gguf_and_back(model: Path, tmp_path: Path, kind: str) -> None:
    handed = hand_over.write(model, tmp_path / "out", to="gguf", stored=kind)
    assert f"{handed.difference.divergence:.3g}" in (tmp_path / "out/README.md").read_text(encoding="utf-8")
    file = tmp_path / f"out/out.{kind}.gguf"
    hand_over.take_in(file, tmp_path / "back")
    again, before = tsuzuri.load(tmp_path / "back", dtype="float32"), tsuzuri.load(model, dtype="float32")
    assert again.tokenizer.fingerprint == before.tokenizer.fingerprint
    assert again.template.text == before.template.text
    assert again.engine.eos_ids == before.engine.eos_ids
    if kind == "f32":
        assert again.generate("この法律は", temperature=0, max_tokens=10) == before.generate("この法律は", temperature=0, max_tokens=10)


@pytest.mark.parametrize("kind", [*gguf.TYPES])
def test_llama_cpp_writes_the_same_text(model: Path, tmp_path: Path, kind: str) -> None:
    """From the same words, cut by its own tokenizer. It also rounds what it multiplies rounded weights with: they write one text."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: pip install -e '.[peers]'")
    hand_over.write(model, tmp_path / "out", to="gguf", stored=kind)
    file = tmp_path / f"out/out.{kind}.gguf"
    hand_over.take_in(file, tmp_path / "back")
    here, there = tsuzuri.load(tmp_path / "back", dtype="float32"), llama_cpp.Llama(str(file), n_ctx=128, n_threads=1, verbose=False)
    for prompt in PROMPTS[: None if kind == "f32" else 1]:
        found = there(prompt, max_tokens=20, temperature=0, repeat_penalty=1.0)["choices"][0]["text"]
        expected = here.generate(prompt, temperature=0, max_tokens=20)
        assert found == expected.rstrip("\N{REPLACEMENT CHARACTER}") != "", prompt  # half a character at the end it leaves out
    there.close()


def test_the_bars_are_where_they_are_said_to_be(model: Path, tmp_path: Path) -> None:
    """Rounding passes the bar of its type and no lower one; nothing is left of a refused export."""
    with pytest.raises(FormatError, match="tolerance"):
        hand_over.write(model, tmp_path / "out", to="gguf", stored="q4_0", tolerance=1e-6)
    assert not (tmp_path / "out").exists()


def test_a_defect_of_the_writer_is_caught(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = weights.save

    def save(*arguments: object, **more: object) -> None:
        real(*arguments, **more)
        path = Path(str(arguments[1])) / weights.WEIGHTS
        found = load_file(path)
        name = next(name for name in found if name.endswith("up_proj.weight"))
        found[name][0, 0] += 0.5
        save_file(found, path, {"format": "pt"})

    monkeypatch.setattr(weights, "save", save)
    with pytest.raises(FormatError, match="不具合"):
        hand_over.write(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_types_are_refused(model: Path, tmp_path: Path) -> None:
    for to, stored in (("hf", "q8_0"), ("gguf", "float32")):
        with pytest.raises(ConfigError, match=stored):
            hand_over.write(model, tmp_path / "out", to=to, stored=stored)


def test_the_difference_is_the_direct_computation() -> None:
    class Table:
        vocab_size, context_length = 3, 100

        def __init__(self, row: list[float]) -> None:
            self.row = torch.tensor(row)

        def __call__(self, ids: torch.Tensor, past: object) -> torch.Tensor:
            return self.row.expand(len(ids), 3)

    found = hand_over.difference(Table([0.0, 1.0, 2.0]), Table([0.0, 1.0, 2.5]), [1, 2])
    p, q = (torch.tensor(row, dtype=torch.float64).softmax(-1) for row in ([0.0, 1.0, 2.0], [0.0, 1.0, 2.5]))
    assert found.logits == 0.5
    assert found.divergence == pytest.approx(float((p * (p / q).log()).sum()))
    assert (found.agreement, found.transcript) == (1.0, 32)


def test_the_verbs(model: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from tsuzuri.commands import cli

    done = CliRunner().invoke(cli, ["export", str(model), "--to", "gguf", "--type", "q8_0", "--out", str(tmp_path / "o"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["stored"] == "q8_0"
    file = tmp_path / "o/o.q8_0.gguf"
    done = CliRunner().invoke(cli, ["import", str(file), "--out", str(tmp_path / "back")])
    assert done.exit_code == 0 and "tsuzuri chat" in done.output


def test_an_adapter_and_back(model: Path, tmp_path: Path) -> None:
    """A model tuned by an adapter of rank 2 is handed over as one, and taken in again."""
    from tsuzuri.model.adapt import lora

    tuned = weights.load(model, dtype=torch.float32)
    lora.attach(tuned, lora.LoraSettings(rank=2, targets=("query", "up")))
    for layer in lora.adapted(tuned).values():
        torch.nn.init.normal_(layer.lora_up.data, std=0.05, generator=torch.Generator().manual_seed(1))
    lora.merge(tuned)
    (tmp_path / "tuned").mkdir()
    weights.save(tuned, tmp_path / "tuned")
    handed = hand_over.write_adapter(tmp_path / "tuned", tmp_path / "adapter", base=model, rank=2)
    assert handed.difference.divergence < 1e-6
    card = (tmp_path / "adapter/README.md").read_text(encoding="utf-8")
    assert f"LoRA r=2, base {model.name}" in card and f"KL {handed.difference.divergence:.3g} nats" in card
    back = hand_over.take_in_adapter(tmp_path / "adapter", tmp_path / "back", base=model)
    assert back.difference.divergence < 1e-6
    found = hand_over.difference(tuned, weights.load(tmp_path / "back"), [5, 6, 7])
    assert found.divergence < 1e-6
    with pytest.raises(FormatError, match="ランク"):
        hand_over.write_adapter(tmp_path / "tuned", tmp_path / "less", base=model, rank=1, tolerance=1e-9)
