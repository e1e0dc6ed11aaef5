"""A guard without checks does nothing, whichever object it is; one with checks does what they say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from served import Repeated, until

from tsuzuri.chat.scripted import Scripted
from tsuzuri.guard import score
from tsuzuri.guard.guarded import Checks
from tsuzuri.serve.guarding import NOTHING, Guard
from tsuzuri.serve.models import Served

TOLD = "田中様の電話は090-1234-5678です。"


def test_without_checks_everything_passes_as_it_is() -> None:
    chat = Scripted("はい")
    for guard in (NOTHING, Guard(), Guard(None)):
        assert guard.chat(chat) is chat
        assert asyncio.run(guard.text(TOLD)) == (TOLD, [])


def test_what_the_checks_read_is_loaded_before_anybody_asks(serving: Callable[..., Any]) -> None:
    score.load.cache_clear()
    with serving(Served("script", Repeated(text="はい"))):
        assert score.load.cache_info().currsize == 0, "nothing is loaded where nothing is checked"
    with serving(Served("script", Repeated(text="はい")), guard=Guard(Checks())) as running:
        assert until(lambda: score.load.cache_info().currsize == 1)
        assert running.service.pool.get("script").chat.calls == [], "no model was asked for it"


def test_with_checks_a_text_is_masked_and_a_chat_is_guarded() -> None:
    chat = Scripted("はい")
    assert Guard(Checks(mask=(), injection="ignore")).chat(chat) is not chat, "what was asked for is what the checks say"
    masked, told = asyncio.run(Guard(Checks()).text(TOLD))
    assert masked == "【氏名1】様の電話は【電話番号1】です。" and told
    assert asyncio.run(Guard(Checks(mask=())).text(TOLD)) == (TOLD, [])
