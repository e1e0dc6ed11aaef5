"""A Chat that answers from a script, for tests and for trying a wrapper without a model.

In: one list of events (or a text) for each call, in order. Out: a `Chat`. It computes nothing; what it was asked is in `calls`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from tsuzuri.errors import ConfigError, Words
from tsuzuri.types import Done, Event, Message, Options, Text


class Scripted:
    """A text answers character by character and ends with Done; events are given as they are; an exception is raised in place."""

    def __init__(self, *answers: str | Sequence[Event | Exception]) -> None:
        self.calls: list[tuple[tuple[Message, ...], Options]] = []
        self._answers = answers

    async def __call__(self, messages: Sequence[Message], options: Options) -> AsyncIterator[Event]:
        """The next answer of the script. Raises ConfigError when there is none left."""
        self.calls.append((tuple(messages), options))
        if len(self.calls) > len(self._answers):
            raise ConfigError(
                Words(f"台本に {len(self.calls)} 回目の答えを求めました。", f"Asked the script for answer {len(self.calls)}."),
                found=Words(f"台本には {len(self._answers)} 回分しかありません。", f"It has {len(self._answers)}."),
                todo=Words("台本に答えを足してください。", "Add an answer to the script."),
            )
        answer = self._answers[len(self.calls) - 1]
        events: Sequence[Event | Exception] = [*map(Text, answer), Done("stop")] if isinstance(answer, str) else answer
        for event in events:
            if isinstance(event, Exception):
                raise event
            yield event
