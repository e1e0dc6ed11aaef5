"""Calls in what a model says: the same at every cut, what its template writes is what is read, and nothing said is lost."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsuzuri.chat.parse import Form, Parsing, Part, joined, parsed
from tsuzuri.chat.reading import Reading
from tsuzuri.chat.template import END, START, Template, render
from tsuzuri.engine.sampling import Sampling
from tsuzuri.types import Message, Options, Text, ToolCall

MARKED = Template().form({START, END})
BARE = Form('{"name": "', '", "parameters": ', "}", "name", "parameters", None, False)
OTHER = Form('[呼]{"args": "', '", "f": ', "}[/呼]", "args", "f", " ", True)
NAMES = ("天気", "f")


def ids() -> Callable[[], str]:
    numbers = itertools.count()
    return lambda: str(next(numbers))


def read(form: Form, text: str, most: int | None = None) -> list[Part]:
    return parsed(text, form, NAMES, most, ids())


def in_pieces(form: Form, pieces: list[str], most: int | None = None) -> list[Part]:
    reading = Parsing(form, NAMES, most, ids())
    found = [part for piece in pieces for part in reading(piece)]
    return joined([*found, *reading.flush()])


fragment = st.sampled_from(
    [
        '<tool_call>\n{"name": "天気", "arguments": {"所": "東京"}}\n</tool_call>', '<tool_call>{"name":"f"}</tool_call>', '{"name": "f", "parameters": {}}',
        '<tool_call>\n{"name": "other", "arguments": {}}\n</tool_call>', '<tool_call>{"name": "f", "arguments": {"a": "}</tool_call>\\"{"}}</tool_call>',
        "<tool_call>", "</tool_call>", "<tool", "_call>", "{", "}", '"', "\\", " ", "\n", "こんにちは。", '{"name": ', '"f"}', "[呼]", '[呼]{"args":"f"}[/呼]',
    ]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(fragment, max_size=8).map("".join), st.sampled_from([MARKED, BARE, OTHER]), st.sampled_from([None, 1, 2]), st.data())
def test_the_same_at_every_cut(text: str, form: Form, most: int | None, data: st.DataObject) -> None:
    places = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12)))
    pieces = [text[start:stop] for start, stop in itertools.pairwise([0, *places, len(text)])]
    whole = read(form, text, most)
    assert in_pieces(form, pieces, most) == whole == in_pieces(form, list(text), most)


@settings(max_examples=200, deadline=None)
@given(st.lists(fragment, max_size=8).map("".join))
def test_nothing_said_is_lost_but_the_white_space_around_calls(text: str) -> None:
    found, rest = read(MARKED, text), text
    for part in found:
        if isinstance(part, str):
            at = rest.find(part)
            assert at >= 0 and not rest[:at].strip(" \t\r\n")
            rest = rest[at + len(part) :]
        else:
            said, mark, after = rest.partition("<tool_call>")
            assert mark and not said.strip(" \t\r\n")
            made = json.JSONDecoder().raw_decode(after.lstrip())[0]
            assert (made["name"], made.get("arguments", {})) == (part.name, json.loads(part.arguments))
            rest = _behind(rest)
    assert not rest.strip(" \t\r\n")


def _behind(text: str) -> str:
    """What stands after the first call."""
    after = text.partition("<tool_call>")[2].lstrip()
    stop = json.JSONDecoder().raw_decode(after)[1]
    return after[stop:].lstrip().removeprefix("</tool_call>")


texts = st.text(st.characters(codec="utf-8"), max_size=12)
values = st.recursive(
    st.one_of(texts, st.integers(-(10**6), 10**6), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=5,
)
calls = st.lists(st.tuples(st.sampled_from(NAMES), st.dictionaries(texts, values, max_size=3)), min_size=1, max_size=3)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["", "調べます。", "二行の\n文", "<tool_call>ではない"]), calls)
def test_what_the_template_writes_is_what_is_read(said: str, made: list[tuple[str, dict[str, Any]]]) -> None:
    """And so a model that was trained on it is understood when it says it."""
    wanted = [ToolCall(str(i), name, json.dumps(arguments, ensure_ascii=False)) for i, (name, arguments) in enumerate(made)]
    asked = [Message("user", "天気は？")]
    tools = [{"type": "function", "function": {"name": name}} for name in NAMES]
    question = "".join(segment.text for segment in render(asked, True, tools))
    whole = render([*asked, Message("assistant", said, tuple(wanted))], False, tools)
    text = "".join(segment.text for segment in whole)
    assert text.startswith(question)
    answer = text[len(question) :].removesuffix("\n").removesuffix(END)
    assert "".join(segment.text for segment in whole if segment.trained) == answer + END, "all of it is learned, and nothing else"
    assert read(MARKED, answer) == ([said] if said else []) + wanted


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>",
        '<tool_call>\n{"name": "天気", "argu',
        '<tool_call>\n{"name": "天気"}\n</tool',
        "<tool_call>[]</tool_call>",
        '<tool_call>{"name": "知らない"}</tool_call>',
        '<tool_call>{"name": "f", "arguments": []}</tool_call>',
        '<tool_call>{"name": "f", "arguments": "{}"}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"a": 1e999}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"a": "\\ud83d"}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"a": ' + "[" * 3000 + "]" * 3000 + "}}</tool_call>",
        '<tool_call>{"name": "f"} そして</tool_call>',
        '<tool_call>{"name": "f" "arguments": {}}</tool_call>',
    ],
    ids=lambda text: text[:50],
)
def test_what_is_no_whole_call_stays_text(text: str) -> None:
    found = read(MARKED, text)
    if text.endswith("</tool") and "天気" in text:  # only the closing mark is cut off
        assert found == [ToolCall("0", "天気", "{}")]
    else:
        assert found == [text]


def test_words_around_calls_and_a_limit() -> None:
    one, two = '<tool_call>{"name": "f"}</tool_call>', '<tool_call>{"name": "天気"}</tool_call>'
    assert read(MARKED, f"はい。\n{one}\n{two}\n") == ["はい。", ToolCall("0", "f", "{}"), ToolCall("1", "天気", "{}")]
    assert read(MARKED, f"{one} あと {two}") == [ToolCall("0", "f", "{}"), " あと", ToolCall("1", "天気", "{}")]
    reading = Parsing(MARKED, NAMES, 1, ids())
    assert reading(one) == [ToolCall("0", "f", "{}")] and reading.full


def test_without_marks_an_answer_is_a_call_or_it_is_none() -> None:
    assert read(BARE, ' {"name": "f", "parameters": {"a": 1}}') == [ToolCall("0", "f", '{"a": 1}')]
    for text in ('はい {"name": "f"}', '{"天気": 1}', '{"name": "f"', "{}{}", "{あ"):
        assert read(BARE, text) == [text]


def test_long_nonsense_takes_time_in_proportion() -> None:
    import time

    text = "<tool_call>{" * 20_000 + "}x" * 20_000
    begun = time.process_time()
    assert "".join(part for part in read(MARKED, text) if isinstance(part, str)) == text
    assert time.process_time() - begun < 5  # seconds; measured 0.1


# ── with stop strings


def told(text: str, size: int, **how: Any) -> tuple[list[Any], Reading]:
    reading = Reading(Options(Sampling(), tools=tuple({"type": "function", "function": {"name": name}} for name in NAMES), **how), MARKED)
    found: list[Any] = []
    for at in range(0, len(text), size):
        found += reading(text[at : at + size])
        if reading.over is not None:
            break
    found += reading.flush()
    return joined([event.text if isinstance(event, Text) else (event.name, event.arguments) for event in found]), reading


@pytest.mark.parametrize("size", [1, 2, 7, 500])
def test_a_stop_string_ends_what_is_said_and_is_none_inside_a_call(size: int) -> None:
    call = '<tool_call>{"name": "f", "arguments": {"a": "終"}}</tool_call>'
    found, reading = told(f"はい{call}つぎ終わり{call}", size, stop=("終",))
    assert found == ["はい", ("f", '{"a": "終"}'), "つぎ"]
    assert (reading.stop, reading.over, reading.calls) == ("終", "stop", 1)


@pytest.mark.parametrize("size", [1, 3, 500])
def test_the_last_call_that_is_wanted_ends_the_answer(size: int) -> None:
    call = '<tool_call>{"name": "f"}</tool_call>'
    found, reading = told(f"は{call}{call}つぎ", size, calls=(0, 1), stop=("はい",))
    assert found == ["は", ("f", "{}")], "what might have become a stop string is said before the call"
    assert reading.over == "tool_calls" and reading.stop is None
