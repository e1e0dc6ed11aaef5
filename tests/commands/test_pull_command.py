"""`tsuzuri pull` as a person runs it: against a hub on this machine, killed and run again, for a person and for a program."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, Stall, Status, serving, sha256
from place import ROOT

from tsuzuri import directory

NAME = "owner/name"
DATA = random.Random(2).randbytes(2_000_000)
FILES = {
    "model.safetensors": DATA,
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"x",
    "modeling.py": b"x",
}
PAGES = [ROOT / "docs" / language / "pull.md" for language in ("ja", "en")]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as found:
        yield found


def environment(hub: Hub, **more: str) -> dict[str, str]:
    proxies = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "hf_token")
    kept = {name: value for name, value in os.environ.items() if name.lower() not in proxies}
    return {**kept, "HF_ENDPOINT": hub.address, "TSUZURI_LANG": "ja", **more}


def run(hub: Hub, place: Path, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tsuzuri", "pull", *map(str, arguments)]
    return subprocess.run(line, cwd=place, env=environment(hub, **more), capture_output=True, text=True, timeout=60)


def begin(hub: Hub, place: Path) -> subprocess.Popen[str]:
    """A process that is in the middle of the weights when this returns, and that hears Ctrl-C even where the tests do not."""
    line = [sys.executable, "-m", "tsuzuri", "pull", NAME]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(line, cwd=place, env=environment(hub), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    half = place / "models" / ".owner--name.partial" / sha256(DATA)
    while not half.is_file() or half.stat().st_size < 100_000:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


def test_a_person_is_told_what_came_what_did_not_and_how_to_use_it(hub: Hub, tmp_path: Path) -> None:
    commit = hub.add(NAME, FILES)
    done = run(hub, tmp_path, NAME)
    assert done.returncode == 0, done.stderr
    directory.verify(tmp_path / "models" / "owner--name")
    assert (tmp_path / "models" / "owner--name" / "model.safetensors").read_bytes() == DATA
    assert "系統は llama" in done.stdout and "tsuzuri chat --model models/owner--name" in done.stdout
    assert commit[:12] in done.stdout
    assert re.search(r"pickle.*：pytorch_model\.bin", done.stderr) and re.search(r"プログラム.*：modeling\.py", done.stderr)
    assert "もうそろっています" in run(hub, tmp_path, NAME).stdout
    english = run(hub, tmp_path, f"{NAME}@{commit}", "--out", "m", TSUZURI_LANG="en")
    assert "hashes checked" in english.stdout and not re.search("[ぁ-ん]", english.stdout + english.stderr)


def test_a_program_gets_json(hub: Hub, tmp_path: Path) -> None:
    commit = hub.add(NAME, FILES)
    found = json.loads(run(hub, tmp_path, NAME, "--json", "--out", "here").stdout)
    assert (found["repository"], found["revision"], found["commit"], found["out"]) == (NAME, "main", commit, "here")
    assert {"name": "model.safetensors", "bytes": len(DATA), "sha256": sha256(DATA)} in found["files"]
    assert {set(file) <= {"name", "bytes", "sha256", "git_sha1"} for file in found["files"]} == {True}
    assert found["bytes"] == found["received_bytes"] == len(DATA) + 25
    assert (found["resumed_bytes"], found["unchanged"]) == (0, False)
    assert found["skipped"] == {"pytorch_model.bin": "pickle", "modeling.py": "code"}
    assert (found["model_type"], found["known_family"]) == ("llama", True)
    assert found["seconds"] > 0


def test_a_dry_run_writes_nothing(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    shown = run(hub, tmp_path, NAME, "--dry-run")
    assert shown.returncode == 0
    assert "model.safetensors" in shown.stdout and "2.0 MB" in shown.stdout and "models/owner--name" in shown.stdout
    assert "pytorch_model.bin" in shown.stderr
    found = json.loads(run(hub, tmp_path, NAME, "--dry-run", "--json").stdout)
    assert found["left_bytes"] == found["bytes"] == len(DATA) + 25
    assert list(tmp_path.iterdir()) == []
    assert not hub.asked("/resolve/")


def test_a_family_that_cannot_be_used_here_is_told_before_and_after(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, {**FILES, "config.json": b'{"model_type": "tomorrow"}'})
    done = run(hub, tmp_path, NAME)
    assert done.returncode == 0
    for shown in (done.stdout, done.stderr):
        assert "系統 'tomorrow' は、まだ tsuzuri では開けません" in shown and "llama" in shown
    assert "tsuzuri chat" not in done.stdout
    hub.add(NAME, {**FILES, "config.json": b"[]"})
    assert "系統（model_type）がない" in run(hub, tmp_path, NAME).stdout


def test_killed_in_the_middle_the_same_command_goes_on(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    hub.fault("model.safetensors", Stall(500_000))
    process = begin(hub, tmp_path)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    half = (tmp_path / "models" / ".owner--name.partial" / sha256(DATA)).stat().st_size
    assert not (tmp_path / "models" / "owner--name").exists()
    hub.requests.clear()
    found = json.loads(run(hub, tmp_path, NAME, "--json").stdout)
    assert found["resumed_bytes"] == half + 25
    assert found["received_bytes"] == len(DATA) - half
    assert [headers["range"] for role, _, headers in hub.requests if role == "elsewhere"] == [f"bytes={half}-"]
    directory.verify(tmp_path / "models" / "owner--name")
    assert (tmp_path / "models" / "owner--name" / "model.safetensors").read_bytes() == DATA
    assert [entry.name for entry in (tmp_path / "models").iterdir()] == ["owner--name"]


def test_stopped_by_hand_it_says_so_and_goes_on(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    hub.fault("model.safetensors", Stall(500_000))
    process = begin(hub, tmp_path)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "取り寄せを止めました" in said and "続きから" in said and "Traceback" not in said
    assert json.loads(run(hub, tmp_path, NAME, "--json").stdout)["resumed_bytes"] >= 100_000


def test_the_token_is_used_and_never_shown(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    hub.token = "hf_ThisIsSecret"
    refused = run(hub, tmp_path, NAME)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "HF_TOKEN" in refused.stderr
    wrong = run(hub, tmp_path, NAME, HF_TOKEN="hf_Another")
    assert wrong.returncode == 2 and "受け付けられません" in wrong.stderr and "hf_Another" not in wrong.stderr
    hub.requests.clear()
    done = run(hub, tmp_path, NAME, HF_TOKEN=hub.token)
    assert done.returncode == 0
    assert hub.token not in done.stdout + done.stderr
    assert all(hub.token.encode() not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    sent = {(role, headers.get("authorization")) for role, _, headers in hub.requests}
    assert sent == {("hub", f"Bearer {hub.token}"), ("elsewhere", None)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "リポジトリの名前の形ではありません"),
        (["../../etc"], "リポジトリの名前の形ではありません"),
        (["owner/missing"], "リポジトリがないか、非公開"),
        (["owner/name@v9"], "その版"),
        ([NAME, "--gguf", "q4.gguf"], "「q4.gguf」という GGUF はありません"),
        ([NAME, "--endpoint", "ftp://hub"], "接続先"),
        ([NAME, "--out", "."], "別のファイルが入っていて"),
        ([NAME, "--out", "/"], "別のファイルが入っていて"),
        ([NAME, "--out", "file"], "file はファイルです"),
    ],
)
def test_what_cannot_be_done_is_told_in_three_lines(hub: Hub, tmp_path: Path, arguments: list[str], words: str) -> None:
    hub.add(NAME, FILES)
    (tmp_path / "file").write_text("x")
    done = run(hub, tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert [line.partition(":")[0] for line in done.stderr.splitlines()[-3:]] == ["エラー", "  状況", "  対処"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_hub_that_is_busy_is_told(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    hub.fault("listing", Status(429, (("Retry-After", "0"),)))
    done = run(hub, tmp_path, NAME)
    assert done.returncode == 0
    assert "混み合っています（429）。0 秒後にもう一度試します（2/6）。" in done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_what_the_page_tells_to_type_works(hub: Hub, tmp_path: Path, page: Path) -> None:
    """Here, and not in tests/docs, because the real ones fetch gigabytes: the same commands, against this hub."""
    commands = [shlex.split(line, comments=True) for line in re.findall(r"^\$ (tsuzuri pull .*)$", page.read_text(encoding="utf-8"), re.M)]
    assert len(commands) >= 4
    for _, _, name, *options in commands:
        repository, _, revision = name.partition("@")
        ggufs = {value: b"GGUF" for flag, value in itertools.pairwise(options) if flag == "--gguf"}
        hub.add(repository, {**FILES, **ggufs}, revision or "main")
        done = run(hub, tmp_path, name, *options)
        assert done.returncode == 0, (name, options, done.stderr)
