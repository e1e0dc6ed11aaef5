"""The body of a request: counted while it comes in, bounded before it is decoded, and then strict JSON.

In: chunks of bytes as they arrive. Out: a mapping. Refused: more than 10 MiB, deeper than 32, more than 250,000 values, NaN and
Infinity, a key twice, half a surrogate pair, what is no UTF-8. It knows no field by name.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any, NoReturn

from tsuzuri.errors import Words
from tsuzuri.serve.refusal import Refusal

MAX_BYTES = 10 << 20
MAX_DEPTH = 32
MAX_NODES = 250_000
MAX_KEYS = 50_000  # of all objects together: decoding them takes longest
FEW = 1000  # values that are looked at one by one
MAX_WORD = 400  # digits of a number
MAX_SECONDS = 60  # until a body is whole
CLOSE = {"connection": "close"}  # what is left of it is not read
LET_PASS = 64 << 20  # bytes that are thrown away as they come, so that whoever sends them hears the answer
OFF_LOOP = 1 << 16  # bytes from which on decoding happens in a thread, so that the others do not wait
EACH = 25  # bytes; it shares no divisor with the six of an escape, so that texts of escapes hold no such digits
DIGIT = b"0"
SAME_DIGITS = bytes.maketrans(b"123456789", b"000000000")
NOT_MARKS = bytes(set(range(256)) - set(b'"[]{},:'))
NOT_ESCAPING = bytes(set(NOT_MARKS) - set(b"\\/bfnrtu"))  # what neither is a mark nor stands behind a backslash in JSON
BRACKETS = bytes.maketrans(b"{}", b"[]")
SPACE, BLANK = b" \t\r\n", 4096  # bytes of space before the object


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
    if not data[:BLANK].lstrip(SPACE).startswith(b"{"):
        raise _no_json(Words("{…} の形ではありません。", "It is no object."))
    few = _bounded(data)
    try:
        text = data.decode("utf-8")
        whole = _whole if _long_number(data) else None  # None: as Python does, ten thousand in a row
        value: dict[str, Any] = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite, parse_int=whole)
        if b"\\" in data:
            _whole_pairs(value, data, few)
    except UnicodeError as error:
        raise _no_json(Words("UTF-8 の文字列ではありません。", "It is not UTF-8.")) from error
    except (ValueError, RecursionError) as error:
        place = f"{error.lineno}:{error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise _no_json(Words(f"JSON として読めません（{place}）。", f"It is not JSON ({place}).")) from error
    return value


def _long_number(data: bytes) -> bool:
    """Whether more than MAX_WORD digits follow each other. One byte of EACH is looked at first: so many digits hold MAX_WORD // EACH of these."""
    if DIGIT * (MAX_WORD // EACH) not in data[::EACH].translate(SAME_DIGITS):
        return False
    return DIGIT * (MAX_WORD + 1) in data.translate(SAME_DIGITS)


def _whole_pairs(value: dict[str, Any], data: bytes, few: bool) -> None:
    """Half a surrogate pair is no text: raises UnicodeError. Of `few` values each text is looked at, else all are written where one may be."""
    if few:
        left: list[Any] = [value]
        while left:
            match left.pop():
                case str() as text:
                    text.encode()
                case list() as values:
                    left += values
                case dict() as fields:
                    left += [*fields, *fields.values()]
    elif b"\\ud" in data or b"\\uD" in data:
        json.dumps(value, ensure_ascii=False).encode()


def _bounded(data: bytes) -> bool:
    """Whether it holds few values. Whole passes over the bytes and no loop over them. Raises Refusal.

    As many brackets, commas and colons as may be, those of its texts among them, are not too many. Otherwise those outside of texts are
    counted. First what is escaped goes: pairs of backslashes, and quotes behind one, when the text between is gone. What stands before the
    first backslash that escapes nothing, or is outside of a string, is counted right; that is no JSON, and nothing behind it is decoded.
    """
    marks = data.translate(None, NOT_MARKS)
    opened = marks.count(b"[") + marks.count(b"{")
    most = opened + marks.count(b",")
    if opened <= MAX_DEPTH and most <= MAX_NODES and marks.count(b":") <= MAX_KEYS:
        return most <= FEW
    single = data.replace(b"\\\\", b"") if b"\\" in data else data
    escaped = b"\\" in single
    signs = single.translate(None, NOT_ESCAPING).replace(b'\\"', b"") if escaped else single
    marks = signs.translate(None, NOT_MARKS).replace(b'""', b"")
    quotes = marks.count(b'"')
    if quotes % 2:
        raise _no_json(Words("文字列が閉じていません。", "A string does not end."))
    if quotes > 4 * MAX_NODES:
        raise _no_json(Words(f"値が {MAX_NODES:,} 個を超えています。", f"It has more than {MAX_NODES:,} values."))
    marks = b"".join(marks.split(b'"')[::2]).translate(BRACKETS)
    if marks.count(b"[") + marks.count(b",") > MAX_NODES:
        raise _no_json(Words(f"値が {MAX_NODES:,} 個を超えています。", f"It has more than {MAX_NODES:,} values."))
    if marks.count(b":") > MAX_KEYS:
        raise _no_json(Words(f"項目が {MAX_KEYS:,} 個を超えています。", f"It has more than {MAX_KEYS:,} fields."))
    brackets = marks.translate(None, b",:")
    for _ in range(MAX_DEPTH):  # each round takes the innermost pairs away
        left = brackets.replace(b"[]", b"")
        if len(left) == len(brackets):
            break
        brackets = left
    if b"[]" in brackets or brackets.count(b"[") > MAX_DEPTH:
        raise _no_json(Words(f"入れ子が {MAX_DEPTH} 段を超えています。", f"It is nested deeper than {MAX_DEPTH}."))
    return most <= FEW


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0][:80]
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
