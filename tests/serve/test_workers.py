"""A model in a process of its own answers as it does in this one; it can be left, killed and ended; and it is told no secret."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st
from processes import alive, ends
from serve import readers

from tsuzuri.engine import constraint
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import BusyError, ConfigError, TsuzuriError, Words
from tsuzuri.serve import lines
from tsuzuri.serve.models import Embedded, Prepared, Served, from_directory
from tsuzuri.serve.workers import Worker, beside
from tsuzuri.types import Done, Event, Message, Notice, Options, Source, Text, Thought, Token, ToolCall, Usage

SAID = [Message("system", "短く答えてください。"), Message("user", "料理とは何ですか。")]
TOOL = {
    "type": "function",
    "function": {
        "name": "天気",
        "parameters": {"type": "object", "properties": {"町": {"enum": ["京都", 1, None]}}, "additionalProperties": False},
    },
}
FORM = constraint.json_schema(
    {"type": "object", "properties": {"数": {"type": "integer"}}, "required": ["数"], "additionalProperties": False}
)

GROWN = constraint.json_schema({"type": "string", "pattern": "^" + "." * 27 + "$"})  # its check writes more than it reads


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.make(tmp_path_factory.mktemp("worker") / "long", context=8192)


@pytest.fixture(scope="module")
def both(directory: Path) -> Iterator[tuple[Served, Served]]:
    """In a process of its own, and in this one."""
    there, here = beside(directory, threads=1), from_directory(directory, threads=1)
    yield there, here
    for each in (there, here):
        assert each.mine is not None
        each.mine.close()


async def all_of(events: AsyncIterator[Any]) -> list[Any]:
    """But for the ids of calls, which are new each time."""
    return [replace(event, id="call") if isinstance(event, ToolCall) else event async for event in events]


def run(served: Served, work: Callable[[Any], Any]) -> Any:
    """In a loop of its own; a `Worker` has one loop, so each is asked in one go."""
    return asyncio.run(work(served.tokens))


ASKED: dict[str, Callable[[Any], Any]] = {
    "chat": lambda m: all_of(m.chat("甲")(SAID, Options(Sampling(seed=1, max_tokens=12)))),
    "log-probabilities": lambda m: all_of(m.chat("甲")(SAID, Options(Sampling(seed=2, max_tokens=6, logprobs=3)))),
    "settings": lambda m: all_of(m.chat("甲")(SAID, Options(Sampling(seed=3, max_tokens=9, top_p=0.5, logit_bias={3: -100.0}, stop_token_ids=(7,))))),
    "stop": lambda m: all_of(m.chat("甲")(SAID, Options(Sampling(seed=4, max_tokens=40), stop=("の", "。")))),
    "form": lambda m: all_of(m.chat("甲")(SAID, Options(Sampling(seed=5, max_tokens=20, constraint=FORM)))),
    "grown": lambda m: all_of(m.chat("甲")(SAID, Options(Sampling(seed=5, max_tokens=20, constraint=GROWN)))),
    "tools": lambda m: all_of(m.chat("甲")(SAID, Options(Sampling(seed=6, max_tokens=200), tools=(TOOL,), calls=(1, 1)))),
    "text": lambda m: all_of(m.complete("料理とは、", Options(Sampling(seed=7, max_tokens=8)), "甲")),
    "ids": lambda m: all_of(m.complete([5, 6, 7], Options(Sampling(seed=8, max_tokens=8)), "甲")),
    "encode": lambda m: m.encode("𠮷野家で\n牛丼\0を"),
    "decode": lambda m: m.decode([300, 301, 302]),
    "conversation": lambda m: m.conversation(SAID, [TOOL]),
    "source": lambda m: m.source("料理"),
    "length": lambda m: m.length(SAID, [TOOL]),
    "length of a text": lambda m: m.length("料理とは"),
    "prepare": lambda m: m.prepare("料理"),
    "fits": lambda m: m.fits(SAID),
}  # fmt: skip
REFUSED: dict[str, Callable[[Any], Any]] = {
    "a text that is too long": lambda m: m.fits("料" * 1_000_000),
    "a conversation that is too long": lambda m: m.fits([Message("user", "料" * 1_000_000)]),
    "too many tokens": lambda m: all_of(m.complete([5] * 9000, Options(Sampling(max_tokens=1)), "甲")),
    "an id that there is not": lambda m: m.prepare([10**6]),
    "a token that there is not": lambda m: all_of(m.chat("甲")(SAID, Options(Sampling(logit_bias={10**6: 1.0})))),
}


async def _every(model: Any) -> tuple[dict[str, Any], dict[str, tuple[str, str, str]]]:
    found = {name: await ask(model) for name, ask in ASKED.items()}
    refused = {}
    for name, ask in REFUSED.items():
        with pytest.raises(TsuzuriError) as raised:
            await ask(model)
        refused[name] = (type(raised.value).__name__, str(raised.value), raised.value.code)
    embedded = [one async for one in model.embed([await model.prepare("料理"), await model.prepare([5, 6])])]
    return {**found, "embed": embedded}, refused


def test_it_answers_as_in_this_process(both: tuple[Served, Served]) -> None:
    there, here = both
    assert (there.name, there.tools, there.length) == (here.name, here.tools, here.length)
    told, refused = run(there, _every)
    assert (told, refused) == run(here, _every)
    assert len(told["chat"]) > 2 and isinstance(told["embed"][1][1], Embedded)
    assert any(isinstance(event, ToolCall) for event in told["tools"])
    assert {kind for kind, _, _ in refused.values()} == {"ContextError", "InputError", "ConfigError"}
    assert there.tokens is not None and here.tokens is not None
    assert [there.tokens.spell(id) for id in range(700)] == [here.tokens.spell(id) for id in range(700)]


def seconds(process: int) -> float:
    """Of the processor, all threads."""
    cells = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(cells[11]) + int(cells[12])) / os.sysconf("SC_CLK_TCK")


LONG = Options(Sampling(seed=1, max_tokens=8000, ignore_eos=True))


def test_whoever_stops_listening_ends_the_work(directory: Path) -> None:
    worker = Worker(directory, threads=1)

    async def leave() -> tuple[float, float]:
        events = worker.chat("甲")(SAID, LONG)
        await anext(events)
        begun = seconds(worker.process)
        await asyncio.sleep(0.5)
        working = seconds(worker.process) - begun
        await events.aclose()  # type: ignore[attr-defined]
        await asyncio.sleep(0.2)
        begun = seconds(worker.process)
        await asyncio.sleep(0.5)
        return working, seconds(worker.process) - begun

    working, left = asyncio.run(leave())
    worker.close()
    assert working > 0.2 and left < 0.1


def test_one_that_dies_takes_only_what_it_was_doing(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker(directory, threads=1)

    async def kill() -> tuple[int, int, list[Event]]:
        events = [worker.chat(tenant)(SAID, LONG) for tenant in "甲乙"]
        for each in events:
            await anext(each)
        first = worker.process
        os.kill(first, signal.SIGKILL)
        for each in events:
            with pytest.raises(BusyError):
                async for _ in each:
                    pass
        again = await asyncio.gather(*(all_of(worker.chat(tenant)(SAID, Options(Sampling(seed=1, max_tokens=3)))) for tenant in "甲乙"))
        assert again[0] == again[1]
        return first, worker.process, again[0]

    with caplog.at_level(logging.ERROR, "tsuzuri.serve"):
        first, second, events = asyncio.run(kill())
    assert first != second and not alive(first) and isinstance(events[-1], Done)
    assert [record.message for record in caplog.records].count("the process that computes long has ended; it is started again") == 1
    worker.close()
    assert not alive(second)

    async def late() -> None:
        with pytest.raises(BusyError):
            await worker.encode("料理")

    asyncio.run(late())


def test_a_fault_is_told_by_its_place_and_nothing_more(
    both: tuple[Served, Served], directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(directory, threads=1)
    wrong: Any = {"ひみつ": 1}

    async def ask() -> None:
        with pytest.raises(RuntimeError):
            await worker.encode(wrong)
        assert await worker.encode("料理")

    with caplog.at_level(logging.ERROR, "tsuzuri.serve"):
        asyncio.run(ask())
    worker.close()
    [told] = [record.message for record in caplog.records]
    assert told.startswith("the process that computes: AttributeError at serve/local.py:") and "ひみつ" not in told


def test_it_ends_with_whoever_started_it(directory: Path) -> None:
    script = f"from tsuzuri.serve.workers import Worker; import pathlib, time; print(Worker(pathlib.Path({str(directory)!r})).process, flush=True); time.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    process = int(parent.stdout.readline())
    assert alive(process)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert ends(process, 20)


def test_it_is_told_no_secret(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "TSUZURI_DATABASE_URL", "TSUZURI_SECRETS_DIR", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "himitsu-0123456789")
    worker = Worker(directory, threads=1)
    told = Path(f"/proc/{worker.process}/environ").read_bytes() + Path(f"/proc/{worker.process}/cmdline").read_bytes()
    worker.close()
    assert b"himitsu" not in told and b"PATH=" in told


def test_what_it_remembers_is_on_the_disk_when_it_ends(directory: Path, tmp_path: Path) -> None:
    said = [Message("user", "料理とは、食材を切ったり熱を加えたりして食べられるようにすることです。" * 4)]

    async def cached(worker: Worker) -> int:
        events = await all_of(worker.chat("甲")(said, Options(Sampling(seed=1, max_tokens=2))))
        return next(event.cached_tokens for event in events if isinstance(event, Usage))

    found = []
    for _ in range(2):
        worker = Worker(directory, threads=1, pages=tmp_path)
        found.append(asyncio.run(cached(worker)))
        worker.close()
    assert found[0] == 0 < found[1]


def test_the_server_itself_loads_no_torch(directory: Path) -> None:
    script = f"import pathlib, sys; from tsuzuri.serve.workers import beside; m = beside(pathlib.Path({str(directory)!r})); m.mine.close(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True).stdout == "False\n"


def test_what_cannot_be_opened_is_told_as_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name that it was given."""
    monkeypatch.chdir(tmp_path)
    for how in ({}, {"quantize": "q4_0"}):
        wrong = []
        for opening in (beside, from_directory):
            with pytest.raises(TsuzuriError) as raised:
                opening(Path("nothing"), **how)
            wrong.append((type(raised.value), raised.value.asked, raised.value.found, raised.value.todo))
        assert wrong[0] == wrong[1]


def test_one_that_only_reads(tmp_path: Path) -> None:
    """Word vectors: no text comes of them, and how long a text may be is not bounded."""
    there, here = beside(readers.words(tmp_path / "words")), from_directory(tmp_path / "words")
    assert there.tokens is None and there.length is None

    async def ask(reader: Any) -> list[Any]:
        return [await all_of(reader.embed([await reader.prepare("猫と犬")]))]

    assert there.reader is not None and here.reader is not None
    assert asyncio.run(ask(there.reader)) == asyncio.run(ask(here.reader))
    there.reader.close()
    here.reader.close()


# ── lines

TEXTS = st.text(st.characters(), max_size=20)
TOKENS = st.builds(
    Token,
    st.integers(0, 1 << 31),
    st.floats(allow_nan=False),
    st.lists(st.tuples(st.integers(0, 9), st.floats(allow_nan=False)), max_size=3).map(tuple),
    st.sampled_from([None, "stop", "length"]),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.just("a") | st.just("tuple") | st.just("pairs"), inner, max_size=3)
    ),
    max_leaves=8,
)
CALLS = st.builds(ToolCall, TEXTS, TEXTS, TEXTS)
VALUES = st.one_of(
    st.builds(Text, TEXTS, st.lists(TOKENS, max_size=3).map(tuple)),
    st.builds(Thought, TEXTS),
    CALLS,
    st.builds(Source, TEXTS, TEXTS, TEXTS),
    st.builds(Notice, TEXTS),
    st.builds(Usage, st.integers(0), st.integers(0), st.integers(0)),
    st.builds(Done, st.sampled_from(["stop", "cancelled"]), st.dictionaries(TEXTS, JSON, max_size=3)),
    st.builds(Message, st.sampled_from(["user", "tool"]), TEXTS, st.lists(CALLS, max_size=2).map(tuple), st.none() | TEXTS),
    st.builds(
        Options,
        st.builds(
            Sampling,
            temperature=st.floats(0, 2),
            seed=st.none() | st.integers(-(2**63), 2**63 - 1),
            logit_bias=st.dictionaries(st.integers(0, 99), st.floats(-100, 100), max_size=3),
            stop_token_ids=st.lists(st.integers(0, 99), max_size=3).map(tuple),
            constraint=st.sampled_from([None, FORM, GROWN, constraint.choice(["赤", "青"]), constraint.Constraint("regex", "[0-9]+")]),
        ),
        st.lists(TEXTS, max_size=2).map(tuple),
        st.lists(st.dictionaries(TEXTS, JSON, max_size=3), max_size=2).map(tuple),
        st.tuples(st.integers(0, 1), st.none() | st.integers(1, 4)),
        st.none() | TEXTS,
    ),
    st.builds(Prepared, st.lists(st.integers(0, 9), max_size=3), st.integers(0), st.none() | st.builds(Embedded, st.lists(st.floats(-1, 1), max_size=3), st.integers(0))),
    st.tuples(st.integers(), JSON),
    JSON,
)  # fmt: skip


@given(VALUES)
def test_a_line_is_what_was_written(value: Any) -> None:
    line = lines.written({"id": 1, "part": lines.plain(value)})
    found = lines.value(lines.read(line)["part"])
    assert found == value and type(found) is type(value) and line.count(b"\n") == 1 and line.endswith(b"\n")


@pytest.mark.parametrize("kind", lines.ERRORS.values())
def test_errors_cross_as_they_are(kind: type[TsuzuriError]) -> None:
    error = kind(Words("甲", "a"), found=Words("乙", "b"), todo=Words("丙", "c"), code="x")
    found = lines.error(lines.read(lines.written({"error": lines.of_error(error)}))["error"])
    assert type(found) is kind and (str(found), found.code, found.asked) == (str(error), "x", error.asked)


@pytest.mark.parametrize(
    "line", [b'{"part":{"a":"Popen","of":{}}}', b'{"part":{"a":"Sampling","of":{"temperature":9}}}', b"\xff", b"{", b"[]"]
)
def test_a_line_makes_nothing_else(line: bytes) -> None:
    with pytest.raises((ValueError, KeyError, ConfigError)):
        lines.value(lines.read(line)["part"])


# ── when it goes wrong at the worst moment

FACTS = {"name": "fake", "writes": True, "tools": False, "context_length": 9, "longest": None, "plainly": True, "spelled": ["a"]}
FAKE = f"""
import json, os, pathlib, socket, sys, time
place = pathlib.Path(json.loads(sys.argv[1])["directory"])
with (place / "starts").open("a") as file:
    file.write("x")
number = (place / "starts").stat().st_size
channel = socket.socket(fileno=os.dup(0)).makefile("rwb", buffering=0)
time.sleep(1 if number > 1 and (place / "slow").exists() else 0)
channel.write({json.dumps(FACTS).encode() + chr(10).encode()!r})
for line in channel:
    found = json.loads(line)
    if found["do"] == "encode" and number == 1 and (place / "first").exists():
        last = (place / "first").read_bytes()
        channel.write(last)
        time.sleep(600 if last.endswith(bytes([10])) else 0)  # one that says nothing of sense may hang, too
        sys.exit(3)
    if found["do"] == "encode":
        channel.write(json.dumps({{"id": found["id"], "part": [number]}}).encode() + chr(10).encode())
        channel.write(json.dumps({{"id": found["id"], "end": True}}).encode() + chr(10).encode())
"""


class Fake(Worker):
    """Says what it is asked with which number it was started; the first one ends with what the file `first` holds."""

    program = ("-c", FAKE)


@pytest.mark.parametrize("last", [b"", b'{"id":0,"par', b"\xff\n", b"7\n", b"{}\n"], ids=["nothing", "half", "bytes", "number", "no id"])
def test_whatever_it_says_last_the_next_one_answers(last: bytes, tmp_path: Path) -> None:
    (tmp_path / "first").write_bytes(last)
    worker = Fake(tmp_path)

    async def ask() -> list[int]:
        with pytest.raises(BusyError):
            await worker.encode("あ")
        found = [await worker.encode("あ"), await worker.encode("い")]
        await asyncio.to_thread(worker.close)
        return [each[0] for each in found]

    assert asyncio.run(asyncio.wait_for(ask(), 30)) == [2, 2]


def test_whoever_leaves_while_it_starts_again_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "first").write_bytes(b"")
    (tmp_path / "slow").touch()
    worker = Fake(tmp_path)

    async def ask() -> list[int]:
        with pytest.raises(BusyError):
            await worker.encode("あ")
        for seconds in (0.0, 0.01, 0.5):
            leaving = asyncio.create_task(worker.encode("い"))
            await asyncio.sleep(seconds)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
        found = await asyncio.gather(*(worker.encode("う") for _ in range(3)))
        await asyncio.to_thread(worker.close)
        return [each[0] for each in found]

    assert asyncio.run(asyncio.wait_for(ask(), 30)) == [2, 2, 2]
    assert (tmp_path / "starts").read_text() == "xx"


@pytest.mark.parametrize("steps", range(5))
def test_whoever_leaves_while_it_is_first_heard_stops_nothing(steps: int, tmp_path: Path) -> None:
    worker = Fake(tmp_path)

    async def ask() -> list[int]:
        leaving = asyncio.create_task(worker.encode("あ"))
        for _ in range(steps):
            await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        found = await worker.encode("い")
        await asyncio.to_thread(worker.close)
        return found

    assert asyncio.run(asyncio.wait_for(ask(), 30)) == [1]


def test_one_that_cannot_be_started_again_is_tried_with_the_next_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "first").write_bytes(b"")
    worker = Fake(tmp_path)

    async def ask() -> list[int]:
        with pytest.raises(BusyError):
            await worker.encode("あ")
        with monkeypatch.context() as wrong:
            wrong.setattr(worker, "_line", ["/nowhere/python"])
            with pytest.raises(BusyError):
                await worker.encode("あ")
        found = await worker.encode("い")
        await asyncio.to_thread(worker.close)
        return found

    assert asyncio.run(asyncio.wait_for(ask(), 30)) == [2]


def test_one_that_dies_before_it_is_asked_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its start and the first line to it: whoever asks does not wait for ever."""
    worker = Fake(tmp_path)
    up = worker._up

    async def dying() -> None:
        await up()
        os.kill(worker.process, signal.SIGKILL)
        while worker._writer is not None:
            await asyncio.sleep(0.01)

    async def ask() -> list[int]:
        with monkeypatch.context() as wrong:
            wrong.setattr(worker, "_up", dying)
            with pytest.raises(BusyError):
                await worker.encode("あ")
        found = await worker.encode("い")
        await asyncio.to_thread(worker.close)
        return found

    assert asyncio.run(asyncio.wait_for(ask(), 20)) == [2]


def test_it_ends_by_order_and_by_no_signal_to_all(directory: Path) -> None:
    worker = Worker(directory, threads=1)

    async def ask() -> None:
        events = worker.chat("甲")(SAID, Options(Sampling(seed=1, max_tokens=300, ignore_eos=True)))
        await anext(events)
        for name in (signal.SIGTERM, signal.SIGINT):
            os.kill(worker.process, name)
        assert isinstance((await all_of(events))[-1], Done)

    asyncio.run(ask())
    worker.close()
    assert not alive(worker.process)


def test_many_numbers_go_in_several_lines(both: tuple[Served, Served], directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tsuzuri.serve.workers.FEW", 5)
    worker, here = Worker(directory, threads=1), both[1].tokens

    async def ask(model: Any) -> list[Any]:
        return await all_of(model.embed([await model.prepare(text) for text in ("料理", "今日の天気は", "雨", "東京タワーの高さ")]))

    found = asyncio.run(ask(worker))
    worker.close()
    assert found == asyncio.run(ask(here)) and [place for place, _ in found] == [0, 1, 2, 3]
