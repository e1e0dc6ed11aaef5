"""How a chat template writes calls of tools: found by having it render some.

In: a way to render, the special tokens. Out: its `Form`, or None for a template that shows no tools, loses a part of what they are, or
writes calls otherwise than as JSON between two marks. It asks no list of known models: what a template writes is what is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from tsuzuri.chat.parse import SPACES, Form
from tsuzuri.errors import FormatError
from tsuzuri.types import Message, ToolCall

Render = Callable[[Sequence[Message], bool, Sequence[Mapping[str, object]]], str]

NAME, TOLD, KEY, SAID, ANSWER = "probe_name", "probe told", "probe_key", "probe said", "probe answer"
ARGUMENTS = '{"probe_key": "probe_value"}'
SCHEMA = {"type": "object", "properties": {KEY: {"type": "string", "description": "probe"}}, "required": [KEY]}
TOOL: Mapping[str, object] = {"type": "function", "function": {"name": NAME, "description": TOLD, "parameters": SCHEMA}}
ASKED = Message("user", "probe asked")
CALL = ToolCall("probe0001", NAME, ARGUMENTS)  # nine letters and digits: some templates ask for just that


def form_of(render: Render, special: Collection[str]) -> Form | None:
    """None where it cannot show tools, all of a call, and the answer of a tool."""
    try:
        return _probed(render, special)
    except FormatError:
        return None


def _probed(render: Render, special: Collection[str]) -> Form | None:
    start = render([ASKED], True, (TOOL,))
    if not all(part in start for part in (NAME, TOLD, KEY)):
        return None
    alone = render([ASKED, Message("assistant", "", (CALL,))], False, (TOOL,))
    spoken = _after_question(render([ASKED, Message("assistant", SAID, (CALL,))], False, (TOOL,)))
    plain = _after_question(render([ASKED, Message("assistant", SAID)], False, (TOOL,)))
    answered = render([ASKED, Message("assistant", "", (CALL,)), Message("tool", ANSWER, tool_call_id=CALL.id)], True, (TOOL,))
    speaks = SAID in spoken
    if SAID not in plain or ANSWER not in answered or not (speaks or alone.startswith(start)):
        return None
    end = plain.partition(SAID)[2]  # what ends a turn
    cut = _cut(spoken.partition(SAID)[2] if speaks else alone[len(start) :], end)
    if cut is None:
        return None
    head, middle, tail, name_first = cut
    keys = _keys(head, middle, tail, name_first=name_first)
    if keys is None or any(token in head + middle + tail for token in special):
        return None
    between = _between(render, head, tail) if head[: head.rindex("{")].strip(SPACES) else None
    return Form(head, middle, tail, *keys, between, speaks, name_first)


def _after_question(text: str) -> str:
    return text.rpartition(ASKED.content)[2]


def _cut(text: str, end: str) -> tuple[str, str, str, bool] | None:
    """What stands around the name and the arguments of a call, and whether the name comes first."""
    name_first = 0 <= text.find(NAME) < text.find(ARGUMENTS)
    one, two = (NAME, ARGUMENTS) if name_first else (ARGUMENTS, NAME)
    head, first, rest = text.partition(one)
    middle, second, tail = rest.partition(two)
    if not first or not second or not tail.endswith(end):
        return None
    return head.lstrip(SPACES), middle, tail.removesuffix(end), name_first


def _keys(head: str, middle: str, tail: str, *, name_first: bool) -> tuple[str, str] | None:
    """Under which names the JSON has the name and the arguments; None where it is no such JSON."""
    brace = head.rfind("{")
    if brace < 0 or "}" not in tail:
        return None
    one, two = (NAME, ARGUMENTS) if name_first else (ARGUMENTS, NAME)
    try:
        made: Any = json.loads(head[brace:] + one + middle + two + tail[: tail.index("}") + 1])
    except ValueError:
        return None
    kept = {name: key for key, name in made.items() if isinstance(name, str)}
    others = [key for key, value in made.items() if isinstance(value, dict)]
    return (kept[NAME], others[0]) if len(made) == 2 and NAME in kept and len(others) == 1 else None


def _between(render: Render, head: str, tail: str) -> str | None:
    """White space between two calls of one answer; None where there cannot be two."""
    second = ToolCall("probe0002", NAME, ARGUMENTS)
    try:
        twice = _after_question(render([ASKED, Message("assistant", "", (CALL, second))], False, (TOOL,)))
    except FormatError:
        return None
    _, first, rest = twice.partition(head)
    space = rest.partition(tail)[2].partition(head)
    return space[0] if first and space[1] and not space[0].strip(SPACES) else None
