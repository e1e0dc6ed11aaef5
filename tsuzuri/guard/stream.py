"""Masking while the text still arrives. The law: joined, what comes out is the masked whole, at every cut.

In: pieces of text, cut anywhere. Out: what is certain, with tokens. Why the law holds: the text is read in chunks, whose borders follow
from the text alone (the end of a sentence, a line break that is inside no number), and each chunk is searched together with
the BEFORE characters before it. The whole is read the same way. What is held back is at most one chunk: MOST characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tsuzuri.guard.checks._context import BEFORE
from tsuzuri.guard.finding import LONGEST, Finding, look, settled
from tsuzuri.guard.mask import LITERAL, Vault, replaced, token_pattern

MOST = 1024  # characters held back
_ENDS = re.compile(r"[。！？!?\n]")
_NUMBER_GOES_ON = frozenset("0123456789０１２３４５６７８９〇一二三四五六七八九十-‐‑–−－ー() （） 　\t\n")
_DIGIT = re.compile(r"\d")
_LINE_GOES_ON = frozenset("-‐‑–−－ー:：=都道府県市区町村郡")


class Masking:
    """Feed it with pieces. `findings` are those of everything that came out so far, in places of the whole text."""

    def __init__(self, vault: Vault, kinds: Sequence[str]) -> None:
        self.findings: list[Finding] = []
        self._vault, self._kinds = vault, tuple(kinds)
        self._before, self._held, self._place = "", "", 0

    def __call__(self, piece: str) -> str:
        """The text that has become certain with this piece."""
        self._held += piece
        parts, at = [], 0
        while end := self._border(at):
            parts.append(self._out(at, end))
            at = end
        self._held = self._held[at:]
        return "".join(parts)

    def flush(self) -> str:
        """The text has ended."""
        text = self._out(0, len(self._held)) if self._held else ""
        self._held = ""
        return text

    def _border(self, at: int) -> int:
        """Where in what is held the chunk that begins at `at` ends; 0 while that is not known."""
        held = self._held
        for match in _ENDS.finditer(held, at, at + MOST):
            end = match.end()
            if end == len(held):
                return 0
            if match[0] != "\n" or _line_ends(held, at, match.start()):
                return end
        return self._forced(at) if len(held) - at >= MOST else 0

    def _forced(self, at: int) -> int:
        """A border where the text gives none: before whatever would lie across it."""
        border = MOST - LONGEST - 1
        across = [one.start for one in self._search(self._held[at : at + MOST]) if one.start < border < one.stop]
        return at + (min(across, default=border) or border)

    def _out(self, at: int, end: int) -> str:
        chunk, place = self._held[at:end], self._place
        found = self._search(chunk)
        self._before = (self._before + chunk)[-BEFORE:]
        self.findings += [Finding(one.kind, one.start + place, one.stop + place, one.text, one.confidence) for one in found]
        self._place += len(chunk)
        return replaced(chunk, found, self._vault) if found else chunk

    def _search(self, chunk: str) -> list[Finding]:
        """In places of the chunk; what looks like a token is found too, and surest."""
        behind = self._before if _DIGIT.search(chunk) else ""  # only numbers are told by what stands before them
        before = len(behind)
        text = behind + chunk
        literal = (
            [Finding(LITERAL, *match.span(), match[0], 2.0) for match in token_pattern().finditer(text, before)] if "【" in chunk else []
        )
        every = [one for one in [*look(text, self._kinds), *literal] if one.start >= before]
        return settled(Finding(one.kind, one.start - before, one.stop - before, one.text, one.confidence) for one in every)


def mask(text: str, vault: Vault, kinds: Sequence[str]) -> tuple[str, list[Finding]]:
    """The text with tokens, and what they stand for."""
    masking = Masking(vault, kinds)
    return masking(text) + masking.flush(), masking.findings


def _line_ends(text: str, start: int, place: int) -> bool:
    """Whether the line break at `place` of the chunk that begins at `start` lies inside no number, address or labelled value. A
    character follows it."""
    before = text[max(start, place - 20) : place].rstrip(" \u3000\t")
    return text[place + 1] not in _NUMBER_GOES_ON and not (before and before[-1] in _LINE_GOES_ON)
