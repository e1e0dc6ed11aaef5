"""The scripted chat answers what it was told to, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tsuzuri.chat.scripted import Scripted
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import ConfigError
from tsuzuri.types import Chat, Done, Event, Message, Notice, Options, Text

QUESTION, OPTIONS = [Message("user", "やあ")], Options(Sampling())


async def collected(chat: Chat, messages: Sequence[Message] = QUESTION) -> list[Event]:
    return [event async for event in chat(messages, OPTIONS)]


def test_a_text_comes_character_by_character_and_ends() -> None:
    assert asyncio.run(collected(Scripted("はい"))) == [Text("は"), Text("い"), Done("stop")]


def test_events_come_as_they_are_one_answer_a_call() -> None:
    chat = Scripted([Notice("注意"), Done("length")], "b")
    assert asyncio.run(collected(chat)) == [Notice("注意"), Done("length")]
    assert asyncio.run(collected(chat))[0] == Text("b")
    assert chat.calls == [(tuple(QUESTION), OPTIONS)] * 2


def test_an_error_is_raised_in_its_place_and_an_empty_script_says_so() -> None:
    seen: list[Event] = []

    async def run() -> None:
        async for event in Scripted([Text("a"), OSError("切れました")])(QUESTION, OPTIONS):
            seen.append(event)

    with pytest.raises(OSError, match="切れました"):
        asyncio.run(run())
    assert seen == [Text("a")]
    with pytest.raises(ConfigError, match="台本"):
        asyncio.run(collected(Scripted()))
