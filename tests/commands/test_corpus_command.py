"""`tsuzuri corpus build` through the real command line, for a person and for a program."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tsuzuri import directory
from tsuzuri.commands.corpus import command
from tsuzuri.errors import ConfigError, InputError, MissingError
from tsuzuri.text import fast
from tsuzuri.text.shards import Shards

STORY = (Path(__file__).parents[1] / "data" / "ryoriten.txt").read_text(encoding="utf-8")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    directory = tmp_path / "texts"
    directory.mkdir()
    for number in range(6):
        piece = STORY[number * 900 : number * 900 + 900]
        (directory / f"{number}.txt").write_bytes(piece.encode(["utf-8", "cp932", "euc_jp"][number % 3]))
    (directory / "again.txt").write_text(STORY[:900], encoding="utf-8")
    return directory


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(command, ["build", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_json_and_shards(texts: Path, tmp_path: Path) -> None:
    tokenizer = fast.train("bpe", STORY.splitlines(), 400)
    (tmp_path / "tokenizer").mkdir()
    tokenizer.save(tmp_path / "tokenizer")
    out = tmp_path / "out"
    result = run(texts, "--out", out, "--tokenizer", tmp_path / "tokenizer", "--validation-fraction", 0.3, "--json")
    report = json.loads(result.stdout)
    assert (report["documents_read"], report["documents_kept"], report["dropped"]) == (7, 6, {"duplicate": 1})
    for part in ("train", "validation"):
        found = Shards(out / "shards" / part)
        assert len(found) == report[f"{part}_documents"] == report["shards"][part]["documents"]
        assert found.byte_lengths.sum() == report[f"{part}_bytes"]
    # without a tokenizer, the shards of the text before do not stay behind
    result = run(texts, "--out", out, "--seed", 1, "--json")
    assert json.loads(result.stdout)["shards"] == {}
    assert "消しました" in result.stderr
    assert {path.name for path in out.iterdir()} == {"text", "files.json"}


def test_for_a_person(texts: Path, tmp_path: Path) -> None:
    (texts / "short.txt").write_text("[短]い", encoding="utf-8")
    shown = run(texts, "--out", tmp_path / "out").stdout
    assert "文字コード: EUC-JP 2, Shift_JIS (CP932) 2, UTF-8 4" in shown
    for words in ("学習用: ", "検証用: ", "完全な重複）: 1", "短すぎる）: 1", "「short」「[短]い」", "*.txt", "に書きました"):
        assert words in shown


def test_faults(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        run(tmp_path / "none", "--out", tmp_path / "out")
    with pytest.raises(MissingError):  # before the text is read
        run(texts, "--out", tmp_path / "out", "--tokenizer", tmp_path / "none")
    (texts / "binary.txt").write_bytes(b"\x00\x01")
    with pytest.raises(InputError, match=r"binary\.txt"):
        run(texts, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert run("--out", tmp_path / "out").exit_code == 2
    assert run(texts, "--out", tmp_path / "out", "--normalise", "nfd").exit_code == 2


def test_a_persons_own_files_are_never_replaced(texts: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in texts.iterdir()}
    for out in (texts, texts.parent, texts / "0.txt", texts / "0.txt" / "deep"):
        with pytest.raises(ConfigError):
            run(texts, "--out", out)
    assert {path.name: path.read_bytes() for path in texts.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["texts"]


# ── the real process, stopped on its way


def start(texts: Path, out: Path, limit: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    """A build of enough text to be stopped in the middle of it."""
    line = [sys.executable, "-m", "tsuzuri", "corpus", "build", str(texts), "--out", str(out), "--near-duplicate-threshold", "0"]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ, preexec_fn=limit)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    source = tmp_path / "many"
    source.mkdir()
    lines = (json.dumps({"text": f"{number} {STORY[number % 3000 :]}"}) for number in range(1500))
    (source / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return source


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_run_leaves_what_was_there(texts: Path, many: Path, tmp_path: Path, number: int, status: int) -> None:
    place = tmp_path / "place"
    place.mkdir()
    out = place / "out"
    run(texts, "--out", out, "--validation-fraction", 0.3)
    before = (out / "text" / "train.jsonl.zst").read_bytes()
    process = start(many, out)
    deadline = time.monotonic() + 60
    while not list(place.glob(".out.*.tmp/.text.*.tmp")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == status
    directory.verify(out)
    assert (out / "text" / "train.jsonl.zst").read_bytes() == before
    run(texts, "--out", out, "--validation-fraction", 0.3)
    assert [path.name for path in place.iterdir()] == ["out"]


def test_no_space_is_said_and_leaves_nothing(many: Path, tmp_path: Path) -> None:
    process = start(many, tmp_path / "out", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)))
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"{tmp_path / 'out'} に書き込もうとしました" in shown
    assert "空き容量が足りません" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["many"]
