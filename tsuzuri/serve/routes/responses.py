"""OpenAI の responses（状態は持たない）。 / OpenAI's responses, without stored state."""

from __future__ import annotations

from tsuzuri.serve.call import Call, named_frame, streamed, whole
from tsuzuri.serve.refusal import Refusal, openai_shape
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import openai_responses

METHOD, PATHS, POLICY = "POST", ("/v1/responses", "/responses"), ("chat",)


async def answer(call: Call) -> Answer:
    asked = openai_responses.read(call.body)
    model = call.served(asked.model)
    head, events = call.head("resp_", model), call.conversation(model, asked)
    if not asked.stream:
        return await whole(events, 1, lambda answers: openai_responses.whole(head, asked, answers[0]))
    chunks = openai_responses.Chunks(head, asked)
    return streamed(events, chunks.event, chunks.end, named_frame, failed=_failed)


def _failed(refusal: Refusal, request_id: str) -> bytes:
    shape = openai_shape(refusal, request_id)
    told = {name: shape["error"][name] for name in ("code", "message", "param")}
    return named_frame({"type": "error", "sequence_number": 0, **told, **shape})
