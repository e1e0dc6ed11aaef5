"""Calls of tools in what a model writes: found while the text still arrives, in the form of its own template.

In: pieces of text, cut anywhere. Out: text, and `ToolCall`s once they are whole: a call in halves could do harm. The law: the same at every
cut. What looks like a call and is none (no JSON, a tool that was not offered, cut off) stays text: nothing a model said is lost.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias

from tsuzuri.types import ToolCall

SPACES = " \t\r\n"
Part: TypeAlias = str | ToolCall


@dataclass(frozen=True, slots=True)
class Form:
    """How a template writes a call: `head` name `middle` arguments `tail`, or with the arguments before the name; together it is JSON
    between two marks, or without any."""

    head: str  # '<tool_call>\n{"name": "'
    middle: str  # '", "arguments": '
    tail: str  # '}\n</tool_call>'
    name: str  # the keys of the JSON
    arguments: str
    between: str | None  # white space between two calls; None: an answer has one call at most
    speaks: bool  # whether words before a call are shown, too
    name_first: bool = True

    @property
    def opening(self) -> str:
        return self.head[: self.head.rindex("{")].strip()

    @property
    def closing(self) -> str:
        return self.tail.partition("}")[2].strip()


def call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


class Parsing:
    """Feed it with pieces. `inside`: a call may be under way; `full`: no further one is wanted."""

    def __init__(self, form: Form, names: Collection[str], most: int | None = None, new_id: Callable[[], str] = call_id) -> None:
        self._form, self._names, self._new_id = form, frozenset(names), new_id
        self._most = 1 if form.between is None else most
        self._calls = 0
        self._held = ""  # outside: what may yet become the mark; inside: everything since the white space before it
        self._at = 0  # inside: how far it is looked at
        self._object = 0  # inside: where the JSON begins
        self._depth, self._quoted, self._escaped = 0, False, False
        self._state: Literal["outside", "before", "object", "after", "never"] = "outside"

    @property
    def inside(self) -> bool:
        return self._state in ("before", "object", "after")

    @property
    def full(self) -> bool:
        return self._most is not None and self._calls >= self._most

    def __call__(self, piece: str) -> list[Part]:
        """What has become certain with this piece."""
        if self._state == "never" or self.full:
            return [piece] if piece else []
        self._held += piece
        found: list[Part] = []
        while self._step(found):
            if self.full:
                found += [self._held] if self._held else []
                self._held = ""
                break
        return found

    def flush(self) -> list[Part]:
        """The text has ended. A call that only lacks its closing mark is whole."""
        held, state = self._held, self._state
        self._held, self._state = "", "outside"
        if state == "after":
            call = self._call(held[self._object : self._end])
            if call is not None and self._form.closing.startswith(held[self._end :].strip(SPACES)):
                return [call]
        if not held or (state == "outside" and self._calls and not held.strip(SPACES)):
            return []  # no template writes white space after the last call
        return [held]

    def _step(self, found: list[Part]) -> bool:
        """Goes on as far as one state leads; False where more text is needed."""
        match self._state:
            case "outside":
                return self._outside(found) if self._form.opening else self._bare(found)
            case "before":
                return self._before(found)
            case "object":
                return self._within()
            case "after":
                return self._after(found)
        return False

    def _outside(self, found: list[Part]) -> bool:
        opening, held = self._form.opening, self._held
        at = held.find(opening)
        if at < 0:
            self._say(found, len(held[: len(held) - _unfinished(held, opening)].rstrip(SPACES)))
            return False
        self._say(found, len(held[:at].rstrip(SPACES)))
        self._at = self._held.index(opening) + len(opening)
        self._state = "before"
        return True

    def _bare(self, found: list[Part]) -> bool:
        """Without marks an answer is a call, or it begins otherwise."""
        first = self._held.lstrip(SPACES)[:1]
        if not first:
            return False
        if first == "{":
            self._at, self._state = self._held.index("{"), "before"
            return True
        self._say(found, len(self._held))
        self._state = "never"
        return False

    def _before(self, found: list[Part]) -> bool:
        while self._at < len(self._held) and self._held[self._at] in SPACES:
            self._at += 1
        if self._at == len(self._held):
            return False
        if self._held[self._at] != "{":
            return self._no_call(found, self._at)
        self._object, self._state = self._at, "object"
        self._depth, self._quoted, self._escaped = 0, False, False
        return True

    def _within(self) -> bool:
        """To the brace that closes the first one; braces in strings are none."""
        for at in range(self._at, len(self._held)):
            sign = self._held[at]
            if self._quoted:
                self._quoted = sign != '"' or self._escaped
                self._escaped = sign == "\\" and not self._escaped
            elif sign == '"':
                self._quoted = True
            elif sign in "{}":
                self._depth += 1 if sign == "{" else -1
                if self._depth == 0:
                    self._at, self._state = at + 1, "after"
                    self._end = self._at
                    return True
        self._at = len(self._held)
        return False

    def _after(self, found: list[Part]) -> bool:
        """White space and the closing mark, and the call is whole."""
        closing = self._form.closing
        rest = self._held[self._end :].lstrip(SPACES) if closing else ""
        if not rest.startswith(closing):
            return False if closing.startswith(rest) else self._no_call(found, self._end)
        call = self._call(self._held[self._object : self._end])
        stop = len(self._held) - len(rest) + len(closing) if closing else self._end
        if call is None:
            return self._no_call(found, stop)
        found.append(call)
        self._calls += 1
        self._held, self._state = self._held[stop:], "outside"
        return True

    def _no_call(self, found: list[Part], stop: int) -> bool:
        """It was text up to here; what follows is looked at anew."""
        self._say(found, stop)
        self._state = "outside" if self._form.opening else "never"
        if self._state == "never":
            self._say(found, len(self._held))
        return True

    def _say(self, found: list[Part], count: int) -> None:
        text, self._held = self._held[:count], self._held[count:]
        if text:
            found.append(text)

    def _call(self, text: str) -> ToolCall | None:
        """None for what is no call of a tool that was offered."""
        try:
            made = json.loads(text, parse_constant=_no_number)
            name, arguments = made.get(self._form.name), made.get(self._form.arguments, {})
            if not isinstance(name, str) or name not in self._names or not isinstance(arguments, dict):
                return None
            shown = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
            shown.encode()  # JSON can write half a surrogate pair
        except (ValueError, RecursionError):
            return None
        return ToolCall(self._new_id(), name, shown)


def _unfinished(text: str, mark: str) -> int:
    """How many characters at the end could begin the mark."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if mark.startswith(text[-n:])), 0)


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def parsed(text: str, form: Form, names: Collection[str], most: int | None = None, new_id: Callable[[], str] = call_id) -> list[Part]:
    """A whole text at once, neighbouring texts joined."""
    reading = Parsing(form, names, most, new_id)
    return joined([*reading(text), *reading.flush()])


def joined(parts: list[Any]) -> list[Part]:
    found: list[Part] = []
    for part in parts:
        if isinstance(part, str) and found and isinstance(found[-1], str):
            found[-1] += part
        else:
            found.append(part)
    return found
