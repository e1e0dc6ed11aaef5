"""Where an answer ends: stop strings, found across token borders while the text still arrives.

In: pieces of text, cut anywhere. Out: what is certain to belong to the answer. The law: the same answer at every cut.
The stop string that is complete first ends it; of two that are complete at once, the one that began first.
"""

from __future__ import annotations

from collections.abc import Sequence

from tsuzuri.errors import ConfigError, Words

MAX_STOPS, MAX_LENGTH = 64, 1024  # strings, characters each


def as_stops(stop: object) -> tuple[str, ...]:
    """None, one string or several, as several. Raises ConfigError for anything else."""
    if stop is None or isinstance(stop, str):
        return () if stop is None else (stop,)
    if not isinstance(stop, Sequence) or isinstance(stop, bytes | bytearray):
        raise _refused()
    return tuple(stop)


class Stopping:
    """Feed it with pieces; `found` is the stop string once one is complete, and nothing comes out after that."""

    def __init__(self, stops: Sequence[str]) -> None:
        """Raises ConfigError for an empty stop string, which would end every answer, too many or too long ones."""
        if (
            isinstance(stops, str)
            or not all(isinstance(stop, str) and 0 < len(stop) <= MAX_LENGTH for stop in stops)
            or len(stops) > MAX_STOPS
        ):
            raise _refused()
        self.found: str | None = None
        self._stops = tuple(stops)
        self._held = ""

    def __call__(self, piece: str) -> str:
        """The text that has become certain with this piece."""
        if self.found is not None:
            return ""
        text = self._held + piece
        ends = [(text.index(stop) + len(stop), -len(stop), stop) for stop in self._stops if stop in text]
        if ends:
            end, _, self.found = min(ends)
            self._held = ""
            return text[: end - len(self.found)]
        cut = len(text) - self._unfinished(text)
        self._held = text[cut:]
        return text[:cut]

    def flush(self) -> str:
        """What was held back and is no stop string after all: the text has ended."""
        text, self._held = self._held, ""
        return text

    def _unfinished(self, text: str) -> int:
        """How many characters at the end could begin a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        return next((n for n in range(min(longest, len(text)), 0, -1) if any(stop.startswith(text[-n:]) for stop in self._stops)), 0)


def _refused() -> ConfigError:
    return ConfigError(
        Words("stop が指定されました。", "stop was given."),
        found=Words(
            f"指定できるのは、1〜{MAX_LENGTH} 文字の文字列を {MAX_STOPS} 個までです。",
            f"It takes at most {MAX_STOPS} strings of 1 to {MAX_LENGTH} characters.",
        ),
        todo=Words("stop を直してください。", "Correct stop."),
    )
