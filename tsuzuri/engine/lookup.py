"""Guesses at what comes next, out of what stands there already (prompt lookup: Saxena 2023).

In: all ids so far, prompt and output. Out: what followed the last earlier occurrence of their end. A guess costs nothing and changes
nothing: the engine reads several guesses in one call, and each token is still chosen by the request's own rules. It knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence

RUNS = (3, 2)  # ids that have to be the same for a guess; two, where the three were never seen before
MOST = 64  # guesses of one call


class Lookup:
    """The ids of one request, and where each short run of them ended last: a guess takes the same time however long they are."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # a run of ids -> the place after its last occurrence but the one at the end
        for id in ids:
            self.add(id)

    def add(self, id: int) -> None:
        """The next one is known. The run that ended before it has something that follows it now."""
        for run in self._runs():
            self._after[run] = len(self._ids)
        self._ids.append(id)

    def guess(self, most: int) -> list[int]:
        """At most `most` ids that may come next; none where their end is new."""
        for run in self._runs():
            if run in self._after:
                start = self._after[run]
                return self._ids[start : start + most]
        return []

    def _runs(self) -> list[tuple[int, ...]]:
        """The last ids, the longest run first."""
        return [tuple(self._ids[-length:]) for length in RUNS if length <= len(self._ids)]
