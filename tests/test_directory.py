"""A directory is there whole or not at all: after an exception, a kill at any moment, a full disk, a missing permission."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tsuzuri import directory
from tsuzuri.errors import ConfigError, FormatError, SpaceError

NOBODY = 65534


def fill(path: Path, text: str) -> None:
    """A result with a file and a folder in it."""
    with directory.whole(path) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "a.txt").write_text(text, encoding="utf-8")
        (temporary / "b.bin").write_bytes(text.encode() * 100)


def content(path: Path) -> str | None:
    """What `fill` wrote, verified; None where nothing is."""
    if not path.exists():
        return None
    directory.verify(path)
    return (path / "inner" / "a.txt").read_text(encoding="utf-8")


def names(path: Path) -> list[str]:
    """Everything in a folder, hidden ones too."""
    return sorted(entry.name for entry in path.iterdir())


def child(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A real process that has imported what it needs before its script changes anything."""
    head = "import os, resource, signal, sys\nfrom pathlib import Path\nfrom tsuzuri import directory\n"
    line = [sys.executable, "-c", head + script, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, env={**os.environ, "TSUZURI_LANG": "ja"})


# ── whole


def test_the_directory_appears_complete_with_sizes_and_hashes(tmp_path: Path) -> None:
    fill(tmp_path / "deep" / "out", "一")
    assert content(tmp_path / "deep" / "out") == "一"
    listed = json.loads((tmp_path / "deep" / "out" / directory.MANIFEST).read_text(encoding="utf-8"))["files"]
    assert set(listed) == {"inner/a.txt", "b.bin"}
    assert listed["b.bin"]["bytes"] == 300
    assert names(tmp_path / "deep") == ["out"]


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
def test_a_result_replaces_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    if not exchange:
        monkeypatch.setattr(directory, "_exchange", lambda one, other: False)
    for text in ("一", "二"):
        fill(tmp_path / "out", text)
        assert content(tmp_path / "out") == text
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("before", [None, "一"])
@pytest.mark.parametrize("fault", [RuntimeError("x"), KeyboardInterrupt(), OSError(errno.EIO, "x")], ids=type)
def test_an_exception_leaves_what_was_there(tmp_path: Path, before: str | None, fault: BaseException) -> None:
    if before:
        fill(tmp_path / "out", before)
    with pytest.raises(type(fault)) as caught, directory.whole(tmp_path / "out") as temporary:
        (temporary / "half").write_text("二")
        raise fault
    assert caught.value is fault
    assert content(tmp_path / "out") == before
    assert names(tmp_path) == (["out"] if before else [])


KILLED = """
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def after(function):
    def both(*arguments):
        function(*arguments)
        die()
    return both

out, moment = Path(sys.argv[1]), sys.argv[2]
renames = 0
def rename(self, target):
    global renames
    renames += 1
    os.rename(self, target)
    if moment == f"after rename {renames}":
        die()
if "rename" in moment:
    directory._exchange = lambda one, other: False
    Path.rename = rename
if moment == "before the seal":
    directory._seal = die
if moment == "after the seal":
    directory._seal = after(directory._seal)
if moment == "before the exchange":
    directory._exchange = die
if moment == "after the exchange":
    directory._exchange = after(directory._exchange)
with directory.whole(out) as temporary:
    (temporary / "inner").mkdir()
    (temporary / "inner" / "a.txt").write_text("二")
    if moment == "in the block":
        die()
    (temporary / "b.bin").write_bytes(bytes(300))
"""
MOMENTS = [
    ("in the block", None, None),
    ("before the seal", None, None),
    ("after the seal", None, None),
    ("after rename 1", None, "二"),
    ("in the block", "一", "一"),
    ("after the seal", "一", "一"),
    ("before the exchange", "一", "一"),
    ("after the exchange", "一", "二"),
    ("after rename 1", "一", "一"),  # the old one stands aside, the new one is not there yet
    ("after rename 2", "一", "二"),
]


@pytest.mark.parametrize(("moment", "before", "afterwards"), MOMENTS)
def test_killed_at_any_moment_it_is_the_old_one_or_the_new_one(tmp_path: Path, moment: str, before: str | None, afterwards: str) -> None:
    out = tmp_path / "out"
    if before:
        fill(out, before)
    assert child(KILLED, out, moment).returncode == -9
    directory.recover(out)
    assert content(out) == afterwards
    assert names(tmp_path) == (["out"] if afterwards else [])
    fill(out, "三")
    assert content(out) == "三"


@pytest.mark.parametrize("before", [None, "一"])
def test_a_full_disk_is_said_and_leaves_what_was_there(tmp_path: Path, before: str | None) -> None:
    """A limit on the size of files meets a write just as a full disk does."""
    out = tmp_path / "out"
    if before:
        fill(out, before)
    script = """
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
with directory.whole(Path(sys.argv[1])) as temporary:
    (temporary / "large").write_bytes(bytes(100_000))
"""
    found = child(script, out)
    assert "SpaceError" in found.stderr
    assert f"{out} に書き込もうとしました" in found.stderr
    assert "空き容量が足りません" in found.stderr
    assert content(out) == before
    assert names(tmp_path) == (["out"] if before else [])


def test_a_full_disk_is_said_when_tensors_are_written(tmp_path: Path) -> None:
    script = """
import torch
from tsuzuri.model import safe
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
with directory.whole(Path(sys.argv[1])) as temporary:
    safe.write(temporary / "model.safetensors", {"a": torch.zeros(100_000)})
"""
    found = child(script, tmp_path / "out")
    assert "SpaceError" in found.stderr
    assert "空き容量が足りません" in found.stderr
    assert names(tmp_path) == []


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that anybody may enter: the one of pytest is its owner's alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_missing_permission_is_said_and_leaves_what_was_there(open_place: Path, mode: int) -> None:
    closed = open_place / "closed"
    fill(closed / "out", "一")
    closed.chmod(mode)
    script = f"""
if os.getuid() == 0:  # whom nothing is forbidden
    os.setgid({NOBODY}); os.setuid({NOBODY})
with directory.whole(Path(sys.argv[1])) as temporary:
    pass
"""
    try:
        found = child(script, closed / "out")
    finally:
        closed.chmod(0o755)
    assert "SpaceError" in found.stderr
    assert "書き込む権限がありません" in found.stderr
    assert content(closed / "out") == "一"
    assert names(closed) == ["out"]


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_missing_permission_is_said_before_any_work(open_place: Path, mode: int) -> None:
    closed = open_place / "closed"
    closed.mkdir()
    closed.chmod(mode)
    script = f"""
if os.getuid() == 0:
    os.setgid({NOBODY}); os.setuid({NOBODY})
directory.writable(Path(sys.argv[1]))
"""
    try:
        found = [child(script, place) for place in (closed / "out", closed / "deep" / "out")]
    finally:
        closed.chmod(0o755)
    for each in found:
        assert "SpaceError" in each.stderr and "書き込む権限がありません" in each.stderr
    assert names(closed) == []


def test_asking_leaves_nothing_behind(tmp_path: Path) -> None:
    fill(tmp_path / "old", "一")
    (tmp_path / "link").symlink_to(tmp_path / "old")
    for place in ("old", "new", "deep/er/new", "link"):
        directory.writable(tmp_path / place)
    assert names(tmp_path) == ["link", "old"]
    assert content(tmp_path / "old") == "一"


# ── where it may not stand


def test_somebodys_own_directory_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    fill(tmp_path / "own", "一")  # an empty one may be taken
    (tmp_path / "own" / directory.MANIFEST).unlink()
    entered = False
    with pytest.raises(ConfigError, match="別のファイル"), directory.whole(tmp_path / "own"):
        entered = True
    assert not entered, "refused before any work is done"
    assert (tmp_path / "own" / "inner" / "a.txt").read_text(encoding="utf-8") == "一"
    assert names(tmp_path) == ["own"]


def test_what_a_person_puts_there_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="別のファイル"), directory.whole(tmp_path / "out") as temporary:
        (temporary / "a").write_text("a")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "diary.txt").write_text("大切", encoding="utf-8")
    assert (tmp_path / "out" / "diary.txt").read_text(encoding="utf-8") == "大切"
    assert names(tmp_path) == ["out"]


def test_a_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("大切", encoding="utf-8")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="ファイルです"), directory.whole(path):
            pass
    assert (tmp_path / "file").read_text(encoding="utf-8") == "大切"


def test_a_symbolic_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    fill(tmp_path / "disk" / "real", "一")
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "real")
    fill(tmp_path / "link", "二")
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "disk" / "real") == "二"
    assert names(tmp_path) == ["disk", "link"]
    assert names(tmp_path / "disk") == ["real"]


def a_loop(path: Path) -> Path:
    (path / "loop").symlink_to(path / "loop")
    return path / "loop" / "out"


def a_place_that_is_a_file(path: Path) -> Path:
    (path / "file").write_text("x")
    return path / "file" / "out"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (lambda path: path / ("名" * 100), "名前が長すぎます"),
        (lambda path: path / ("名" * 100) / "out", "名前が長すぎます"),
        (a_loop, "循環"),
    ],
)
def test_a_place_that_cannot_be_is_said(tmp_path: Path, place: Callable[[Path], Path], words: str) -> None:
    path = place(tmp_path)
    with pytest.raises(SpaceError, match=words), directory.whole(path):
        pass
    with pytest.raises(SpaceError, match=words):
        directory.write_text(path, "x")
    with pytest.raises(SpaceError, match=words):
        directory.writable(path)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (lambda path: path / "nowhere" / "file", "フォルダがありません"),
        (a_place_that_is_a_file, "フォルダではなくファイル"),
        (lambda path: path, "同じ名前のフォルダ"),
    ],
)
def test_a_place_where_no_file_can_be_is_said(tmp_path: Path, place: Callable[[Path], Path], words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        directory.write_text(place(tmp_path), "x")


def test_what_the_block_cannot_read_is_not_taken_for_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), directory.whole(tmp_path / "out"):
        (tmp_path / "input.txt").read_text()
    with pytest.raises(SpaceError, match="そこへ至るフォルダ"), directory.whole(tmp_path / "out") as temporary:
        (temporary / "no" / "folder").write_text("x")
    assert names(tmp_path) == []


# ── verify


def altered(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: (path / "b.bin").unlink(), "b.bin がありません"),
    (lambda path: altered(path / "inner" / "a.txt"), "inner/a.txt の内容が変わっています"),
    (lambda path: (path / "b.bin").write_bytes(bytes(299)), "300 バイトのはずが 299 バイト"),
    (lambda path: (path / "b.bin").write_bytes(bytes(301)), "300 バイトのはずが 301 バイト"),
    (lambda path: (path / "inner" / "new").write_bytes(b""), "目録にない inner/new"),
    (lambda path: (path / "files.json").unlink(), "files.json がないか"),
    (lambda path: (path / "files.json").write_text("{"), "files.json がないか"),
    (lambda path: (path / "files.json").write_text('{"files": {"b.bin": {}}}'), "files.json がないか"),
    (lambda path: (path / "files.json").write_text("[" * 100_000), "files.json がないか"),
    (lambda path: (path / "files.json").write_text('{"files": []}'), "files.json がないか"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES, ids=[words for _, words in DAMAGES])
def test_verify_names_what_is_damaged(tmp_path: Path, damage: Callable[[Path], object], words: str) -> None:
    fill(tmp_path / "out", "一")
    directory.verify(tmp_path / "out")
    damage(tmp_path / "out")
    with pytest.raises(FormatError, match=words):
        directory.verify(tmp_path / "out")


def test_verify_of_nothing_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        directory.verify(tmp_path / "nowhere")


# ── recover


def test_only_what_dead_processes_left_is_cleared(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    kept = {f".out.{os.getpid()}-0123abcd.tmp", f".other.{dead.pid}-0123abcd.tmp", ".out.tmp", f".out.{dead.pid}-mine.tmp", "out"}
    for name in (*kept, f".out.{dead.pid}-0123abcd.tmp"):
        (tmp_path / name).mkdir()
    directory.recover(tmp_path / "out")
    assert set(names(tmp_path)) == kept


@pytest.mark.parametrize("new", [True, False])
def test_an_old_directory_is_put_back_where_there_is_no_new_one(tmp_path: Path, new: bool) -> None:
    fill(tmp_path / ".out.old", "一")
    if new:
        fill(tmp_path / "out", "二")
    directory.recover(tmp_path / "out")
    assert content(tmp_path / "out") == ("二" if new else "一")
    assert names(tmp_path) == ["out"]


# ── one file


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    directory.write_text(path, "一")
    directory.write_text(path, "二")
    assert path.read_text(encoding="utf-8") == "二"
    script = """
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
directory.write_bytes(Path(sys.argv[1]), bytes(100_000))
"""
    found = child(script, path)
    assert "空き容量が足りません" in found.stderr
    assert path.read_text(encoding="utf-8") == "二"
    assert names(tmp_path) == ["a.txt"]


def test_what_a_killed_process_left_of_a_file_goes_with_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    directory.write_text(path, "一")
    script = """
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
directory.write_text(Path(sys.argv[1]), "二")
"""
    assert child(script, path).returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 2 and path.read_text(encoding="utf-8") == "一"
    directory.write_text(path, "三")
    assert names(tmp_path) == ["a.txt"]


def test_a_damaged_checkpoint_does_not_stand_in_the_way_of_the_next_one(tmp_path: Path) -> None:
    import torch

    from tsuzuri.train import checkpoint

    state = checkpoint.State(3, {"a": torch.zeros(2)}, {})
    saved = checkpoint.save(tmp_path, state, lambda path: None)
    (saved / directory.MANIFEST).unlink()
    checkpoint.save(tmp_path, state, lambda path: None)
    assert checkpoint.latest(tmp_path)[0] == saved
