"""Conversations from files: JSON lines with `messages`, and `tools` where some are called, plain or packed (.zst, .gz), checked turn by turn.

In: paths. Out: `Conversation`s, all of them and whole: what cannot be read, or would be left out, is an error that names
file and line. It renders nothing: `template.py` turns one into tokens.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from tsuzuri.errors import InputError, Words
from tsuzuri.text.bytelevel import utf8
from tsuzuri.text.corpus.read import objects
from tsuzuri.types import Message, Role, ToolCall

MAX_LINE = 1 << 24  # bytes, unpacked: no conversation is five million characters long
ROLES = get_args(Role)
KEYS = {
    "assistant": ("role", "content", "tool_calls"),
    "tool": ("role", "content", "tool_call_id"),
}  # of a message; others have the first two
LEARNED = ("functions", "system", "documents", "images", "weight", "chat_template_kwargs")  # of a record; others describe it
FORM = Words(
    '一行に一つ {"messages": [{"role": …, "content": …}, …]} の形で書いてください。',
    'Write one {"messages": [{"role": …, "content": …}, …]} a line.',
)


@dataclass(frozen=True, slots=True)
class Conversation:
    messages: tuple[Message, ...]
    source: str = ""
    licence: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()


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
    besides words and calls of tools that no template here shows: left out, it would change what is learned."""
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
    messages = tuple(map(_message, record["messages"]))
    return Conversation(messages, str(record.get("source") or ""), str(record.get("licence") or ""), tuple(record.get("tools") or ()))


def _message(item: dict[str, Any]) -> Message:
    calls = [_call(number, call) for number, call in enumerate(item.get("tool_calls") or ())]
    return Message(item["role"], item.get("content") or "", tuple(calls), item.get("tool_call_id") or None)


def _call(number: int, call: dict[str, Any]) -> ToolCall:
    """Arguments as JSON, whether the data has them so or as an object; without an id the place stands for it."""
    arguments = call["function"].get("arguments") or {}
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return ToolCall(str(call.get("id") or number), call["function"]["name"], text)


def _lost(record: dict[str, Any]) -> str | None:
    """The first key of which nothing would be left; one without a value says nothing."""
    besides = [
        (f"messages[{i}].{key}", value)
        for i, item in enumerate(record["messages"])
        for key, value in item.items()
        if key not in KEYS.get(item["role"], ("role", "content"))
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
    broken = (
        _wrong_tools(record.get("tools") or ())
        or _broken(str(record.get("source")), "source")
        or _broken(str(record.get("licence")), "licence")
    )
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
    calls = item.get("tool_calls") if role == "assistant" else None
    if calls:
        return _wrong_calls(calls, content, name)
    if not isinstance(content, str) or not content:
        return Words(f"{name}.content が空か、文字列ではありません。", f"{name}.content is empty or no string.")
    return _broken(content, f"{name}.content")


def _wrong_tools(tools: Any) -> Words | None:
    wrong = next((i for i, tool in enumerate(tools if isinstance(tools, list) else [tools]) if not _named(tool, ("parameters",))), None)
    return None if not tools or wrong is None else Words(f"tools[{wrong}] が関数の形ではありません。", f"tools[{wrong}] is no function.")


def _wrong_calls(calls: Any, content: Any, name: str) -> Words | None:
    """Beside calls there need not be words."""
    for i, call in enumerate(calls if isinstance(calls, list) else [None]):
        if not _named(call, ("arguments",)):
            return Words(
                f"{name}.tool_calls[{i}] が関数の呼び出しの形ではありません。", f"{name}.tool_calls[{i}] is no call of a function."
            )
        broken = _broken(json.dumps(call, ensure_ascii=False), f"{name}.tool_calls[{i}]")
        if broken:
            return broken
    if content is not None and not isinstance(content, str):
        return Words(f"{name}.content が文字列ではありません。", f"{name}.content is no string.")
    return _broken(content or "", f"{name}.content")


def _named(one: Any, objects: Sequence[str]) -> bool:
    """Whether it is a function with a name, of which these are objects or JSON, if they are there."""
    function = one.get("function") if isinstance(one, dict) and one.get("type") in (None, "function") else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        return False
    return all(isinstance(_loaded(function.get(key)) or {}, dict) for key in objects)


def _loaded(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _broken(text: str, name: str) -> Words | None:
    """JSON can write half a surrogate pair, and no tokenizer can read it."""
    try:
        utf8(text)
    except InputError as error:
        return Words(f"{name}：{error.found.ja}", f"{name}: {error.found.en}")
    return None
