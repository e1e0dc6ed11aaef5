"""Bodies: strict JSON within bounds, wherever the chunks are cut, and nothing read beyond the limit."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsuzuri.serve import bounds
from tsuzuri.serve.refusal import Refusal

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


def status(data: bytes, headers: dict[str, str] | None = None, chunk: int = 1 << 16) -> int:
    read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal read
        for i in range(0, len(data), chunk):
            read += chunk
            yield data[i : i + chunk]

    try:
        asyncio.run(bounds.body(chunks(), headers or {}))
    except Refusal as refusal:
        assert read <= bounds.MAX_BYTES + chunk, "no more is read than it takes to know"
        return refusal.status
    return 200


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), values, max_size=5), st.booleans())
def test_what_is_json_is_read_as_it_is(value: dict[str, Any], ascii: bool) -> None:
    assert bounds.parse(json.dumps(value, ensure_ascii=ascii).encode()) == value


@given(st.binary(max_size=60))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    assert status(data) in (200, 400)


REFUSED = [
    b"", b"[]", b"1", b"null", b"{", b'{"a":1', b"{'a':1}", b'{"a":1}{', b'{"a":NaN}', b'{"a":Infinity}', b'{"a":-Infinity}', b'{"a":1e999}',
    b'{"a":1,"a":2}', b'{"b":{"a":1,"\\u0061":2}}', b'{"a":"\\ud800"}', b'{"\\udc00":1}', b'\xff\xfe{\x00}\x00', b'{"a":"\xff"}', b'\xef\xbb\xbf{}',
    b'{"a":' + b"9" * 401 + b"}", b'{"a":1' + b"0" * 5000 + b"}", b'{"a":0.' + b"1" * 401 + b"}", b'{"a":"\n"}', b'{"a":01}', b'{"a":+1}', b'{"a":1,}',
    b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", b'{"a":' + b"[" * 100_000, b"[" * 1_000_000, b'{"a":"[[[[' + b"[" * 40,
]  # fmt: skip


@pytest.mark.parametrize("data", REFUSED, ids=lambda data: repr(data[:24]))
def test_what_is_no_json_of_ours_is_refused(data: bytes) -> None:
    assert status(data) == 400


def test_the_bounds_are_where_they_are_said_to_be() -> None:
    deep = lambda n: b'{"a":' + b"[" * (n - 1) + b"]" * (n - 1) + b"}"  # noqa: E731
    assert (status(deep(32)), status(deep(33))) == (200, 400)
    wide = lambda n: b'{"a":[' + b",".join([b"1"] * n) + b"]}"  # noqa: E731
    assert (status(wide(249_999 - 1)), status(wide(250_010))) == (200, 400)
    long = lambda n: b'{"a":"' + b"x" * (n - 8) + b'"}'  # noqa: E731
    assert (status(long(10 << 20)), status(long((10 << 20) + 1))) == (200, 413)
    assert status(b'{"a":"' + b"[" * 100 + b"," * 300_000 + b'\\"[[[["}') == 200, "brackets in a string are text"


def test_what_a_string_hides_does_not_count_and_what_it_does_not_hide_does() -> None:
    deep, wide = "[" * 40 + "]" * 40, "," * 300_000
    for text in (deep, wide, f"{deep}\\", f'"{deep}"', f'\\"{deep}\\', "\\" * 7 + deep, f'{deep}"""' + wide):
        assert bounds.parse(json.dumps({"a": text, '"': text}).encode()) == {"a": text, '"': text}
        for data in (f'{{"a":{json.dumps(text)},"b":{deep}}}', f'{{"b":{deep},"a":{json.dumps(text)}}}'):
            assert status(data.encode()) == 400


def test_a_key_that_comes_twice_at_the_end_of_many_is_found_soon() -> None:
    keys = [f'"{i}":1' for i in range(49_000)]
    begun = time.process_time()
    assert status(("{" + ",".join([*keys, keys[-1]]) + "}").encode()) == 400
    assert time.process_time() - begun < 2


def test_a_length_that_is_announced_is_enough_to_refuse() -> None:
    assert status(b"{}", {"content-length": str(11 << 20)}) == 413
    assert status(b"{}", {"content-length": "9" * 5000}) == 413
    for wrong in ({"content-type": "text/plain"}, {"content-type": "application/jsonx"}, {"content-encoding": "gzip"}):
        assert status(b"{}", wrong) == 415
    assert status(b"{}", {"content-type": "Application/JSON; charset=utf-8"}) == 200


def test_the_worst_body_is_refused_soon() -> None:
    for data in (b"[" * (10 << 20), b'{"a":[' + b"1," * (5 << 20), b'"' + b'\\"' * (5 << 20), b'{"a":"' + b"\\" * (10 << 20)):
        begun = time.process_time()
        assert status(data[: 10 << 20]) == 400
        assert time.process_time() - begun < 1.0


@pytest.mark.parametrize("more", [0, 5_000], ids=["few values", "many values"])
def test_half_a_pair_is_refused_among_few_values_and_among_many(more: int) -> None:
    filled = lambda written: b'{"more":[' + b",".join([b"1"] * more) + b'],"a":[{' + written + b"}]}"  # noqa: E731
    for half in (b'"\\ud83d":1', b'"b":"\\uD83D"', b'"b":["\\udE00"]', b'"b":"\\\\\\ud83d"', b'"b":"\\ude00\\ud83d"'):
        assert status(filled(half)) == 400, half
    for whole in (b'"\\ud83d\\uDE00":1', b'"b":"\\\\ud83d"', b'"b":"\\u3042"', b'"b":"\\ud7ff"'):
        assert status(filled(whole)) == 200, whole


@pytest.mark.parametrize("before", range(0, 52, 3))
def test_a_long_number_is_found_wherever_it_stands(before: int) -> None:
    number = lambda digits: b'{"a":"\\u3042",' + b" " * before + b'"b":' + b"7" * digits + b"}"  # noqa: E731
    assert (status(number(400)), status(number(401)), status(number(5_000))) == (200, 400, 400)
