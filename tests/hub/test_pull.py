"""A repository is fetched whole and verified or not at all, from a real server that breaks off, lies, stalls and redirects."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_server import Body, Close, Extra, Fault, Hub, Range, Stall, Status, Whole, blob, sha256

from tsuzuri import directory
from tsuzuri.errors import ConfigError, FormatError, MissingError, RemoteError, SpaceError, Words
from tsuzuri.hub import pull as pulling
from tsuzuri.hub.listing import File, Repository
from tsuzuri.hub.pull import Offer, Pulled, Watch, left, look, pull
from tsuzuri.hub.wire import Wire

NAME = "owner/name"
WEIGHTS = "model.safetensors"
DATA = random.Random(1).randbytes(3_000_000)
SMALL = b'{"model_type": "llama", "hidden_size": 64}'
FILES = {
    WEIGHTS: DATA,
    "config.json": SMALL,
    "sub/a b\u3000\u304c#1?%41.json": b"[22]",
    "empty.json": b"",
    "same.json": b"[1]",
    "sub/same.json": b"[1]",
    "x.bin": b"x",
}
TAKEN = {name: data for name, data in FILES.items() if name != "x.bin"}
DISTINCT = sum(map(len, set(TAKEN.values())))  # bytes that have to come


class Heard(Watch):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.total = self.there = 0
        self.files: list[str] = []
        self.notices: list[str] = []

    def begin(self, bytes: int) -> None:
        self.total = bytes

    def file(self, file: File) -> None:
        self.files.append(file.name)

    def advance(self, bytes: int) -> None:
        self.there += bytes

    def notice(self, words: Words) -> None:
        self.notices.append(words.ja)


def fetch(wire: Wire, out: Path, watch: Watch | None = None, gguf: tuple[str, ...] = ()) -> Pulled:
    return pull(wire, offered(wire, watch, gguf), out, watch)


def offered(wire: Wire, watch: Watch | None = None, gguf: tuple[str, ...] = ()) -> Offer:
    return look(wire, Repository("owner", "name"), gguf, watch)


def content(out: Path) -> dict[str, bytes]:
    """All files but our own, after the manifest was verified."""
    directory.verify(out)
    own = (directory.MANIFEST, pulling.RECORD)
    return {
        file.relative_to(out).as_posix(): file.read_bytes()
        for file in out.rglob("*")
        if file.is_file() and file.relative_to(out).as_posix() not in own
    }


def partial(out: Path) -> dict[str, int]:
    """Hash -> bytes of what lies beside it."""
    folder = out.with_name(f".{out.name}.partial")
    return {path.name: path.stat().st_size for path in folder.iterdir() if len(path.name) in (40, 64)} if folder.is_dir() else {}


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


# ── what comes


def test_the_directory_is_whole_verified_and_says_where_it_came_from(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    commit, heard = hub.add(NAME, FILES), Heard()
    done = fetch(wire, tmp_path / "models" / "m", heard)
    assert content(tmp_path / "models" / "m") == TAKEN
    assert names(tmp_path / "models") == ["m"]
    record = json.loads((tmp_path / "models" / "m" / "pulled.json").read_text(encoding="utf-8"))
    assert (record["repository"], record["revision"], record["commit"]) == (NAME, "main", commit)
    assert record["files"][WEIGHTS] == {"bytes": len(DATA), "sha256": sha256(DATA)}
    assert record["files"]["config.json"] == {"bytes": len(SMALL), "git_sha1": blob(SMALL)}
    assert record["skipped"] == {"x.bin": "pickle"}
    assert (done.received, done.resumed, done.unchanged) == (DISTINCT, 0, False)
    assert (heard.total, heard.there, heard.notices) == (DISTINCT, DISTINCT, [])
    assert heard.files[0] == "empty.json" and heard.files[-1] == WEIGHTS
    assert not hub.asked("x.bin"), "what is not taken is not asked for"
    assert not hub.asked("empty.json"), "there is nothing to fetch"
    assert len(hub.asked("same.json")) == 2, "one content comes once, by way of one redirect"
    assert all(f"/{commit}/" in path for role, path, _ in hub.requests if "resolve" in path), "one commit for all"


def test_looking_writes_nothing(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    offer = offered(wire)
    assert left(offer, tmp_path / "m") == DISTINCT
    assert names(tmp_path) == []
    fetch(wire, tmp_path / "m")
    assert left(offer, tmp_path / "m") == 0


def test_what_is_there_is_not_fetched_again(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    fetch(wire, tmp_path / "m")
    before = len(hub.asked("/resolve/"))
    done = fetch(wire, tmp_path / "m")
    assert done.unchanged and (done.received, done.resumed) == (0, 0)
    assert len(hub.asked("/resolve/")) == before
    assert content(tmp_path / "m") == TAKEN


def test_a_new_commit_replaces_the_earlier_one_and_only_what_changed_comes(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    fetch(wire, tmp_path / "m")
    hub.requests.clear()
    new = {WEIGHTS: DATA, "config.json": b'{"model_type": "gpt2"}'}
    hub.add(NAME, new)
    assert left(offered(wire), tmp_path / "m") == len(new["config.json"])
    done = fetch(wire, tmp_path / "m")
    assert content(tmp_path / "m") == new
    assert done.received == len(new["config.json"])
    assert not hub.asked(WEIGHTS)
    assert names(tmp_path) == ["m"]


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    commit = hub.add(NAME, {**FILES, "config.json": b"{}"}, "refs/pr/1")
    hub.add(NAME, FILES)
    for revision in ("refs/pr/1", commit):
        offer = look(wire, Repository("owner", "name", revision))
        assert offer.listing.commit == commit
    assert hub.asked("/revision/refs%2Fpr%2F1?"), "one step of the path, as the real hub wants it"
    pull(wire, offer, tmp_path / "m")
    assert content(tmp_path / "m")["config.json"] == b"{}"


def test_a_commit_that_was_asked_for_is_the_commit_that_comes(hub: Hub, wire: Wire) -> None:
    commit, other = hub.add(NAME, {**FILES, "config.json": b"{}"}), hub.add(NAME, FILES)
    hub.listing = json.dumps({"sha": other, "siblings": hub.siblings(NAME, other)}).encode()
    with pytest.raises(FormatError, match=f"別のコミット {other}"):
        look(wire, Repository("owner", "name", commit))


def test_a_gguf_that_was_asked_for(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    hub.add(NAME, {**FILES, "q4.gguf": b"GGUF" * 100, "q8.gguf": b"8"})
    fetch(wire, tmp_path / "m", gguf=("q4.gguf",))
    assert set(content(tmp_path / "m")) == {"q4.gguf", *TAKEN} - {WEIGHTS}


# ── transfers that fail


def test_a_connection_that_breaks_off_goes_on_where_it_was(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    hub.fault(WEIGHTS, Close(1_000_000), Close(500_000))
    heard = Heard()
    done = fetch(wire, tmp_path / "m", heard)
    assert content(tmp_path / "m") == TAKEN
    starts = [headers.get("range") for role, path, headers in hub.requests if role == "elsewhere"]
    assert starts[0] is None and len(starts) == 3
    first, second = (int(str(start).removeprefix("bytes=").removesuffix("-")) for start in starts[1:])
    assert 0 < first <= 1_000_000 and first < second <= first + 500_000
    assert done.received == heard.there == heard.total
    assert ["途中で切れました" in notice for notice in heard.notices] == [True, True]


def test_small_files_break_off_too(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    hub.fault("config.json", Close(10), Close(5))
    fetch(wire, tmp_path / "m")
    assert content(tmp_path / "m") == TAKEN


def test_progress_is_worth_more_tries_and_none_is_not(hub: Hub, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "PROGRESS", 100_000)
    hub.add(NAME, FILES)
    hub.fault(WEIGHTS, *[Close(300_000)] * 8)
    fetch(wire, tmp_path / "m")
    assert content(tmp_path / "m") == TAKEN
    hub.fault(WEIGHTS, *[Close(30_000)] * 8)
    with pytest.raises(RemoteError, match="途中で切れました。4 回試しました") as caught:
        fetch(wire, tmp_path / "n")
    assert "続きから" in str(caught.value.todo)


def test_what_has_come_stays_for_the_next_try(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    hub.fault(WEIGHTS, Close(1_000_000), *[Status(503)] * 3)
    with pytest.raises(RemoteError):
        fetch(wire, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    half = partial(tmp_path / "m")[sha256(DATA)]
    assert 0 < half <= 1_000_000
    assert left(offered(wire), tmp_path / "m") == len(DATA) - half
    hub.requests.clear()
    done = fetch(wire, tmp_path / "m")
    assert content(tmp_path / "m") == TAKEN
    assert done.received == len(DATA) - half
    assert done.resumed == half + DISTINCT - len(DATA)
    assert [headers["range"] for role, _, headers in hub.requests if role == "elsewhere"] == [f"bytes={half}-"]
    assert not hub.asked("config.json")
    assert names(tmp_path) == ["m"]


@pytest.mark.parametrize("file", [WEIGHTS, "config.json"])
def test_a_wrong_hash_leaves_nothing_of_the_file(hub: Hub, wire: Wire, tmp_path: Path, file: str) -> None:
    hub.add(NAME, FILES)
    wrong = bytes([FILES[file][0] ^ 1]) + FILES[file][1:]
    hub.fault(file, Body(wrong))
    with pytest.raises(FormatError, match="ハッシュ") as caught:
        fetch(wire, tmp_path / "m")
    assert file in str(caught.value)
    assert not (tmp_path / "m").exists()
    assert {sha256(FILES[file]), blob(FILES[file])}.isdisjoint(partial(tmp_path / "m"))
    fetch(wire, tmp_path / "m")
    assert content(tmp_path / "m") == TAKEN


def test_a_wrong_half_is_found_out_at_the_end(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    hub.fault(WEIGHTS, Close(1_000_000), *[Status(503)] * 3)
    with pytest.raises(RemoteError):
        fetch(wire, tmp_path / "m")
    half = tmp_path / ".m.partial" / sha256(DATA)
    half.write_bytes(b"\0" + half.read_bytes()[1:])
    with pytest.raises(FormatError, match="ハッシュ"):
        fetch(wire, tmp_path / "m")
    assert sha256(DATA) not in partial(tmp_path / "m")
    fetch(wire, tmp_path / "m")
    assert content(tmp_path / "m") == TAKEN


@pytest.mark.parametrize("damage", [lambda data: b"\0" + data[1:], lambda data: data + b"\0", lambda data: data[:100]])
def test_a_whole_file_that_was_damaged_since_is_fetched_anew(
    hub: Hub, wire: Wire, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """As after a power cut: longer, shorter or other bytes than were written."""
    hub.add(NAME, FILES)
    hub.fault(WEIGHTS, *[Status(503)] * 4)
    with pytest.raises(RemoteError):
        fetch(wire, tmp_path / "m")
    (tmp_path / ".m.partial" / sha256(DATA)).write_bytes(damage(DATA))
    heard = Heard()
    if len(damage(DATA)) >= len(DATA):
        fetch(wire, tmp_path / "m", heard)
        assert any("壊れている" in notice for notice in heard.notices) or len(damage(DATA)) > len(DATA)
    else:
        fetch(wire, tmp_path / "m", heard)
    assert content(tmp_path / "m") == TAKEN
    assert heard.there == heard.total


TOO_LONG = "より多く送って|長さが違う"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Body(DATA + b"x"), TOO_LONG),
        (Body(DATA + bytes(5_000_000), chunked=True), TOO_LONG),
        (Body(DATA[:-1]), "長さが違う"),
    ],
    ids=["too long", "too long and nobody says so", "too short"],
)
def test_another_length_than_the_list_says_is_refused(hub: Hub, wire: Wire, tmp_path: Path, fault: Fault, words: str) -> None:
    hub.add(NAME, FILES)
    hub.fault(WEIGHTS, fault)
    with pytest.raises(FormatError, match=words):
        fetch(wire, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    assert sha256(DATA) not in partial(tmp_path / "m"), "nothing of it stays"
    fetch(wire, tmp_path / "m")
    assert content(tmp_path / "m") == TAKEN


def test_an_end_that_comes_early_is_gone_on_from(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    hub.fault(WEIGHTS, Body(DATA[:2_000_000], chunked=True))
    done = fetch(wire, tmp_path / "m")
    assert content(tmp_path / "m") == TAKEN
    assert done.received == DISTINCT


def test_an_end_that_always_comes_early_ends_it(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    hub.fault(WEIGHTS, *[Body(b"", chunked=True)] * 20)
    with pytest.raises(RemoteError, match="途中で終わりました。4 回試しました"):
        fetch(wire, tmp_path / "m")
    assert len(hub.faults[WEIGHTS]) == 16


def test_a_range_that_is_ignored_starts_anew(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    hub.fault(WEIGHTS, Close(1_000_000), Whole())
    heard = Heard()
    done = fetch(wire, tmp_path / "m", heard)
    assert content(tmp_path / "m") == TAKEN
    assert done.received > DISTINCT
    assert heard.there == heard.total
    assert any("最初から" in notice for notice in heard.notices)


def test_a_range_that_cannot_be_starts_anew(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    hub.fault(WEIGHTS, Close(1_000_000), Status(416))
    fetch(wire, tmp_path / "m")
    assert content(tmp_path / "m") == TAKEN
    assert [("range" in headers) for role, _, headers in hub.requests if role == "elsewhere"] == [False, True, False]


def test_a_range_nobody_asked_for_is_refused(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    hub.fault(WEIGHTS, Close(1_000_000), Range(7))
    with pytest.raises(FormatError, match="頼んだところからではない"):
        fetch(wire, tmp_path / "m")


def test_busy_then_well_waits_as_long_as_the_server_asks(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    hub.fault("listing", Status(429, (("Retry-After", "1"),)))
    hub.fault(WEIGHTS, Status(503), Status(429, (("Retry-After", "0"),)))
    begun, heard = time.monotonic(), Heard()
    fetch(wire, tmp_path / "m", heard)
    assert time.monotonic() - begun >= 1
    assert content(tmp_path / "m") == TAKEN
    assert ["（429）" in notice for notice in heard.notices] == [True, False, True]


def test_a_wait_of_hours_is_the_persons_to_decide(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    hub.fault("listing", Status(429, (("Retry-After", "7200"),)))
    with pytest.raises(RemoteError, match="120 分待つ"):
        fetch(wire, tmp_path / "m")


@pytest.mark.parametrize("file", ["listing", WEIGHTS, "config.json"])
def test_an_error_for_ever_ends(hub: Hub, wire: Wire, tmp_path: Path, file: str) -> None:
    hub.add(NAME, FILES)
    hub.fault(file, *[Status(500)] * 100)
    with pytest.raises(RemoteError, match=r"（500）。4 回試しました"):
        fetch(wire, tmp_path / "m")
    assert len(hub.faults[file]) == 96
    assert not (tmp_path / "m").exists()


def test_nobody_there_ends(tmp_path: Path, wire: Wire) -> None:
    with Wire("http://127.0.0.1:9", None, wire.patience) as nowhere, pytest.raises(RemoteError, match="つながりません"):
        fetch(nowhere, tmp_path / "m")


# ── what the server says


@pytest.mark.parametrize(
    ("file", "headers", "words"),
    [
        (WEIGHTS, {"X-Repo-Commit": "0" * 40}, "別のコミット"),
        (WEIGHTS, {"X-Linked-Etag": f'"{"0" * 64}"'}, "ハッシュが違う"),
        (WEIGHTS, {"X-Linked-Size": "1"}, "大きさが違う"),
        ("config.json", {"X-Repo-Commit": "0" * 40}, "別のコミット"),
        ("config.json", {"X-Linked-Etag": f'W/"{"0" * 40}"'}, "ハッシュが違う"),
    ],
)
def test_headers_that_say_something_else_end_it_before_a_byte(
    hub: Hub, wire: Wire, tmp_path: Path, file: str, headers: dict[str, str], words: str
) -> None:
    hub.add(NAME, FILES)
    hub.fault(file, Extra(tuple(headers.items())))
    with pytest.raises(FormatError, match=words):
        fetch(wire, tmp_path / "m")
    assert {sha256(FILES[file]), blob(FILES[file])}.isdisjoint(partial(tmp_path / "m"))


def test_what_another_host_says_of_commits_and_hashes_is_nothing(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    hub.fault(WEIGHTS, Extra((("X-Repo-Commit", "0" * 40), ("X-Linked-Size", "1"), ("ETag", f'"{"0" * 64}"')), last=True))
    fetch(wire, tmp_path / "m")
    assert content(tmp_path / "m") == TAKEN


def test_an_etag_of_another_kind_says_nothing(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    hub.fault(WEIGHTS, Extra((("X-Linked-Etag", '"5d41402abc4b2a76b9719d911017c592"'), ("ETag", "W/xyz"))))
    fetch(wire, tmp_path / "m")
    assert content(tmp_path / "m") == TAKEN


def test_the_branch_moved_between_two_tries(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    """Half files of the old commit go; a whole one that is the same in the new one stays."""
    hub.add(NAME, {**FILES, "a.safetensors": DATA[:2_000_000], "b.safetensors": b"old" * 100_000})
    hub.fault(WEIGHTS, Close(1_000_000), *[Status(503)] * 3)
    with pytest.raises(RemoteError):
        fetch(wire, tmp_path / "m")
    assert partial(tmp_path / "m")[sha256(DATA)] > 0
    new = {**FILES, "a.safetensors": DATA[:2_000_000], "b.safetensors": b"new" * 100_000, "config.json": b"{}"}
    hub.add(NAME, new)
    hub.requests.clear()
    heard = Heard()
    fetch(wire, tmp_path / "m", heard)
    assert content(tmp_path / "m") == {name: data for name, data in new.items() if name != "x.bin"}
    assert any("今回のコミットのものではない" in notice for notice in heard.notices)
    assert not hub.asked("a.safetensors")
    assert [headers.get("range") for role, path, headers in hub.requests if role == "elsewhere"] == [None, None]


def test_no_mixture_when_the_branch_moves_on_the_way(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    offer = offered(wire)
    hub.add(NAME, {WEIGHTS: b"new", "config.json": b"{}"})
    pull(wire, offer, tmp_path / "m")
    assert content(tmp_path / "m") == TAKEN


@pytest.mark.parametrize("name", ["../x.json", "/tmp/x.json", "a/../../x.json", "..\\x.json", "x\x1b[2J.json"])
def test_hostile_names_write_nothing(hub: Hub, wire: Wire, tmp_path: Path, name: str) -> None:
    hub.add(NAME, {**FILES, name: b"{}"})
    (tmp_path / "in").mkdir()
    with pytest.raises(FormatError, match="使えないファイル名"):
        fetch(wire, tmp_path / "in" / "m")
    assert names(tmp_path / "in") == [] and names(tmp_path) == ["in"]


def test_a_list_without_end_is_refused(hub: Hub, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, FILES)
    monkeypatch.setattr(pulling, "MAX_JSON_BYTES", 1000)
    hub.listing = b" " * 5_000_000
    with pytest.raises(FormatError, match="一覧が"):
        fetch(wire, tmp_path / "m")


def test_without_safetensors_nothing_is_written(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    hub.add(NAME, {"pytorch_model.bin": b"x", "config.json": b"{}"})
    with pytest.raises(MissingError, match=r"pytorch_model\.bin"):
        fetch(wire, tmp_path / "m")
    assert names(tmp_path) == []


# ── where it goes


def test_more_than_the_disk_holds_is_refused_before_it_starts(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    commit = hub.add(NAME, FILES)
    siblings = hub.siblings(NAME, commit)
    siblings[0]["lfs"] = {"sha256": sha256(DATA), "size": 1 << 49}
    hub.listing = json.dumps({"sha": commit, "siblings": siblings}).encode()
    with pytest.raises(SpaceError, match="バイト要りますが、空きは"):
        fetch(wire, tmp_path / "m")
    assert not hub.asked("/resolve/")


CHILD = """
import resource, sys
from pathlib import Path
from tsuzuri.hub.listing import Repository
from tsuzuri.hub.pull import look, pull
from tsuzuri.hub.wire import Wire
resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))
with Wire(sys.argv[1], None) as wire:
    pull(wire, look(wire, Repository("owner", "name")), Path(sys.argv[2]))
"""


def test_a_disk_that_fills_up_keeps_what_has_come(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    """A limit on the size of files meets a write just as a full disk does."""
    hub.add(NAME, FILES)
    line = [sys.executable, "-c", CHILD, hub.address, str(tmp_path / "m")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, env={**os.environ, "TSUZURI_LANG": "ja"})
    assert "SpaceError" in done.stderr and "空き容量が足りません" in done.stderr and f"{sha256(DATA)} に書き込もうと" in done.stderr
    half = partial(tmp_path / "m")[sha256(DATA)]
    assert 1_000_000 < half <= 1_500_000
    resumed = fetch(wire, tmp_path / "m")
    assert content(tmp_path / "m") == TAKEN
    assert resumed.received == len(DATA) - half


def test_somebody_elses_directory_is_left_alone(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("大切", encoding="utf-8")
    with directory.whole(tmp_path / "run") as run:
        (run / "model.safetensors").write_bytes(b"trained for a week")
    hub.add("owner/other", FILES)
    pull(wire, look(wire, Repository("owner", "other")), tmp_path / "other")
    fetch(wire, tmp_path / "changed")
    (tmp_path / "changed" / "note.txt").write_text("memo", encoding="utf-8")
    before = {name: sorted(tmp_path.joinpath(name).rglob("*")) for name in ("mine", "run", "other", "changed")}
    hub.requests.clear()
    for name in before:
        with pytest.raises(ConfigError, match=r"別の|目録にない note\.txt"):
            fetch(wire, tmp_path / name)
        assert sorted(tmp_path.joinpath(name).rglob("*")) == before[name]
    assert not hub.asked("/resolve/")


def test_two_at_once_do_not_meet(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    hub.fault(WEIGHTS, Stall(500_000))
    other = threading.Thread(target=fetch, args=(wire, tmp_path / "m"))
    other.start()
    while sha256(DATA) not in partial(tmp_path / "m"):
        time.sleep(0.005)
    with pytest.raises(ConfigError, match="別のプロセス"), Wire(hub.address, None) as second:
        fetch(second, tmp_path / "m")
    hub.go.set()
    other.join()
    assert content(tmp_path / "m") == TAKEN


def test_without_hard_links_the_files_are_moved(hub: Hub, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", link)
    hub.add(NAME, FILES)
    fetch(wire, tmp_path / "m")
    assert content(tmp_path / "m") == TAKEN
    assert names(tmp_path) == ["m"]
    hub.add(NAME, {**FILES, "config.json": b"{}"})
    fetch(wire, tmp_path / "m")
    assert content(tmp_path / "m") == {**TAKEN, "config.json": b"{}"}


def test_the_files_are_linked_not_copied(hub: Hub, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, FILES)
    found = []

    def seen(folder: Path, target: Path, files: Any) -> None:
        laid(folder, target, files)
        found.append((folder / sha256(DATA)).stat().st_ino == (target / WEIGHTS).stat().st_ino)

    laid = pulling._lay
    monkeypatch.setattr(pulling, "_lay", seen)
    fetch(wire, tmp_path / "m")
    assert found == [True]
    assert (tmp_path / "m" / WEIGHTS).stat().st_nlink == 1


def test_a_symbolic_link_stays_and_partial_files_lie_where_it_leads(hub: Hub, wire: Wire, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    (tmp_path / "disk").mkdir()
    (tmp_path / "m").symlink_to(tmp_path / "disk" / "m")
    hub.fault(WEIGHTS, *[Status(503)] * 4)
    with pytest.raises(RemoteError):
        fetch(wire, tmp_path / "m")
    assert names(tmp_path) == ["disk", "m"] and names(tmp_path / "disk") == [".m.partial"]
    fetch(wire, tmp_path / "m")
    assert (tmp_path / "m").is_symlink()
    assert content(tmp_path / "disk" / "m") == TAKEN


def test_this_room_needs_no_torch() -> None:
    script = "import sys, tsuzuri.hub.pull; print([name for name in ('torch', 'rich', 'click') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
