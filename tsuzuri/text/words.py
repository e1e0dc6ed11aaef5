"""Text as words, for word vectors: cut by script, into the pieces of a tokenizer, or into characters. No dictionary.

In: text. Out: words, folded (NFKC, lower case), without spaces and punctuation. Unlike a tokenizer's ids, they do not
give the text back: 「ＡＢＣ。」 and "abc" are one word. Which unit suits which use: docs/ja/vectors.md.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from tsuzuri.errors import ConfigError, Words
from tsuzuri.folder import suggestion
from tsuzuri.text import fast
from tsuzuri.text.split import split

Cut: TypeAlias = Callable[[str], list[str]]

UNITS = ("word", "token", "character")


def cutter(units: str, tokenizer: Path | None = None) -> Cut:
    """The way of cutting of that name. `token` takes a tokenizer (a tokenizer.json or its directory), the others none.

    Raises ConfigError for an unknown name, or a tokenizer where none is used; what `fast.load` raises.

    >>> cutter("word")("第３章：人工知能の発展、GPT-4")
    ['第', '3', '章', '人工知能', 'の', '発展', 'gpt', '4']
    """
    check(units, tokenizer is not None)
    if units == "character":
        return lambda text: [character for character in folded(text) if character.isalnum()]
    if units == "word":
        return lambda text: [piece.strip() for piece in split(folded(text)) if says(piece)]
    assert tokenizer is not None
    return by_token(fast.load(tokenizer))


def check(units: str, tokenizer: bool) -> None:
    """Raises ConfigError for an unknown name, and for a tokenizer that is missing or not used."""
    asked = Words(f"単語の切り方「{units}」が指定されました。", f"The units '{units}' were asked for.")
    if units not in UNITS:
        known = Words(f"あるのは {'、'.join(UNITS)} です。", f"There is {', '.join(UNITS)}.")
        raise ConfigError(asked, found=known, todo=suggestion(units, list(UNITS)))
    if units == "token" and not tokenizer:
        raise ConfigError(
            asked,
            found=Words("トークナイザがありません。", "There is no tokenizer."),
            todo=Words("トークナイザを指定するか、word か character にしてください。", "Give a tokenizer, or use word or character."),
        )
    if units != "token" and tokenizer:
        raise ConfigError(
            asked,
            found=Words("この切り方はトークナイザを使いませんが、指定されています。", "They use no tokenizer, but one was given."),
            todo=Words("トークナイザを外すか、token にしてください。", "Leave the tokenizer out, or use token."),
        )


def folded(text: str) -> str:
    """NFKC and lower case: what a person would take for the same word is the same."""
    return unicodedata.normalize("NFKC", text).lower()


def says(piece: str) -> bool:
    """Whether it has a letter or a digit in it; punctuation and spaces are no words."""
    return any(character.isalnum() for character in piece)


def by_token(tokenizer: fast.FastTokenizer) -> Cut:
    """The pieces of a tokenizer. A character that is spelt in several tokens, as rare kanji are, is one word again."""

    def cut(text: str) -> list[str]:
        found: list[str] = []
        held = b""  # bytes that are not yet whole characters
        for id in tokenizer.encode(folded(text)):
            held += tokenizer.token_bytes(id)
            piece = _whole(held)
            if piece is not None:
                found.append(piece.strip())
                held = b""
        return [piece for piece in [*found, held.decode(errors="replace")] if says(piece)]

    return cut


def _whole(spelt: bytes) -> str | None:
    try:
        return spelt.decode()
    except UnicodeDecodeError:
        return None
