"""Conversations from files: all of them or an error with file and line; what would change the learning is never dropped."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import zstandard
from place import ROOT

from tsuzuri.chat import conversations
from tsuzuri.chat.conversations import Conversation, files, read
from tsuzuri.errors import InputError
from tsuzuri.types import Message, ToolCall

TURNS = [{"role": "user", "content": "山は？"}, {"role": "assistant", "content": "高いです。"}]
TALK = (Message("user", "山は？"), Message("assistant", "高いです。"))


def lines(*records: Any) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def fault(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        list(read([path]))
    assert path.name in str(caught.value)
    return str(caught.value)


def refused(tmp_path: Path, record: Any) -> str:
    """What is said about a record that stands in the second line."""
    said = fault(tmp_path / "talk.jsonl", lines({"messages": TURNS}, record))
    assert "2 行目" in said
    return said


def test_the_sample_is_read_whole() -> None:
    found = list(read(files([str(ROOT / "sample" / "chat")])))
    packed = [zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read() for path in (ROOT / "sample" / "chat").iterdir()]
    assert len(found) == sum(data.count(b"\n") for data in packed) > 3000
    assert all(one.source and one.licence and one.messages[-1].role == "assistant" for one in found)


@pytest.mark.parametrize("suffix", ["", ".zst", ".gz"])
def test_plain_and_packed_are_the_same(tmp_path: Path, suffix: str) -> None:
    data = lines({"messages": TURNS, "source": "某", "licence": "MIT"}, {"messages": TURNS}) + b"\n"
    packed = {"": lambda: data, ".zst": lambda: zstandard.compress(data), ".gz": lambda: gzip.compress(data)}[suffix]()
    (tmp_path / f"talk.jsonl{suffix}").write_bytes(packed)
    assert list(read(files([str(tmp_path)]))) == [Conversation(TALK, "某", "MIT"), Conversation(TALK)]


@pytest.mark.parametrize("pack", [zstandard.compress, gzip.compress])
def test_a_file_that_was_cut_off_is_refused_wherever_it_was_cut(tmp_path: Path, pack: Any) -> None:
    data = pack(lines(*({"messages": TURNS, "id": number} for number in range(40))))
    suffix = ".zst" if pack is zstandard.compress else ".gz"
    for length in range(len(data)):
        said = fault(tmp_path / f"talk.jsonl{suffix}", data[:length])
        assert "途中で切れて" in said if length else "空のファイル" in said


def test_a_line_is_bounded_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "MAX_LINE", 1 << 20)
    bomb = zstandard.compress(lines({"messages": TURNS}) + b" " * (1 << 28))
    tracemalloc.start()
    try:
        assert "2 行目が 1 MiB を超えています" in fault(tmp_path / "talk.jsonl.zst", bomb)
        assert tracemalloc.get_traced_memory()[1] < 1 << 27
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("key", ["tool_call_id", "name", "weight", "reasoning_content", "train"])
def test_what_a_message_says_besides_is_refused_by_name(tmp_path: Path, key: str) -> None:
    said = refused(tmp_path, {"messages": [TURNS[0], {**TURNS[1], key: 0}]})
    assert f"messages[1].{key}" in said
    assert "除く" in said


@pytest.mark.parametrize("key", ["functions", "system", "documents", "images", "weight", "chat_template_kwargs"])
def test_what_a_record_would_teach_besides_is_refused_by_name(tmp_path: Path, key: str) -> None:
    assert f"「{key}」" in refused(tmp_path, {"messages": TURNS, key: [{"type": "function"}]})


def test_what_describes_a_record_and_what_has_no_value_is_taken(tmp_path: Path) -> None:
    record = {"messages": [{**message, "tool_calls": None, "name": ""} for message in TURNS], "tools": [], "source": None}
    (tmp_path / "talk.jsonl").write_bytes(lines({**record, "id": 7, "credit": "某", "licence": "MIT", "score": 0.5}))
    assert list(read([tmp_path / "talk.jsonl"])) == [Conversation(TALK, "", "MIT")]


def test_calls_of_tools_are_read_as_other_software_writes_them(tmp_path: Path) -> None:
    """Arguments as an object or as JSON, with an id or without."""
    tool = {"type": "function", "function": {"name": "天気", "parameters": {"type": "object"}}}
    calls: list[Any] = [
        {"type": "function", "function": {"name": "天気", "arguments": {"所": "東京"}}},
        {"id": "b", "function": {"name": "天気", "arguments": '{"所": "大阪"}'}},
    ]
    answer = {"role": "tool", "content": "雨", "tool_call_id": "b"}
    turns = [TURNS[0], {"role": "assistant", "content": None, "tool_calls": calls}, answer, TURNS[1]]
    (tmp_path / "talk.jsonl").write_bytes(lines({"messages": turns, "tools": [tool]}))
    called = (ToolCall("0", "天気", '{"所": "東京"}'), ToolCall("b", "天気", '{"所": "大阪"}'))
    messages = (TALK[0], Message("assistant", "", called), Message("tool", "雨", tool_call_id="b"), TALK[1])
    assert list(read([tmp_path / "talk.jsonl"])) == [Conversation(messages, tools=(tool,))]


@pytest.mark.parametrize("record", [{"messages": [TURNS[0], {"role": "assistant", "content": "高い\ud83d"}]},
                                    {"messages": TURNS, "source": "\udfff"}])  # fmt: skip
def test_half_a_surrogate_pair_is_refused_with_file_and_line(tmp_path: Path, record: Any) -> None:
    assert "サロゲート" in refused(tmp_path, record)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ([], "の形ではありません"),
        ({"text": "山"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": {"role": "user"}}, "messages"),
        ({"messages": ["山は？"]}, "messages[0]"),
        ({"messages": [{"content": "山は？"}]}, "messages[0].role"),
        ({"messages": [{"role": "root", "content": "山は？"}]}, "messages[0].role"),
        ({"messages": [{"role": [], "content": "山は？"}]}, "messages[0].role"),
        ({"messages": [TURNS[0], {"role": "assistant"}]}, "messages[1].content"),
        ({"messages": [TURNS[0], {"role": "assistant", "content": [{"type": "text"}]}]}, "messages[1].content"),
        ({"messages": [TURNS[0], {"role": "assistant", "content": ""}]}, "messages[1].content"),
        ({"messages": TURNS[:1]}, "assistant"),
        ({"messages": TURNS, "tools": [{"type": "function"}]}, "tools[0]"),
        ({"messages": TURNS, "tools": [{"type": "web_search", "function": {"name": "a"}}]}, "tools[0]"),
        ({"messages": [TURNS[0], {**TURNS[1], "tool_calls": 1}]}, "messages[1].tool_calls[0]"),
        ({"messages": [TURNS[0], {**TURNS[1], "tool_calls": [{"function": {"arguments": {}}}]}]}, "messages[1].tool_calls[0]"),
        ({"messages": [TURNS[0], {**TURNS[1], "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]}, "messages[1].tool_calls[0]"),
        ({"messages": [TURNS[0], {**TURNS[1], "tool_calls": [{"function": {"name": "\ud83d"}}]}]}, "サロゲート"),
        ({"messages": [TURNS[0], {"role": "system", "content": "短く"}, TURNS[1]]}, "system"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_conversation_is_said(tmp_path: Path, record: Any, words: str) -> None:
    assert words in refused(tmp_path, record)


@pytest.mark.parametrize("line", [b"{", b'{"messages": "\xff"}', b"[" * 100_000], ids=lambda line: str(line[:9]))
def test_what_is_no_json_is_refused_with_its_line(tmp_path: Path, line: bytes) -> None:
    said = fault(tmp_path / "talk.jsonl", lines({"messages": TURNS}) + line + b"\n")
    assert "2 行目" in said and '"messages"' in said


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    for name in (tmp_path, tmp_path / "none.jsonl"):
        with pytest.raises(InputError):
            files([str(name)])
