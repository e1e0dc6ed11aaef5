"""Bad input through the real verbs `run` and `plan`: a clear message, exit 2, nothing lost."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from place import ROOT, SMALL

from tsuzuri import directory
from tsuzuri.text.corpus.read import read


def refused(place: Path, *arguments: str, prepare: Callable[[], None] | None = None) -> str:
    """What `tsuzuri …` says when it stops with exit 2 and no stack trace."""
    command = [sys.executable, "-m", "tsuzuri", *arguments]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120, preexec_fn=prepare)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "状況" in done.stderr and "対処" in done.stderr
    return done.stderr


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "sample").symlink_to(ROOT / "sample")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["pretrian.steps=5"], "pretrain"),
        (["pretrain.learning_rat=1"], "learning_rate"),
        (["pretrain.steps=many"], "pretrain.steps"),
        (["pretrain.model.num_attention_heads=5"], "hidden_size"),
        (["stages=[corpus,pretrain]"], "stages の並び"),
        (["--until", "pretrian"], "pretrain"),
        (["sft.length=100000"], "sft.length"),
        (["pretrain.epochs=2"], "epochs"),
        (["tokenizer.kind=bep"], "bpe"),
        (["corpus.inputs=[nowhere]"], "nowhere"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_before_anything_is_written(place: Path, settings: list[str], said: str) -> None:
    assert said in refused(place, "run", "recipes/tiny.yaml", *settings, "out=run")
    assert not (place / "run" / "corpus").exists()


def test_a_recipe_that_is_no_yaml_names_the_line(place: Path) -> None:
    (place / "bad.yaml").write_text("name: x\nstages: [corpus\npretrain: 3\n", encoding="utf-8")
    assert "行目" in refused(place, "plan", "bad.yaml")


@pytest.mark.parametrize("out", ["/sys/tsuzuri", "recipes/tiny.yaml/run"])
def test_a_place_that_cannot_be_written_is_said_at_once(place: Path, out: str) -> None:
    """/sys refuses even the administrator; a file is no directory."""
    assert "書き込めません" in refused(place, "run", "recipes/tiny.yaml", f"out={out}")


def test_a_full_disk_keeps_what_was_finished(place: Path) -> None:
    """A limit on the size of files stands in for the disk: the text fits, a checkpoint does not."""

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))

    documents = islice(read([ROOT / "sample/pretrain/law.jsonl.zst"]), 30)
    lines = [json.dumps({"text": document.text, "source": document.source}) for document in documents]
    (place / "laws.jsonl").write_text("\n".join(lines), encoding="utf-8")
    small = [*SMALL, "size=2", "corpus.inputs=[laws.jsonl]", "corpus.validation_fraction=0.2", "tokenizer.vocab_size=400"]
    command = ["run", "recipes/tiny.yaml", *small, "out=run", "--until", "pretrain"]
    said = refused(place, *command, prepare=small_files)
    assert "空き容量" in said
    for stage in ("corpus", "tokenizer"):
        assert json.loads((place / "run" / stage / "stage.json").read_text(encoding="utf-8"))["results"]
    assert not list((place / "run/pretrain").glob("checkpoints/step-*"))
    done = subprocess.run([sys.executable, "-m", "tsuzuri", *command], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "[1/3] corpus：済んでいます" in done.stderr


def test_text_that_is_too_little_for_the_vocabulary_says_how_much_it_supports(place: Path) -> None:
    text = (ROOT / "tests/data/ryoriten.txt").read_text(encoding="utf-8")
    works = [json.dumps({"text": part, "title": name}, ensure_ascii=False) for name, part in (("前", text[:3000]), ("後", text[3000:]))]
    (place / "works.jsonl").write_text("\n".join(works), encoding="utf-8")
    settings = [*SMALL, "corpus.inputs=[works.jsonl]", "corpus.validation_fraction=0.5", "tokenizer.vocab_size=60000"]
    assert "この文章から作れるのは" in refused(place, "run", "recipes/tiny.yaml", *settings, "out=run")


def test_without_held_out_text_nothing_is_begun(place: Path) -> None:
    said = refused(place, "run", "recipes/tiny.yaml", *SMALL, "corpus.validation_fraction=0", "out=run")
    assert "検証用の文章" in said and not (place / "run").exists()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("export.dtype=foo", "foo"),
        ("export.tolerance=-1", "tolerance"),
        ("evaluate.order=0", "order"),
        ("evaluate.sample_tokens=0", "sample_tokens"),
        ("sft.repeat={tsuzri: 2}", "tsuzuri"),
        ("sft.repeat={tsuzuri: 0}", "repeat"),
        ("tokenizer.train_bytes=-5", "train_bytes"),
        ("watts=-3", "watts"),
        ("yen_per_kwh=.nan", "yen_per_kwh"),
        ("minutes=0", "minutes"),
        ("seed=100000000000000000000", "seed"),
        ("pretrain.seed=-1", "seed"),
        ("name=../evil", "name"),
    ],
)
def test_what_would_fail_after_training_is_refused_before(place: Path, setting: str, said: str) -> None:
    assert said in refused(place, "run", "recipes/tiny.yaml", setting)
    assert not (place / "runs").exists()


def test_two_runs_do_not_work_in_one_place(place: Path) -> None:
    (place / "run").mkdir()
    with directory.alone(place / "run"):
        assert "別のプロセス" in refused(place, "run", "recipes/tiny.yaml", *SMALL, "out=run")
    assert [path.name for path in (place / "run").iterdir()] == [".lock"]
