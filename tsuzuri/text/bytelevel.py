"""Bytes as visible characters and back: how a tokenizer.json writes byte-level tokens (GPT-2's table), and what each id stands for.

In: the state of a tokenizer.json. Out: the bytes of every id, from whichever notation its decoder names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from tsuzuri.errors import ConfigError, InputError, Words

BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@cache
def alphabet() -> Mapping[int, str]:
    """byte -> character: printable Latin-1 stands for itself, the other 68 bytes for U+0100 and on (Radford et al. 2019)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    return MappingProxyType({byte: chr(byte) for byte in plain} | {byte: chr(0x100 + i) for i, byte in enumerate(rest)})


def visible(text: str) -> str:
    """A text as byte-level characters.

    >>> visible("a あ")
    'aĠãģĤ'
    """
    return text.encode().decode("latin-1").translate(alphabet())


def utf8(text: str) -> bytes:
    """The bytes of a text. Raises InputError for half a surrogate pair, which a Python string can hold and UTF-8 cannot."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise InputError(
            Words("文章をトークンにしようとしました。", "Turning text into tokens."),
            found=Words(
                f"{error.start + 1} 文字目が、片方だけのサロゲート（U+{code:04X}）です。",
                f"Character {error.start + 1} is only half of a surrogate pair (U+{code:04X}).",
            ),
            todo=Words("UTF-8 として正しい文章を渡してください。", "Give a text that is valid in UTF-8."),
        ) from error


def table(state: dict[str, Any], size: int) -> list[bytes]:
    """The bytes of each id 0 … size - 1. Raises ConfigError for a decoder we do not know."""
    added = {token["id"]: token["content"].encode() for token in state["added_tokens"]}
    read = _reader(_steps(state.get("decoder")))
    vocabulary = state["model"]["vocab"]
    items = vocabulary.items() if isinstance(vocabulary, dict) else ((piece, id) for id, (piece, _) in enumerate(vocabulary))
    found = {id: read(piece) for piece, id in items} | added
    return [found.get(id, b"") for id in range(size)]


def _steps(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    if decoder is None:
        return []
    return list(decoder["decoders"]) if decoder["type"] == "Sequence" else [decoder]


def _reader(steps: list[dict[str, Any]]) -> Callable[[str], bytes]:
    """How a piece becomes bytes, from the decoder's steps. Positions in the text (strip at the start) are not a token's business."""
    kinds = {step["type"] for step in steps}
    if kinds == {"ByteLevel"}:
        back = {character: byte for byte, character in alphabet().items()}
        return lambda piece: bytes(back[character] for character in piece)
    if kinds <= {"ByteFallback", "Fuse", "Replace", "Strip", "Metaspace"}:
        replaced = [(step["pattern"]["String"], step["content"]) for step in steps if step["type"] == "Replace"]
        replaced += [(step["replacement"], " ") for step in steps if step["type"] == "Metaspace"]

        def read(piece: str) -> bytes:
            match = BYTE.fullmatch(piece)
            if match:
                return bytes([int(match[1], 16)])
            for old, new in replaced:
                piece = piece.replace(old, new)
            return piece.encode()

        return read
    raise ConfigError(
        Words("tokenizer.json の decoder を読もうとしました。", "Reading the decoder of a tokenizer.json."),
        found=Words(f"{'、'.join(sorted(kinds))} には対応していません。", f"{', '.join(sorted(kinds))} is not supported."),
        todo=Words("ByteLevel か ByteFallback のトークナイザを使ってください。", "Use a tokenizer with ByteLevel or ByteFallback."),
    )
