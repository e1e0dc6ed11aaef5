"""What is seen of a run, in both languages, in a terminal and in a file; and a journal in which no step stands twice."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from tsuzuri.errors import SpaceError, Words
from tsuzuri.train import watch
from tsuzuri.train.watch import Journal, Metrics, Terminal, clock


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Seconds that pass only when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(watch.time, "monotonic", lambda: self.now)


def metrics(step: int, mfu: float | None = None) -> Metrics:
    return Metrics(step, 3.14159, 0.5, 1.0, step * 1000, 12345.6, mfu, 0.1)


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


# ── the line


def test_the_line_says_how_far_how_well_how_fast_and_how_long(seconds: Clock) -> None:
    screen = Screen()
    terminal = Terminal(screen)
    terminal.begin(100, 0)
    seconds.now += 30
    terminal.step(metrics(25, 0.123), 100)
    assert screen.getvalue() == "\r\x1b[K█████░░░░░░░░░░░░░░░ 25/100  損失 3.142  12,346 tok/s  MFU 12%  残り 1:30"


def test_in_english(seconds: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSUZURI_LANG", "en")
    screen = Screen()
    terminal = Terminal(screen)
    terminal.begin(50, 40)
    seconds.now += 10
    terminal.step(metrics(50), 50)
    terminal.end()
    first, second = screen.getvalue().split("\n", 1)
    assert first == "\r\x1b[KResuming after step 40."
    assert second == "\r\x1b[K████████████████████ 50/50  loss 3.142  12,346 tok/s  left 0:00\n"


def test_time_left_counts_only_the_steps_of_this_part(seconds: Clock) -> None:
    """Resumed at 900 of 1000, 10 steps in 5 seconds: 90 left take 45."""
    screen = Screen()
    terminal = Terminal(screen)
    terminal.begin(1000, 900)
    seconds.now += 5
    terminal.step(metrics(910), 1000)
    assert screen.getvalue().startswith("\r\x1b[K900 ステップ目の続きから再開します。\n")
    assert screen.getvalue().endswith("残り 0:45")


@pytest.mark.parametrize(("stream", "pause", "shown"), [(Screen(), 0.2, 6), (io.StringIO(), 15, 6)], ids=["terminal", "file"])
def test_not_every_step_is_shown_but_the_last_is(seconds: Clock, stream: io.StringIO, pause: float, shown: int) -> None:
    """Fifty steps in five pauses: one at the start, one after each pause, and the end."""
    terminal = Terminal(stream)
    terminal.begin(50, 0)
    for step in range(1, 51):
        terminal.step(metrics(step), 50)
        seconds.now += pause / 10 + 1e-9
    assert stream.getvalue().count("残り") == shown
    assert "50/50" in stream.getvalue()


def test_plain_lines_where_there_is_no_terminal(seconds: Clock) -> None:
    """A log file holds no control characters."""
    stream = io.StringIO()
    terminal = Terminal(stream)
    terminal.begin(2, 0)
    terminal.step(metrics(2), 2)
    terminal.notice(Words("途中保存を読みました。", "Read the checkpoint."))
    terminal.end()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2 and lines[0].endswith("残り 0:00") and lines[1] == "途中保存を読みました。"
    assert stream.getvalue().replace("\n", "").isprintable()


def test_a_notice_does_not_run_into_the_line(seconds: Clock) -> None:
    screen = Screen()
    terminal = Terminal(screen)
    terminal.begin(10, 0)
    terminal.step(metrics(1), 10)
    terminal.notice("お知らせ")
    assert screen.getvalue().endswith("\r\x1b[Kお知らせ\n")


@pytest.mark.parametrize(("seconds_left", "text"), [(0, "0:00"), (75, "1:15"), (3700, "1:01:40"), (359999, "99:59:59"), (59.7, "1:00")])
def test_clock(seconds_left: float, text: str) -> None:
    assert clock(seconds_left) == text


# ── the journal


def fill(path: Path, *step_numbers: int) -> None:
    journal = Journal(path)
    for step in step_numbers:
        journal.add({"step": step, "loss": step / 3})


def test_records_are_read_as_they_were_added(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "metrics.jsonl")
    assert journal.read() == []
    record = {"step": 1, "loss": 0.1 + 0.2, "備考": "綴り"}
    journal.add(record)
    assert journal.read() == [record]
    assert "綴り" in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")


def test_steps_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    fill(path, 1, 2, 3, 4, 5)
    journal = Journal(path, resumed_at=3)
    journal.add({"step": 4})
    assert [record["step"] for record in journal.read()] == [1, 2, 3, 4]


def test_a_run_from_the_start_starts_a_new_journal(tmp_path: Path) -> None:
    fill(tmp_path / "metrics.jsonl", 1, 2)
    assert Journal(tmp_path / "metrics.jsonl").read() == []


@pytest.mark.parametrize("tail", [b'{"step": 3, "lo', b"{", b"3\n", b"\x00\x00\x00", b'{"step": 3, "note": "\xe7\xb6', b'{"step": null}\n'])
def test_a_line_cut_off_by_a_crash_was_never_written(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    fill(path, 1, 2)
    path.write_bytes(path.read_bytes() + tail)
    journal = Journal(path, resumed_at=9)
    journal.add({"step": 3})
    assert [json.loads(line)["step"] for line in path.read_text(encoding="utf-8").splitlines()] == [1, 2, 3]


def test_a_full_disk_is_told_in_our_words() -> None:
    with pytest.raises(SpaceError, match="空き容量"):
        Journal(Path("/dev/full")).add({"step": 1})
