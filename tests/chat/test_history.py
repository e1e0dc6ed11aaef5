"""A long conversation loses its oldest turns, whole, and says which."""

from __future__ import annotations

from collections.abc import Sequence

from tsuzuri.chat import history
from tsuzuri.types import Message, Notice

SYSTEM = Message("system", "丁寧に")
TURNS = [Message("assistant" if i % 2 else "user", f"{i}番目の発言") for i in range(7)]


def characters(messages: Sequence[Message]) -> int:
    return sum(len(message.content) for message in messages)


def test_what_fits_stays() -> None:
    assert history.fit([SYSTEM, *TURNS], characters, 1000) == ([SYSTEM, *TURNS], [])


def test_the_oldest_turns_go_whole_and_no_more_than_needed() -> None:
    kept, dropped = history.fit([SYSTEM, *TURNS], characters, 3 + 6 * 5)
    assert kept == [SYSTEM, *TURNS[2:]] and dropped == TURNS[:2]
    kept, dropped = history.fit([SYSTEM, *TURNS], characters, 3 + 6 * 5 - 1)
    assert kept == [SYSTEM, *TURNS[4:]] and dropped == TURNS[:4]


def test_the_system_and_the_last_question_stay_even_when_they_do_not_fit() -> None:
    assert history.fit([SYSTEM, *TURNS], characters, 1) == ([SYSTEM, TURNS[6]], TURNS[:6])
    assert history.fit([SYSTEM], characters, 1) == ([SYSTEM], [])


def test_the_notice_says_how_many_and_from_where() -> None:
    assert history.notice(TURNS[:4]) == Notice(
        "会話が長くなったため、古いやり取り 2 回分を忘れました（いちばん古いものは「0番目の発言」）。"
    )
