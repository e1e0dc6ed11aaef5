"""Conversations from files: JSON lines with `messages`, plain or zstd, checked turn by turn.

In: paths. Out: `Conversation`s. It renders nothing: `template.py` turns one into tokens.
"""

from __future__ import annotations

import io
import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from tsuzuri.errors import InputError, Words
from tsuzuri.types import Message

MAX_LINE = 1 << 22  # characters: no conversation is four million long


@dataclass(frozen=True, slots=True)
class Conversation:
    messages: tuple[Message, ...]
    source: str = ""
    licence: str = ""


def files(names: Sequence[str]) -> list[Path]:
    """Files, and the .jsonl and .jsonl.zst files of directories, sorted. Raises InputError when there is none."""
    found: list[Path] = []
    for name in names:
        path = Path(name)
        inside = [p for p in path.rglob("*") if p.name.endswith((".jsonl", ".jsonl.zst"))] if path.is_dir() else [path]
        found += sorted(inside)
    missing = [path for path in found if not path.is_file()]
    if missing or not found:
        raise InputError(
            Words(f"会話データ {'、'.join(names)} を探しました。", f"Looking for conversations in {', '.join(names)}."),
            found=Words("ありません。", "There is none.")
            if not missing
            else Words(f"{missing[0]} がありません。", f"{missing[0]} is not there."),
            todo=Words("JSON Lines 形式のファイルを指定してください。", "Name files of JSON lines."),
        )
    return found


def read(paths: Sequence[Path]) -> Generator[Conversation, None, None]:
    """One conversation a line. Raises InputError naming file and line for anything that is not one."""
    for path in paths:
        for number, line in enumerate(_lines(path), 1):
            if line.strip():
                yield _conversation(line, path, number)


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as raw:
            stream = zstandard.ZstdDecompressor().stream_reader(raw) if path.suffix == ".zst" else raw
            with io.TextIOWrapper(stream, encoding="utf-8") as text:
                yield from text
    except (OSError, UnicodeDecodeError, zstandard.ZstdError) as error:
        raise InputError(
            Words(f"会話データ {path} を読もうとしました。", f"Reading conversations from {path}."),
            found=Words(f"読めません（{type(error).__name__}）。", f"It cannot be read ({type(error).__name__})."),
            todo=Words(
                "UTF-8 の JSON Lines か、その zstd 圧縮か確かめてください。", "Check that it is JSON lines in UTF-8, plain or zstd."
            ),
        ) from error


def _conversation(line: str, path: Path, number: int) -> Conversation:
    try:
        if len(line) > MAX_LINE:
            raise ValueError(f"{len(line)} characters")
        record = json.loads(line)
        messages = tuple(_message(item) for item in record["messages"])
        problem = _problem(messages)
        if problem:
            raise ValueError(problem)
        return Conversation(messages, str(record.get("source", "")), str(record.get("licence", "")))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        detail = f"{type(error).__name__}: {error}"
        raise InputError(
            Words(f"会話データ {path} の {number} 行目を読もうとしました。", f"Reading line {number} of {path}."),
            found=Words(f"会話として読めません（{detail}）。", f"It is not a conversation ({detail})."),
            todo=Words(
                '{"messages": [{"role": …, "content": …}, …]} の形にしてください。', 'Make it {"messages": [{"role": …, "content": …}, …]}.'
            ),
        ) from error


def _message(item: dict[str, Any]) -> Message:
    role, content = item["role"], item["content"]
    if role not in ("system", "user", "assistant", "tool") or not isinstance(content, str):
        raise ValueError(f"role {role!r}")
    return Message(role, content)


def _problem(messages: Sequence[Message]) -> str | None:
    """What is wrong with the turns, or None."""
    roles = [message.role for message in messages]
    if not roles:
        return "no messages"
    if "system" in roles[1:]:
        return "a system message after the first"
    if roles[-1] != "assistant":
        return "the last message is not the assistant's"
    if any(not message.content for message in messages):
        return "an empty message"
    return None
