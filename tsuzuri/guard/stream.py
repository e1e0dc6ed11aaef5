"""Masking while the text still arrives. The law: joined, what comes out is the masked whole, at every cut.

In: pieces of text, cut anywhere. Out: what is certain, with tokens. Why the law holds: the text is read in chunks, whose borders follow
from the text alone (the end of a sentence, a line break that is inside no number), and each chunk is searched together with
the BEFORE characters before it. The whole is read the same way. What is held back is at most one chunk: MOST characters.

Two ways of searching, one result (a law): `_each` reads every chunk with every check; `_suspected` looks through many chunks at once for what the
checks need, and reads only the chunks that have it, with the checks that need it. Few chunks go the first way, a long text the second.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise

from tsuzuri.guard.checks._context import BEFORE
from tsuzuri.guard.finding import LONGEST, Finding, look, needed, settled, sought
from tsuzuri.guard.mask import LITERAL, Vault, token_pattern
from tsuzuri.guard.normal import Normal, even, odd

MOST = 1024  # characters held back
MANY = 8  # chunks, from which on it pays to look through all of them first
_GOES_ON = r"0123456789０１２３４５６７８９〇一二三四五六七八九十\-‐‑–−－ー() （） \u3000\t\n"  # a number, in the next line
_ENDS = re.compile(rf"[。！？!?]|\n(?![{_GOES_ON}])")
_DIGIT = re.compile(r"\d")
_LINE_GOES_ON = frozenset("-‐‑–−－ー:：=都道府県市区町村郡")
_DOUBTFUL = _LINE_GOES_ON | frozenset(" \u3000\t")
_UNCUT = re.compile(r"[^。！？!?\n]")


class Masking:
    """Feed it with pieces. `findings` are those of everything that came out so far, in places of the whole text. `many`: see MANY."""

    def __init__(self, vault: Vault, kinds: Sequence[str], many: int = MANY) -> None:
        self.findings: list[Finding] = []
        self._vault, self._kinds, self._many = vault, tuple(kinds), many
        self._before, self._held, self._place = "", "", 0

    def __call__(self, piece: str) -> str:
        """The text that has become certain with this piece."""
        self._held += piece
        return self._out(self._borders())

    def flush(self) -> str:
        """The text has ended."""
        return self._out([0, len(self._held)]) if self._held else ""

    def _out(self, borders: Sequence[int]) -> str:
        """What stands between the first border and the last, masked, and no longer held."""
        held, parts, at = self._held, [], 0
        for start, found in self._suspected(borders) if len(borders) > self._many else self._each(borders):
            for one in found:
                parts += [held[at : start + one.start], self._vault.token(one.kind, one.text)]
                at, place = start + one.stop, self._place + start
                self.findings.append(Finding(one.kind, one.start + place, one.stop + place, one.text, one.confidence))
        stop = borders[-1]
        parts.append(held[at:stop])
        self._before, self._held = self._behind(stop), held[stop:]
        self._place += stop
        return "".join(parts)

    # ── borders

    def _borders(self) -> list[int]:
        """Of the chunks in what is held that are whole, 0 included."""
        held, size = self._held, len(self._held)
        at, borders = 0, [0]
        while True:
            for match in _ENDS.finditer(held, at):
                end = match.end()
                if end - at > MOST:
                    break
                if end == size:
                    return borders  # what follows may be a part of it
                if match[0] != "\n" or held[end - 2] not in _DOUBTFUL or _line_ends(held, at, end - 1):
                    borders.append(end)
                    at = end
            if size - at < MOST:
                return borders
            at = self._forced(at)
            borders.append(at)

    def _forced(self, at: int) -> int:
        """A border where the text gives none: before whatever would lie across it."""
        border = MOST - LONGEST - 1
        across = [one.start for one in self._searched(at, at + MOST) if one.start < border < one.stop]
        return at + (min(across, default=border) or border)

    # ── searching

    def _each(self, borders: Sequence[int]) -> Iterator[tuple[int, list[Finding]]]:
        """(where a chunk begins, what is found in it, in places of the chunk) of all chunks."""
        for start, stop in pairwise(borders):
            yield start, self._searched(start, stop)

    def _searched(self, start: int, stop: int) -> list[Finding]:
        """In a chunk, with every check. What looks like a token is found too, and surest."""
        chunk = self._held[start:stop]
        behind = self._behind(start) if _DIGIT.search(chunk) else ""  # only numbers are told by what stands before them
        before = len(behind)
        text = behind + chunk
        literal = (
            [Finding(LITERAL, *match.span(), match[0], 2.0) for match in token_pattern().finditer(text, before)] if "【" in chunk else []
        )
        return settled(_moved([*look(text, self._kinds), *literal], before))

    def _suspected(self, borders: Sequence[int]) -> Iterator[tuple[int, list[Finding]]]:
        """The same, of the chunks in which something is found. A chunk with an odd character, with what may look like a token, or beside
        a forced border is searched as it is by `_each`: where all others begin and end, nothing that a check reads goes on."""
        held, shift = self._held, len(self._before)
        text = self._before + held[: borders[-1]]
        seen = even(text).text  # as long as the text
        wanted, plainly = self._wanted(seen, borders, shift), self._plainly(text, borders, shift)
        for at in sorted({*wanted, *plainly}):
            start, stop = borders[at], borders[at + 1]
            if at in plainly:
                yield start, self._searched(start, stop)
                continue
            number = _DIGIT.search(held, start, stop)
            kinds = {kind for kind, later in wanted[at] if number or not later}
            if not kinds:
                continue
            before = min(BEFORE, start + shift) if number else 0
            span = slice(start + shift - before, stop + shift)
            yield start, _moved(sought(Normal(text[span], seen[span]), kinds), before)

    def _wanted(self, seen: str, borders: Sequence[int], shift: int) -> dict[int, set[tuple[str, bool]]]:
        """chunk -> (check, whether what it needs stands only in the BEFORE characters before the chunk)."""
        found: dict[int, set[tuple[str, bool]]] = {}
        for needs, kinds in needed(self._kinds).items():
            chunks = set() if needs else {(at, False) for at in range(len(borders) - 1)}
            for need in needs:
                for match in need.finditer(seen):
                    chunks.update(_chunks(borders, match.start() - shift, match.end() - shift))
            for at, later in chunks:
                found.setdefault(at, set()).update((kind, later) for kind in kinds)
        return found

    def _plainly(self, text: str, borders: Sequence[int], shift: int) -> set[int]:
        """The chunks that only `_searched` reads rightly."""
        places = [match.span() for match in odd().finditer(text)]
        places += [(match.start(), match.end() - BEFORE) for match in re.finditer("【", text)]
        places += [(shift + at - 1, shift + at + 1) for at in borders[1:] if _UNCUT.match(self._held, at - 1)]
        return {at for start, stop in places for at, _ in _chunks(borders, start - shift, stop - shift)}

    def _behind(self, at: int) -> str:
        """The BEFORE characters before a place in what is held."""
        return self._held[at - BEFORE : at] if at >= BEFORE else (self._before + self._held[:at])[-BEFORE:]


def _chunks(borders: Sequence[int], start: int, stop: int) -> Iterator[tuple[int, bool]]:
    """The chunks that a stretch lies in, and those (True) that begin less than BEFORE characters behind it."""
    for at in range(max(bisect_right(borders, start) - 1, 0), min(bisect_left(borders, stop + BEFORE), len(borders) - 1)):
        yield at, borders[at] >= stop


def _moved(found: Sequence[Finding], before: int) -> list[Finding]:
    """What begins after the first `before` characters, in places without them."""
    if not before:
        return [*found]
    return [Finding(one.kind, one.start - before, one.stop - before, one.text, one.confidence) for one in found if one.start >= before]


def mask(text: str, vault: Vault, kinds: Sequence[str]) -> tuple[str, list[Finding]]:
    """The text with tokens, and what they stand for."""
    masking = Masking(vault, kinds)
    return masking(text) + masking.flush(), masking.findings


def _line_ends(text: str, start: int, place: int) -> bool:
    """Whether the line before the break at `place`, in the chunk that begins at `start`, does not end inside a number, address or label."""
    before = text[max(start, place - 20) : place].rstrip(" \u3000\t")
    return not (before and before[-1] in _LINE_GOES_ON)
