"""What a model writes, as it is told: text up to a stop string, and the calls of tools in it.

In: pieces of text, cut anywhere. Out: `Text`s without tokens and `ToolCall`s, in order; and whether the answer is over before the model
says so. Stop strings are looked for in what is said to people, never inside a call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tsuzuri.chat.parse import Form, Parsing, Part
from tsuzuri.chat.stopping import Stopping
from tsuzuri.errors import ConfigError, Words
from tsuzuri.types import Event, Finish, Options, Text, ToolCall


class Reading:
    """Feed it with pieces; `over` is why the answer has ended, once it has."""

    def __init__(self, options: Options, form: Form | None = None) -> None:
        """Without a `form` nothing is a call. Raises ConfigError for stop strings that cannot be."""
        self.calls = 0
        self.over: Finish | None = None
        self._stopping = Stopping(options.stop)
        self._parsing = Parsing(form, [name_of(tool) for tool in options.tools], options.calls[1]) if form and options.tools else None

    @property
    def stop(self) -> str | None:
        """The stop string that ended it."""
        return self._stopping.found

    @property
    def calling(self) -> bool:
        """Whether a call may be under way, of which nothing is told yet."""
        return self._parsing is not None and self._parsing.inside

    def __call__(self, piece: str) -> list[Event]:
        return self._told(self._parsing(piece) if self._parsing else [piece])

    def flush(self) -> list[Event]:
        """What was held back: the text has ended."""
        if self.over is not None:
            return []
        found = self._told(self._parsing.flush() if self._parsing else [])
        rest = "" if self.over is not None else self._stopping.flush()
        return [*found, *([Text(rest)] if rest else [])]

    def _told(self, parts: Iterable[Part]) -> list[Event]:
        found: list[Event] = []
        for part in parts:
            text = self._stopping(part) if isinstance(part, str) else self._stopping.flush()
            found += [Text(text)] if text else []
            if self.stop is not None:
                self.over = "stop"
                break
            if isinstance(part, ToolCall):
                found.append(part)
                self.calls += 1
                if self._parsing and self._parsing.full:
                    self.over = "tool_calls"
                    break
        return found


def name_of(tool: Mapping[str, Any]) -> str:
    """Raises ConfigError for what has not the one form that tools have here."""
    function = tool.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not name:
        raise ConfigError(
            Words("モデルにツールが渡されました。", "Tools were given to the model."),
            found=Words(f"形が違います（{str(tool)[:60]}）。", f"One has another form ({str(tool)[:60]})."),
            todo=Words(
                '{"type": "function", "function": {"name": …, "description": …, "parameters": …}} の形で渡してください。',
                'Give {"type": "function", "function": {"name": …, "description": …, "parameters": …}}.',
            ),
        )
    return name
