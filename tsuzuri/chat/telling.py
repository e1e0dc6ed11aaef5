"""The events of an answer, from its tokens one by one: text as soon as it is certain, calls, and at the end the usage and why.

In: tokens. Out: events. What is not told yet when an answer ends early is not counted: `Reading` decides where it ends. It waits for
nobody: who has an event loop feeds it there, who has not in a loop of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from tsuzuri.chat.reading import Reading
from tsuzuri.types import Done, Event, Finish, Text, Token, Usage


class Counted(Protocol):
    """What a generation has come to."""

    @property
    def prompt_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def offered(self) -> int: ...
    @property
    def accepted(self) -> int: ...


class Telling:
    """Feed it with tokens until it is `over` or there are no more; then ask for the `rest`, and for the `last` events."""

    def __init__(self, decode: Callable[[int], str], special: Collection[int], reading: Reading, *, guesses: bool = False) -> None:
        """`decode` gives the text that is certain with an id; what `special` ids stand for is not said. `guesses`: they are told, too."""
        self.over = False
        self._decode, self._special, self._reading, self._guesses = decode, special, reading, guesses
        self._waiting: list[Token] = []  # their text is not certain yet
        self._finish: Finish = "cancelled"
        self._count = 0

    def __call__(self, token: Token) -> list[Event]:
        self._finish, self._count = token.finish or self._finish, self._count + 1
        self.over = token.finish is not None
        if token.finish == "stop":
            return []
        self._waiting.append(token)
        found = [self._with(event) for event in self._reading("" if token.id in self._special else self._decode(token.id))]
        if self._reading.over is not None:
            self.over, self._finish = True, self._reading.over
            if self._reading.stop is not None:
                self._waiting.clear()
        elif self._reading.calling:
            found += self._silent()
        return found

    def rest(self) -> list[Event]:
        """What was held back: there are no more tokens."""
        return [*(self._with(event) for event in self._reading.flush()), *self._silent()]

    def last(self, generation: Counted) -> list[Event]:
        detail: dict[str, object] = {} if self._reading.stop is None else {"stop": self._reading.stop}
        if self._guesses:
            detail["lookup"] = {"offered": generation.offered, "accepted": generation.accepted}
        finish = "tool_calls" if self._finish == "stop" and self._reading.calls else self._finish
        return [Usage(generation.prompt_tokens, self._count, generation.cached_tokens), Done(finish, detail)]

    def _silent(self) -> list[Event]:
        """Tokens of which nothing is to be read."""
        found: list[Event] = [Text("", tuple(self._waiting))] if self._waiting else []
        self._waiting.clear()
        return found

    def _with(self, event: Event) -> Event:
        """A text with the tokens that it came from, which are waiting no longer."""
        if not isinstance(event, Text):
            return event
        found = Text(event.text, tuple(self._waiting))
        self._waiting.clear()
        return found
