"""Anthropic のメッセージ。 / Anthropic's Messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsuzuri.serve.call import Call, named_frame, streamed, whole
from tsuzuri.serve.refusal import Refusal, anthropic_shape
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import anthropic_messages

METHOD, PATHS, POLICY, SHAPE = "POST", ("/v1/messages",), ("chat",), anthropic_shape


async def answer(call: Call) -> Answer:
    asked = anthropic_messages.read(call.body)
    model = call.served(asked.model)
    head, events = call.head("msg_", model), call.conversation(model, asked)
    if not asked.stream:
        return await whole(events, 1, lambda answers: anthropic_messages.whole(head, asked, answers[0]))
    chunks = anthropic_messages.Chunks(head, asked, await call.reads(model, asked))
    return streamed(events, chunks.event, chunks.end, named_frame, failed=_failed)


def _failed(refusal: Refusal, request_id: str) -> bytes:
    shape: Mapping[str, Any] = anthropic_shape(refusal, request_id)
    return named_frame(shape)
