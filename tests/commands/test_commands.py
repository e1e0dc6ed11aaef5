"""`tsuzuri` itself: the way out of the process, the way into it, and how long that takes."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

import tsuzuri
from tsuzuri import commands
from tsuzuri.errors import StopRequested, TsuzuriError, Words

SCRIPT = Path(sys.executable).with_name("tsuzuri")


def run(*arguments: str, lang: str = "ja") -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tsuzuri", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, env={**os.environ, "TSUZURI_LANG": lang})


WORDS = {"asked": Words("頼み", "asked"), "found": Words("様子", "state"), "todo": Words("手当て", "remedy")}


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        *(
            (kind(**WORDS), 2, "エラー: 頼み\n  状況: 様子\n  対処: 手当て\n")
            for kind in TsuzuriError.__subclasses__()
            if kind != StopRequested
        ),
        (StopRequested(**WORDS), 130, "頼み\n  状況: 様子\n  対処: 手当て\n"),
        (KeyboardInterrupt(), 130, "\n中断しました。\n"),  # below the line with ^C
        (click.Abort(), 130, "中断しました。\n"),
        (click.exceptions.Exit(0), 0, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_the_way_out(
    error: BaseException, status: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through click as it is, with a verb that ends like this."""

    def end() -> None:
        raise error

    monkeypatch.setattr(commands.Verbs, "get_command", lambda *_: click.Command("end", callback=end))
    monkeypatch.setattr(sys, "argv", ["tsuzuri", "end"])
    try:
        commands.main()
        code = 0
    except SystemExit as out:
        code = out.code
    assert code == status
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", said)


def test_a_fault_of_ours_is_not_dressed_up_as_the_persons(monkeypatch: pytest.MonkeyPatch) -> None:
    def end() -> None:
        raise AssertionError("ours")

    monkeypatch.setattr(commands.Verbs, "get_command", lambda *_: click.Command("end", callback=end))
    monkeypatch.setattr(sys, "argv", ["tsuzuri", "end"])
    with pytest.raises(AssertionError, match="ours"):
        commands.main()


@pytest.mark.parametrize(("wrong", "right"), [("crpus", "corpus"), ("genrate", "generate"), ("Chat", "chat")])
def test_a_verb_that_is_not_there_is_answered_with_the_near_ones(wrong: str, right: str) -> None:
    done = run(wrong)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"エラー: commands の「{wrong}」")
    assert f"「{right}」" in done.stderr.partition("対処")[2]
    assert "Traceback" not in done.stderr
    assert f"Did you mean {right}" in run(wrong, lang="en").stderr


@pytest.mark.parametrize("arguments", [["run", "--nope"], ["run"], ["_model"], ["generate", "--top-k", "x", "あ"]])
def test_what_is_no_call_ends_with_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["chat", "--help"]])
def test_nobody_listening_ends_it_quietly(arguments: list[str]) -> None:
    """tsuzuri --help | true"""
    reading, writing = os.pipe()
    os.close(reading)
    line = [sys.executable, "-m", "tsuzuri", *arguments]
    try:
        done = subprocess.run(line, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 1


def test_the_version() -> None:
    assert run("--version").stdout == f"tsuzuri, version {tsuzuri.__version__}\n"


@pytest.mark.skipif(not SCRIPT.exists(), reason="installed without its script")
def test_help_is_there_at_once() -> None:
    """Little more than what Python and click take to start; as a ratio in one run, so that a busy machine does not matter."""

    def seconds(*line: str | Path) -> float:
        begun = time.perf_counter()
        subprocess.run(line, capture_output=True, check=True, timeout=60)
        return time.perf_counter() - begun

    ratios = [seconds(SCRIPT, "--help") / seconds(sys.executable, "-c", "import click, yaml") for _ in range(5)]
    assert statistics.median(ratios) <= 2
