"""The rival of one who reads by a table: which piece of a target each character of a source becomes, counted from the pairs alone.

In: pairs whose targets go through their sources from left to right, such as names and how they are read. Out: for a source the target
that its longest known runs make. Pieces are found by hard expectation–maximisation (Viterbi training; Jelinek 1976): the table says how
to divide a target, and the divided targets make the table.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

LONGEST = 5  # characters of a piece: 志, こころざし
RUN = 3  # characters of a source that are looked up together, at most
ROUNDS = 5
UNSEEN = math.log(1e-5)


class Pieces:
    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._table: dict[str, Counter[str]] = {}
        for _ in range(ROUNDS):
            divided = [(source, self._divide(source, target)) for source, target in pairs]
            table: dict[str, Counter[str]] = defaultdict(Counter)
            for source, pieces in divided:
                for character, piece in zip(source, pieces, strict=False):
                    table[character][piece] += 1
            self._table = dict(table)
        runs: dict[str, Counter[str]] = defaultdict(Counter)
        for source, pieces in divided:
            for start in range(len(pieces)):
                for stop in range(start + 1, min(start + RUN, len(pieces)) + 1):
                    runs[source[start:stop]]["".join(pieces[start:stop])] += 1
        self._best = {run: counts.most_common(1)[0][0] for run, counts in runs.items()}

    def __call__(self, source: str) -> str:
        """The commonest target of each run, the longest known run first; a character that was never seen stays as it is."""
        said, at = "", 0
        while at < len(source):
            run = next((source[at:stop] for stop in range(min(at + RUN, len(source)), at, -1) if source[at:stop] in self._best), source[at])
            said += self._best.get(run, run)
            at += len(run)
        return said

    def _divide(self, source: str, target: str) -> list[str]:
        """The likeliest pieces, one a character; none where the target is too long for the source."""
        best: dict[int, tuple[float, list[str]]] = {0: (0.0, [])}
        for character in source:
            grown: dict[int, tuple[float, list[str]]] = {}
            for end, (nats, pieces) in best.items():
                for stop in range(end, min(end + LONGEST, len(target)) + 1):
                    piece = target[end:stop]
                    value = nats + self._likely(character, piece, len(target) / len(source))
                    if stop not in grown or value > grown[stop][0]:
                        grown[stop] = (value, [*pieces, piece])
            best = grown
        return best.get(len(target), (0.0, []))[1]

    def _likely(self, character: str, piece: str, usual: float) -> float:
        """Before there is a table: the closer to the usual length, the likelier; a character is likeliest to become itself."""
        if character == piece:
            return 0.0
        if not self._table:
            return -abs(len(piece) - usual) - (not piece)
        counts = self._table.get(character)
        return math.log(counts[piece] / counts.total()) if counts and counts[piece] else UNSEEN
