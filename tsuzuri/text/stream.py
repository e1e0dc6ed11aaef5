"""From tokens back to text while they still arrive: what is certain is given out, half a character never.

In: the bytes of one token at a time. Out: the text that has become certain. Bytes that can never become a character
turn into U+FFFD, exactly where decoding all of it at once would put it.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable


class Stream:
    """One decoder for one text. Call it with a token id; `flush` at the end gives what an incomplete last character is worth."""

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def __call__(self, id: int) -> str:
        return self._decoder.decode(self._token_bytes(id))

    def flush(self) -> str:
        """The rest: nothing, or U+FFFD for a character that never became whole."""
        return self._decoder.decode(b"", final=True)
