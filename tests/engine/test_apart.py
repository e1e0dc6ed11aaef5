"""What strangers ask for is compiled somewhere else first: what takes too much is ended there, and nobody else notices."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from processes import ends

from tsuzuri.engine.apart import TOO_MUCH, Apart
from tsuzuri.engine.constrain import KEPT, LIMITS, WHOLE, Vocabulary, program
from tsuzuri.engine.constraint import Constraint, choice, json_schema
from tsuzuri.errors import BusyError, ConfigError, MissingError, Words

GOOD = program(choice(["赤", "青"])) + WHOLE
SLOW = json_schema({"type": "integer", "multipleOf": 19997})  # 0.3 s of computing
STATUS = Path("/proc/self/statm")


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    found = Apart()
    yield found
    found.close()


def vocabulary(apart: Apart | None) -> Vocabulary:
    found = Vocabulary(lambda id: bytes([id]), 256)
    found.apart = apart
    return found


def process(apart: Apart) -> int:
    """The id of a process that is free."""
    worker = apart._free.queue[-1]
    assert worker is not None
    return worker._process.pid


@pytest.mark.parametrize(
    "constraint",
    [
        choice(["a"]),
        SLOW,
        Constraint("regex", "[ぁ-ん]{3}"),
        Constraint("grammar", "start: missing"),
        Constraint("regex", "foo**["),
        Constraint("regex", "(?=a)b"),
        json_schema({"type": "integer", "minimum": 5, "maximum": 3}),
    ],
    ids=lambda one: one.text[:30],
)
def test_it_says_what_is_wrong_as_it_would_be_said_here(apart: Apart, constraint: Constraint) -> None:
    said = []
    for where in (None, apart):
        try:
            vocabulary(where).matcher(constraint)
            said.append(None)
        except ConfigError as error:
            said.append(str(error.found))
    assert said[0] == said[1]


def test_what_takes_too_long_is_ended_and_remembered_and_others_go_on() -> None:
    apart = Apart(seconds=0.05, workers=1)
    try:
        assert apart.wrong(GOOD, LIMITS) is None
        first = process(apart)
        with pytest.raises(ConfigError, match="かかりすぎます"):
            vocabulary(apart).matcher(SLOW)
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
        assert apart.wrong(GOOD, LIMITS) is None, "a new process"
        second, begun = process(apart), time.process_time()
        assert apart.wrong(program(SLOW) + WHOLE, LIMITS) == TOO_MUCH
        assert time.process_time() - begun < 0.01 and process(apart) == second, "not tried again"
    finally:
        apart.close()


def test_one_that_hangs_without_computing_is_ended_by_the_clock() -> None:
    apart = Apart(wall=2, workers=1)
    try:
        apart.warm()
        assert apart.wrong(GOOD, LIMITS) is None
        stuck = process(apart)
        os.kill(stuck, signal.SIGSTOP)
        assert apart.wrong(program(choice(["c"])) + WHOLE, LIMITS) == TOO_MUCH
        with pytest.raises(ProcessLookupError):
            os.kill(stuck, 0)
    finally:
        apart.close()


def test_a_process_that_was_killed_meanwhile_is_nobodys_fault(apart: Apart) -> None:
    assert apart.wrong(GOOD, LIMITS) is None
    old = process(apart)
    os.kill(old, signal.SIGKILL)
    time.sleep(0.1)
    assert apart.wrong(program(choice(["緑"])) + WHOLE, LIMITS) is None
    assert process(apart) != old


def test_its_memory_has_a_bound(apart: Apart) -> None:
    apart.wrong(GOOD, LIMITS)
    limits = Path(f"/proc/{process(apart)}/limits").read_text()
    bounds = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()[1:]}
    assert int(bounds["Max address space"]) == 1 << 30
    assert int(bounds["Max stack size"]) <= 4 << 20


def test_what_takes_too_much_memory_is_refused() -> None:
    apart = Apart(memory=16 << 20, workers=1)  # bytes: all is taken before it begins
    try:
        assert apart.wrong(program(Constraint("regex", "(.{0,200}a){20}")) + WHOLE, LIMITS) == TOO_MUCH
    finally:
        apart.close()


def test_it_knows_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSUZURI_REMOTE_KEY", "sk-planted")
    apart = Apart(workers=1)
    try:
        assert apart.wrong(GOOD, LIMITS) is None
        environment = Path(f"/proc/{process(apart)}/environ").read_bytes()
        assert b"PATH=" in environment and b"planted" not in environment
    finally:
        apart.close()


def test_it_ends_with_whoever_started_it() -> None:
    script = "import os\nfrom tsuzuri.engine.apart import Apart\na = Apart()\na.warm()\nprint(a._free.queue[-1]._process.pid, flush=True)\nos._exit(1)"
    pid = int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False).stdout)
    assert ends(pid, 10)


def test_closed_means_gone() -> None:
    apart = Apart()
    assert apart.wrong(GOOD, LIMITS) is None
    pid = process(apart)
    apart.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_is_known_does_not_wait_for_what_is_slow(apart: Apart) -> None:
    known = vocabulary(apart)
    known.matcher(choice(["a"]))
    order: list[str] = []
    slow = threading.Thread(target=lambda: (known.matcher(SLOW), order.append("slow")))
    slow.start()
    for _ in range(50):
        known.matcher(choice(["a"]))
    order.append("known")
    slow.join()
    assert order == ["known", "slow"]


def test_too_many_at_once_are_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tsuzuri.engine.apart.WAITING", 0.05)
    apart = Apart(workers=1)
    try:
        taken = apart._free.get()
        with pytest.raises(BusyError):
            apart.wrong(GOOD, LIMITS)
        apart._free.put(taken)
        assert apart.wrong(GOOD, LIMITS) is None
    finally:
        apart.close()


def test_who_asks_for_many_waits_for_their_own_and_not_others_for_them(apart: Apart, monkeypatch: pytest.MonkeyPatch) -> None:
    known = vocabulary(apart)
    monkeypatch.setattr("tsuzuri.engine.constrain.WAITING", 0.05)
    inner, let, begun, many = apart.wrong, threading.Event(), threading.Event(), 0

    def slowly(written: str, limits: Mapping[str, object]) -> Words | None:
        nonlocal many
        many += 1
        begun.set()
        assert let.wait(10)
        return inner(written, limits)

    monkeypatch.setattr(apart, "wrong", slowly)
    busy = threading.Thread(target=known.matcher, args=(choice(["a"]), "greedy"))
    busy.start()
    assert begun.wait(10)
    with pytest.raises(BusyError, match="同じ依頼元"):
        known.matcher(choice(["b"]), "greedy")
    assert many == 1, "of one tenant one at a time is tried, whatever is free"
    monkeypatch.setattr(apart, "wrong", inner)
    known.matcher(choice(["c"]), "another")
    let.set()
    busy.join()
    known.matcher(choice(["b"]), "greedy")


def test_one_that_cannot_start_is_nobodys_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tsuzuri.engine.apart.CHILD", tmp_path / "none.py")
    apart = Apart(workers=1)
    try:
        for _ in range(2):
            with pytest.raises(BusyError, match="始まりません"):
                apart.wrong(GOOD, LIMITS)
    finally:
        apart.close()


def test_without_the_package_no_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    apart = Apart()
    with pytest.raises(MissingError, match=r"tsuzuri\[constrain\]"):
        vocabulary(apart).matcher(choice(["a"]))
    assert set(apart._free.queue) == {None}


def _megabytes(pid: int | str = "self") -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.skipif(not STATUS.exists(), reason="reads /proc")
def test_schemas_that_are_all_different_take_no_more_and_more_memory(apart: Apart) -> None:
    """A seeded share of what a stranger could send in a day: after the first ones, memory stays where it is."""
    known, numbers = vocabulary(apart), random.Random(7)

    def ask(count: int) -> None:
        for _ in range(count):
            names = [str(numbers.random()) for _ in range(numbers.randrange(1, 6))]
            kinds = {name: {"type": numbers.choice(["string", "integer", "boolean"])} for name in names}
            known.matcher(json_schema({"type": "object", "properties": kinds, "required": names[:2]})).ruled_out(256, {0})

    ask(60)
    before = _megabytes(), _megabytes(process(apart))
    ask(300)
    assert _megabytes() - before[0] < 4, "here"
    assert _megabytes(process(apart)) - before[1] < 4, "there"
    kept = known._kept.keys("")
    assert len(json.dumps([each.text for each in kept])) < KEPT and len(kept) < 20


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
def test_what_compiles_here_gives_way_too() -> None:
    """What is tried elsewhere is compiled here a second time; answers come before that, and before nothing else that this process does."""
    vocabulary(None).matcher(choice(["a"]))
    here = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    compiling = [thread for thread in threading.enumerate() if thread.name.startswith("tsuzuri-compiling")]
    assert compiling and all(os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) == min(19, here + 10) for thread in compiling)
    assert all(
        os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) == here for thread in threading.enumerate() if thread not in compiling
    )
