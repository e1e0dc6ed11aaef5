"""Reversible tokens: what a check found becomes 【氏名1】 or 【電話番号1】, the same for the same words, and comes back from a vault.

In: findings; text with tokens. Out: tokens; the text as it was. The law: unmasked, a masked text is the text, whatever stood in it:
what already looks like a token is itself put away (【文字列1】), so that no token is ever taken for another's. It finds nothing itself.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from tsuzuri.guard.finding import Finding, label, personal

LITERAL = "文字列"  # of what looked like a token before anything was masked
_LONGEST = 24  # characters of a token


class Vault:
    """What stands behind the tokens of one conversation. It lives in memory only, and its owner's: never share it between people."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._tokens: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}

    @classmethod
    def of(cls, pairs: Mapping[str, str]) -> Vault:
        """One that gives back what `iter` of another gave: for unmasking alone."""
        vault = cls()
        vault._values = dict(pairs)
        return vault

    def token(self, kind: str, text: str) -> str:
        """The token of these words, made on first sight. `kind` is a check's file name, or LITERAL."""
        kind = kind.partition(".")[0]  # the categories of a kind share its label
        known = self._tokens.get((kind, text))
        if known is None:
            count = self._counts[kind] = self._counts.get(kind, 0) + 1
            known = f"【{kind if kind == LITERAL else label(kind).ja}{count}】"
            self._tokens[kind, text] = known
            self._values[known] = text
        return known

    def value(self, token: str) -> str | None:
        """What stands behind a token, full-width digits in it or not; None if it is not one of ours."""
        return self._values.get(token.translate(_NARROW))

    def unmask(self, text: str, escape: Callable[[str], str] = str) -> str:
        """The text with every token of ours as what stands behind it; `escape` makes it fit where it stands (JSON)."""
        return token_pattern().sub(lambda match: escape(value) if (value := self.value(match[0])) is not None else match[0], text)

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """(token, what stands behind it), in the order of making."""
        return iter(self._values.items())


def tokens(text: str, findings: Iterable[Finding], vault: Vault) -> str:
    """The text with a token in place of each finding; they are in order of place, and do not overlap."""
    parts, at = [], 0
    for one in findings:
        parts += [text[at : one.start], vault.token(one.kind, one.text)]
        at = one.stop
    return "".join([*parts, text[at:]])


class Unmasking:
    """The same over a stream: feed it with pieces cut anywhere; joined, what comes out is `unmask` of the whole."""

    def __init__(self, vault: Vault) -> None:
        self._vault, self._held = vault, ""

    def __call__(self, piece: str) -> str:
        """The text that has become certain with this piece."""
        text = self._held + piece
        last = text.rfind("【")
        whole = last < 0 or "】" in text[last:] or len(text) - last > _LONGEST
        cut = len(text) if whole else last
        self._held = text[cut:]
        return self._vault.unmask(text[:cut])

    def flush(self) -> str:
        text, self._held = self._held, ""
        return text


_NARROW = str.maketrans("０１２３４５６７８９", "0123456789")


@functools.cache
def token_pattern() -> re.Pattern[str]:
    """Everything that a token may look like."""
    called = sorted({label(name).ja for name in personal()} | {LITERAL})
    return re.compile(rf"【(?:{'|'.join(called)})[0-9０-９]{{1,6}}】")
