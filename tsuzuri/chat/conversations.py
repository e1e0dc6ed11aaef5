"""Conversations from files: JSON lines with `messages`, plain or packed (.zst, .gz), checked turn by turn.

In: paths. Out: `Conversation`s, all of them and whole: what cannot be read, or would be left out, is an error that names
file and line. It renders nothing: `template.py` turns one into tokens.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from tsuzuri.errors import InputError, Words
from tsuzuri.text.bytelevel import utf8
from tsuzuri.text.corpus.read import objects
from tsuzuri.types import Message, Role

MAX_LINE = 1 << 24  # bytes, unpacked: no conversation is five million characters long
ROLES = get_args(Role)
KEYS = ("role", "content")  # of a message
LEARNED = ("tools", "functions", "system", "documents", "images", "weight", "chat_template_kwargs")  # of a record; others describe it
FORM = Words(
    '一行に一つ {"messages": [{"role": …, "content": …}, …]} の形で書いてください。',
    'Write one {"messages": [{"role": …, "content": …}, …]} a line.',
)


@dataclass(frozen=True, slots=True)
class Conversation:
    messages: tuple[Message, ...]
    source: str = ""
    licence: str = ""


def files(names: Sequence[str]) -> list[Path]:
    """Files, and the .jsonl files of directories, packed or not, sorted. Raises InputError when there is none."""
    found: list[Path] = []
    for name in names:
        path = Path(name)
        inside = [p for p in path.rglob("*") if p.name.endswith((".jsonl", ".jsonl.zst", ".jsonl.gz"))] if path.is_dir() else [path]
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
    """One conversation a line. Raises InputError naming file and line for anything that is not one, and for what it says
    besides `role` and `content` that no template here shows: left out, it would change what is learned."""
    for path in paths:
        for number, record in objects(path, MAX_LINE, FORM):
            yield _conversation(record, path, number)


def _conversation(record: dict[str, Any], path: Path, number: int) -> Conversation:
    asked = Words(f"会話データ {path} の {number} 行目を読もうとしました。", f"Reading line {number} of {path}.")
    wrong = _wrong(record)
    if wrong:
        raise InputError(asked, found=wrong, todo=FORM)
    lost = _lost(record)
    if lost:
        raise InputError(
            asked,
            found=Words(
                f"項目「{lost}」は学習に使えません。黙って捨てると、学習する内容が変わってしまいます。",
                f"'{lost}' cannot be trained on; dropped, it would change what is learned.",
            ),
            todo=Words("その項目を除くか、その会話を外してください。", "Take that key out, or leave that conversation out."),
        )
    messages = tuple(Message(item["role"], item["content"]) for item in record["messages"])
    return Conversation(messages, str(record.get("source") or ""), str(record.get("licence") or ""))


def _lost(record: dict[str, Any]) -> str | None:
    """The first key of which nothing would be left; one without a value says nothing."""
    besides = [
        (f"messages[{i}].{key}", value) for i, item in enumerate(record["messages"]) for key, value in item.items() if key not in KEYS
    ]
    besides += [(key, record[key]) for key in LEARNED if key in record]
    return next((name for name, value in besides if value not in (None, "", [], {})), None)


def _wrong(record: dict[str, Any]) -> Words | None:
    """What is wrong with a record, or None."""
    items = record.get("messages")
    if not isinstance(items, list) or not items:
        return Words("messages に発言が並んでいません。", "There is no list of messages in it.")
    for i, item in enumerate(items):
        wrong = _wrong_message(item, f"messages[{i}]")
        if wrong:
            return wrong
    broken = _broken(str(record.get("source")), "source") or _broken(str(record.get("licence")), "licence")
    if broken:
        return broken
    roles = [item["role"] for item in items]
    if "system" in roles[1:]:
        return Words("system の発言が先頭以外にあります。", "A system message stands after the first.")
    if roles[-1] != "assistant":
        return Words("最後が assistant の発言ではありません。", "The last message is not the assistant's.")
    return None


def _wrong_message(item: Any, name: str) -> Words | None:
    if not isinstance(item, dict):
        return Words(f"{name} が {{…}} の形ではありません。", f"{name} is not an object.")
    role, content = item.get("role"), item.get("content")
    if role not in ROLES:
        return Words(f"{name}.role が {'、'.join(ROLES)} のどれでもありません。", f"{name}.role is none of {', '.join(ROLES)}.")
    if not isinstance(content, str) or not content:
        return Words(f"{name}.content が空か、文字列ではありません。", f"{name}.content is empty or no string.")
    return _broken(content, f"{name}.content")


def _broken(text: str, name: str) -> Words | None:
    """JSON can write half a surrogate pair, and no tokenizer can read it."""
    try:
        utf8(text)
    except InputError as error:
        return Words(f"{name}：{error.found.ja}", f"{name}: {error.found.en}")
    return None
