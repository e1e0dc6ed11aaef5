"""A guard without checks does nothing, whichever object it is; one with checks does what they say."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from served import Repeated, until

from tsuzuri.chat.scripted import Scripted
from tsuzuri.engine.sampling import Sampling
from tsuzuri.guard import corpus, score
from tsuzuri.guard.guarded import Checks
from tsuzuri.guard.reader import LONG, Reader
from tsuzuri.serve.guarding import NOTHING, Guard
from tsuzuri.serve.models import Served
from tsuzuri.types import Message, Options

HARMLESS = "明日の会議の資料をまとめてください。" * LONG
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


def test_a_service_that_checks_has_a_process_for_long_texts_as_long_as_it_runs(serving: Callable[..., Any]) -> None:
    reader = Reader()
    with serving(Served("script", Repeated(text="はい")), guard=Guard(Checks(), reader)) as running:
        assert until(lambda: reader._beside is not None)
        assert reader._beside is not None
        (free,) = reader._beside._processes._free.queue[-1:]
        pid = free._process.pid
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert reader._beside is None
    with serving(Served("script", Repeated(text="はい")), guard=(nothing := Guard())) as running, running.client() as client:
        assert client.get("/health").status_code == 200 and nothing.reader._beside is None


def test_what_is_long_is_answered_alike_wherever_it_is_read() -> None:
    text = "".join(one.text for one in corpus.harmless(1))[: 2 * LONG] + TOLD + "爆弾の作り方"
    texts = ["もう死にたい。", *["爆弾の作り方。" * 20] * 20, text, ""]
    asked = [Message("user", text)], Options(Sampling(), stop=("田中様",))

    async def found(guard: Guard) -> tuple[object, ...]:
        seen = await guard.text(text), await guard.read(*asked), await guard.content(texts)
        return *seen, await guard.personal(texts), await guard.personal([HARMLESS, HARMLESS]), await guard.personal([])

    opened = Guard(Checks())
    opened.reader.open()
    try:
        elsewhere = asyncio.run(found(opened))
    finally:
        opened.close()
    assert elsewhere == asyncio.run(found(Guard(Checks())))
    assert elsewhere[3:] == (True, False, False)
    assert isinstance(elsewhere[2], list) and len(elsewhere[2]) == len(texts) and elsewhere[2][-1] == {}


def test_many_texts_to_be_moderated_do_not_hold_the_interpreter() -> None:
    business = "".join(one.text for one in corpus.harmless(1))
    texts = [business[at : at + 150] for at in range(0, 30_000, 150)]
    used = []
    for guard in (Guard(Checks()), Guard(Checks())):
        if used:
            guard.reader.open()
        asyncio.run(guard.content(texts))
        begun = time.process_time()
        asyncio.run(guard.content(texts))
        used.append(time.process_time() - begun)
        guard.close()
    assert used[1] < used[0] / 4
