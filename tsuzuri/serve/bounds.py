"""The body of a request: counted while it comes in, bounded before it is decoded, and then strict JSON.

In: chunks of bytes as they arrive. Out: a mapping. Refused: more than 10 MiB, deeper than 32, more than 250,000 values, NaN and
Infinity, a key twice, half a surrogate pair, what is no UTF-8. It knows no field by name.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, NoReturn

from tsuzuri.errors import Words
from tsuzuri.serve.refusal import Refusal

MAX_BYTES = 10 << 20
MAX_DEPTH = 32
MAX_NODES = 250_000
MAX_WORD = 400  # digits of a number
MAX_SECONDS = 60  # until a body is whole
CLOSE = {"connection": "close"}  # what is left of it is not read
LET_PASS = 64 << 20  # bytes that are thrown away as they come, so that whoever sends them hears the answer
OFF_LOOP = 1 << 16  # bytes from which on decoding happens in a thread, so that the others do not wait
# A string that never ends is one, too: it would be looked for again from each of its quotes, in time that grows with the square.
STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
NOT_STRUCTURE = bytes(set(range(256)) - set(b"[]{},"))


async def body(chunks: AsyncIterator[bytes], headers: Mapping[str, str]) -> dict[str, Any]:
    """Raises Refusal with 413, 415 or 400. What is too long is not read to its end."""
    kind = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" or headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, Words("本文は圧縮なしの application/json で送ってください。", "Send application/json, not compressed."))
    declared = headers.get("content-length", "")
    length = int(declared[:20]) if declared.isdecimal() else None
    if length is not None and length > MAX_BYTES:
        raise _too_large({} if length <= LET_PASS else CLOSE)
    found = bytearray()
    try:
        async with asyncio.timeout(MAX_SECONDS):
            async for chunk in chunks:
                found += chunk
                if len(found) > MAX_BYTES:
                    raise _too_large(CLOSE)
    except TimeoutError as error:
        words = Words(f"本文が {MAX_SECONDS} 秒たっても揃いません。", f"The body is not whole after {MAX_SECONDS} seconds.")
        raise Refusal(408, words, code="timeout", headers=CLOSE) from error
    return await asyncio.to_thread(parse, bytes(found)) if len(found) > OFF_LOOP else parse(bytes(found))


def parse(data: bytes) -> dict[str, Any]:
    """Strict JSON within the bounds. Raises Refusal."""
    _bounded(data)
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite, parse_int=_whole)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except UnicodeError as error:
        raise _no_json(Words("UTF-8 の文字列ではありません。", "It is not UTF-8.")) from error
    except (ValueError, RecursionError) as error:
        place = f"{error.lineno}:{error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise _no_json(Words(f"JSON として読めません（{place}）。", f"It is not JSON ({place}).")) from error
    if not isinstance(value, dict):
        raise _no_json(Words("{…} の形ではありません。", "It is no object."))
    return value


def _bounded(data: bytes) -> None:
    """One pass over the bytes: strings go, and of the rest only brackets and commas stay."""
    structure = STRING.sub(b"", data).translate(None, NOT_STRUCTURE)
    if len(structure) > 3 * MAX_NODES:
        raise _no_json(Words(f"値が {MAX_NODES:,} 個を超えています。", f"It has more than {MAX_NODES:,} values."))
    depth = nodes = 0
    for byte in structure:
        if byte in b"[{":
            depth += 1
            nodes += 1
            if depth > MAX_DEPTH:
                raise _no_json(Words(f"入れ子が {MAX_DEPTH} 段を超えています。", f"It is nested deeper than {MAX_DEPTH}."))
        elif byte in b"]}":
            depth -= 1
        else:
            nodes += 1
    if nodes > MAX_NODES:
        raise _no_json(Words(f"値が {MAX_NODES:,} 個を超えています。", f"It has more than {MAX_NODES:,} values."))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)[:80]
        raise _no_json(Words(f"「{twice}」が二度あります。", f"'{twice}' stands twice."))
    return found


def _no_number(word: str) -> NoReturn:
    raise _no_json(Words(f"{word} は JSON の数ではありません。", f"{word} is no number of JSON."))


def _finite(word: str) -> float:
    if len(word) > MAX_WORD or not math.isfinite(float(word)):
        _no_number(word[:20])
    return float(word)


def _whole(word: str) -> int:
    if len(word) > MAX_WORD:
        _no_number(word[:20])
    return int(word)


def _no_json(words: Words) -> Refusal:
    return Refusal(400, Words(f"本文を受け取れません。{words.ja}", f"The body cannot be taken. {words.en}"), code="invalid_json")


def _too_large(headers: Mapping[str, str]) -> Refusal:
    words = Words(f"本文が {MAX_BYTES >> 20} MiB を超えています。", f"The body is larger than {MAX_BYTES >> 20} MiB.")
    return Refusal(413, words, code="body_too_large", headers=headers)
