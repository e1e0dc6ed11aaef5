"""The whole life through the real command: text, tokenizer, pre-training, conversations, evaluation, export."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import xml.etree.ElementTree as ElementTree
from itertools import islice
from pathlib import Path

import pytest
import torch
import transformers
from place import SMALL

import tsuzuri
from tsuzuri import directory
from tsuzuri.chat import template
from tsuzuri.errors import ConfigError, FormatError, Words
from tsuzuri.evals import baselines
from tsuzuri.model import weights
from tsuzuri.model.adapt import lora
from tsuzuri.recipe import hand_over
from tsuzuri.recipe import recipe as recipes
from tsuzuri.recipe.run import run
from tsuzuri.recipe.stages.sft import newest_model
from tsuzuri.text import fast
from tsuzuri.text.corpus.read import read
from tsuzuri.train import checkpoint
from tsuzuri.train.watch import Watch
from tsuzuri.types import Message

STAGES = ["corpus", "tokenizer", "pretrain", "sft", "evaluate", "export"]


class Listening(Watch):
    def __init__(self) -> None:
        self.said: list[str] = []

    def notice(self, words: Words | str) -> None:
        self.said.append(str(words))


def report(life: Path) -> dict[str, dict[str, object]]:
    return json.loads((life / "runs/tiny/report.json").read_text(encoding="utf-8"))["results"]


def test_the_report_is_printed_and_says_what_each_stage_found(life: Path) -> None:
    text = (life / "runs/tiny/report.md").read_text(encoding="utf-8")
    assert text == (life / "printed.txt").read_text(encoding="utf-8").rstrip("\n") + "\n"
    found = report(life)
    assert list(found) == STAGES
    for heading in ("文章", "トークナイザ", "事前学習", "指示学習", "ビット毎バイト", "文章の続き", "会話", "書き出し", "計画と実際"):
        assert re.search(rf"^## .*{heading}", text, re.MULTILINE), heading
    assert f"{found['evaluate']['network']['bits_per_byte']:.4f}" in text
    assert "| パラメータ | {0:,} | {0:,} |".format(found["pretrain"]["parameters"]) in text


def test_the_loss_curve_is_a_picture_with_two_lines(life: Path) -> None:
    picture = ElementTree.parse(life / "runs/tiny/loss.svg").getroot()
    assert len(picture.findall("{http://www.w3.org/2000/svg}polyline")) == 5


def test_progress_names_each_stage_and_shows_speed_and_time_left(life: Path) -> None:
    progress = (life / "progress.txt").read_text(encoding="utf-8")
    for number, stage in enumerate(STAGES, 1):
        assert f"[{number}/6] {stage}" in progress
    assert re.search(r"12/12  損失 \d\.\d+  [\d,]+ tok/s  MFU \d+%  残り \d+:\d\d", progress)


def test_on_the_way_it_is_scored_and_says_something(life: Path) -> None:
    journal = [json.loads(line) for line in (life / "runs/tiny/pretrain/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [record["step"] for record in journal] == list(range(1, 13))
    (scored,) = (record for record in journal if "bits_per_byte" in record)
    assert scored["step"] == 6
    assert 0 < scored["bits_per_byte"] < 8
    assert f"  6: {scored['sample']}\n" in (life / "progress.txt").read_text(encoding="utf-8")


def test_baselines_had_exactly_the_text_the_network_has_read(life: Path) -> None:
    found = report(life)
    text = life / "runs/tiny/corpus/text"
    train = [document.text for document in islice(read([text / "train.jsonl.zst"]), found["pretrain"]["read_documents"])]
    held = [document.text for document in read([text / "validation.jsonl.zst"])]
    assert sum(len(one.encode()) for one in train) == found["pretrain"]["read_bytes"]
    assert not set(train) & set(held)
    tokenizer = fast.load(life / "runs/tiny/tokenizer/files")
    again = baselines.kneser_ney(train, held, baselines.token_units(tokenizer), seed=3)
    assert again.bits.bits_per_byte == pytest.approx(found["evaluate"]["baselines"]["5-gram token"]["bits_per_byte"], rel=1e-9)
    assert again.bits.bytes == found["evaluate"]["network"]["bytes"]


def test_transformers_loads_the_result_with_equal_logits_ids_and_template(life: Path) -> None:
    path = life / "runs/tiny/model"
    ours, theirs = tsuzuri.load(path), transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    theirs_tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    for text in ("人工知能の発展について", "GPT-4 は 2023年、公開された。", "\U0001f600 𠮷野家\n\n　改行"):
        ids = ours.tokenizer.encode(text)
        assert theirs_tokenizer.encode(text, add_special_tokens=False) == ids
        assert theirs_tokenizer.decode(ids) == text
        with torch.inference_mode():
            expected = theirs(torch.tensor([ids])).logits[0]
        single = tsuzuri.load(path, dtype="float32")
        assert (single.logits(ids) - expected).abs().max() <= 1e-5 * expected.abs().max()
    messages = [Message("system", "短く。"), Message("user", "こんにちは。")]
    wanted = theirs_tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in messages], add_generation_prompt=True, return_dict=False
    )
    assert template.encode(ours.tokenizer, messages) == wanted
    assert theirs.generation_config.eos_token_id == theirs_tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_the_export_is_whole_and_tells_where_it_comes_from(life: Path) -> None:
    path = life / "runs/tiny/model"
    directory.verify(path)
    card = (path / "README.md").read_text(encoding="utf-8")
    assert "aozorabunko" in card or "青空文庫" in card
    assert "CC BY 4.0" in card
    results = json.loads((life / "runs/tiny/report.json").read_text(encoding="utf-8"))["results"]
    listed = hashlib.sha256((path / "data_manifest.json").read_bytes()).hexdigest()
    found, beside = results["pretrain"], results["evaluate"]["best_baseline"]
    for told in (
        f"bits per byte: {found['bits']['bits_per_byte']:.4f}", f"strongest rival: {beside:.4f}", "seed 1", f"SHA-256 {listed}",
        f"hardware: {hand_over.hardware()}", f"trained tokens: {found['tokens']:,}", "KL 0 nats",
    ):  # fmt: skip
        assert told in card


def copied(life: Path, to: Path) -> list[str]:
    """A copy of the finished run, and the settings that say it is there."""
    shutil.copytree(life / "runs/tiny", to)
    return [*SMALL, f"out={to}"]


def stages_run(settings: list[str]) -> list[str]:
    """The stages that were not skipped."""
    watch = Listening()
    run(recipes.read(Path("recipes/tiny.yaml"), settings), watch)
    titles = [said for said in watch.said if said.startswith("[")]
    assert len(titles) == 6
    return [STAGES[number] for number, said in enumerate(titles) if "済んでいます" not in said]


def test_finished_stages_are_skipped_and_a_changed_one_runs_again_with_what_follows(
    life: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(life)
    settings = copied(life, tmp_path / "run")
    weights = (tmp_path / "run/model/model.safetensors").read_bytes()
    assert stages_run(settings) == []
    assert stages_run([*settings, "evaluate.sample_tokens=5"]) == ["evaluate", "export"]
    assert (tmp_path / "run/model/model.safetensors").read_bytes() == weights
    assert stages_run([*settings, "evaluate.sample_tokens=5", "sft.seed=5"]) == ["sft", "evaluate", "export"]
    assert (tmp_path / "run/model/model.safetensors").read_bytes() != weights
    assert (tmp_path / "run/sft.previous/stage.json").is_file(), "the work that was replaced is still there"


def test_a_changed_input_file_runs_its_stage_again(life: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(life / "recipes")
    (tmp_path / "sample").mkdir()
    shutil.copytree(life / "sample/chat", tmp_path / "sample/chat")
    (tmp_path / "sample/pretrain").symlink_to((life / "sample/pretrain").resolve())
    settings = copied(life, tmp_path / "run")
    assert stages_run(settings) == []
    (tmp_path / "sample/chat/selected.jsonl.zst").unlink()
    assert stages_run(settings) == ["sft", "evaluate", "export"]


@pytest.mark.parametrize(
    ("lost", "anew"),
    [
        ("corpus/text/train.jsonl.zst", ["corpus"]),
        ("tokenizer/files/tokenizer.json", ["tokenizer"]),
        ("model/model.safetensors", ["export"]),
    ],
)
def test_a_finished_stage_whose_files_are_gone_is_made_anew(
    life: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str, anew: list[str]
) -> None:
    """What follows stays: it comes out byte for byte as it was."""
    monkeypatch.chdir(life)
    settings = copied(life, tmp_path / "run")
    before = (tmp_path / "run" / lost).read_bytes()
    (tmp_path / "run" / lost).unlink()
    assert stages_run(settings) == anew
    assert (tmp_path / "run" / lost).read_bytes() == before


def test_an_unfinished_try_does_not_take_the_place_of_finished_work(life: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished, changed and stopped, changed again: what was finished first is still there."""
    monkeypatch.chdir(life)
    settings = copied(life, tmp_path / "run")
    kept = (tmp_path / "run/sft/stage.json").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr("tsuzuri.recipe.stages.sft.run", stopped)
        with pytest.raises(KeyboardInterrupt):
            stages_run([*settings, "sft.seed=5"])
    stages_run([*settings, "sft.seed=6"])
    assert (tmp_path / "run/sft.previous/stage.json").read_bytes() == kept
    assert (tmp_path / "run/sft.unfinished/started.json").is_file()


def stopped(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_loss_curve_can_be_read_in_the_terminal(life: Path) -> None:
    """Nine places from the first step to the last; the last line has the score that the end was given."""
    text = (life / "printed.txt").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (\d+\.\d+) \| (·*●) \| (\d\.\d+|–) \|$", text, re.MULTILINE)
    assert len(rows) == 9
    assert [int(row[0]) for row in rows][:: len(rows) - 1] == [1, 12]
    losses = [float(row[1]) for row in rows]
    marks = [len(row[2]) for row in rows]
    assert [marks[losses.index(end(losses))] for end in (min, max)] == [1, 32]
    assert rows[-1][3] == f"{report(life)['pretrain']['scored_on_the_way']['bits_per_byte']:.3f}"  # type: ignore[index]


def test_the_run_starts_from_counted_pairs(life: Path) -> None:
    """The first loss lies well below that of chance, ln V."""
    assert "トークンの二つ組を数え" in (life / "progress.txt").read_text(encoding="utf-8")
    first = json.loads((life / "runs/tiny/pretrain/metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["loss"] < 0.9 * math.log(1000)


def test_an_export_that_rounds_more_than_is_allowed_is_refused(life: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(life)
    settings = copied(life, tmp_path / "run")
    other = "float16" if report(life)["export"]["dtype"] == "bfloat16" else "bfloat16"
    if other == "float16":
        with pytest.raises(ConfigError, match="float16"):
            recipes.read(Path("recipes/tiny.yaml"), [*settings, "export.dtype=float16"])
        return
    with pytest.raises(FormatError, match="tolerance"):
        stages_run([*settings, "export.dtype=bfloat16", "export.tolerance=0"])
    assert stages_run([*settings, "export.dtype=bfloat16"]) == ["export"]
    assert {weight.dtype for weight in weights.load(tmp_path / "run/model").parameters()} == {torch.bfloat16}


def test_conversations_can_train_an_adapter_alone(life: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights of pre-training stay; the adapter is PEFT's, and what is exported has it merged."""
    monkeypatch.chdir(life)
    settings = [*copied(life, tmp_path / "run"), "sft.lora.rank=4", "sft.lora.alpha=8"]
    assert stages_run(settings) == ["sft", "evaluate", "export"]
    run = tmp_path / "run"
    base, kept = (weights.load(newest_model(run / "pretrain")), weights.load(checkpoint.latest(run / "sft/checkpoints")[0] / "model"))
    assert all(torch.equal(one.float(), other.float()) for one, other in zip(base.parameters(), kept.parameters(), strict=True))
    lora.load(base.float(), run / "sft/adapter", "llama")
    lora.merge(base)
    exported = weights.load(run / "model", dtype=torch.float32)
    for one, other in zip(base.parameters(), exported.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)
    assert not all(torch.equal(one, other) for one, other in zip(kept.float().parameters(), exported.parameters(), strict=True))
