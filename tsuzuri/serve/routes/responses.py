"""OpenAI の responses。頼まれたときだけ保存する。 / OpenAI's responses, stored only when that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tsuzuri.serve.call import Call, named_frame, streamed, whole
from tsuzuri.serve.refusal import Refusal, openai_shape
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import openai_responses
from tsuzuri.serve.wire.asked import Asked

METHOD, PATHS, POLICY = "POST", ("/v1/responses", "/responses"), ("chat",)


async def answer(call: Call) -> Answer:
    """What is to be stored is stored before the client hears that the answer is whole: it may go on from it at once."""
    asked = await continued(call, openai_responses.read(call.body))
    model, storing = call.served(asked.model), asked.extras["store"] is True
    head = call.head("resp_", model)
    if storing:
        await call.service.keeping.check(call.tenant)
        asked = replace(asked, marks={**asked.marks, "stored": head.id})

    async def kept(response: Mapping[str, Any]) -> None:
        if storing:
            await call.service.keeping.keep(call.tenant, head.id, openai_responses.keepable(call.body, response))

    events = call.conversation(model, asked)
    if not asked.stream:
        found = await whole(events, 1, lambda answers: openai_responses.whole(head, asked, answers[0]))
        assert isinstance(found.body, Mapping)
        await kept(found.body)
        return found
    chunks = openai_responses.Chunks(head, asked)
    return streamed(events, chunks.event, chunks.end, named_frame, failed=_failed, before_end=lambda chunk: kept(chunk["response"]))


async def continued(call: Call, asked: Asked) -> Asked:
    """After what is stored of its conversation, where it goes on from that. Raises Refusal."""
    before = asked.extras["previous_response_id"]
    return asked if before is None else openai_responses.after(asked, await call.service.keeping.conversation(call.tenant, before))


def _failed(refusal: Refusal, request_id: str) -> bytes:
    shape = openai_shape(refusal, request_id)
    told = {name: shape["error"][name] for name in ("code", "message", "param")}
    return named_frame({"type": "error", "sequence_number": 0, **told, **shape})
