"""OpenAI のチャット。 / OpenAI's chat completions."""

from __future__ import annotations

from tsuzuri.serve.call import DONE, Call, data_frame, openai_failed, streamed, whole
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import openai_chat

METHOD, PATHS, POLICY = "POST", ("/v1/chat/completions", "/chat/completions"), ("chat",)


async def answer(call: Call) -> Answer:
    asked = openai_chat.read(call.body)
    model = call.served(asked.model)
    head, events = call.head("chatcmpl-", model), call.conversation(model, asked)
    if not asked.stream:
        return await whole(events, asked.choices, lambda answers: openai_chat.whole(head, asked, answers))
    chunks = openai_chat.Chunks(head, asked)
    return streamed(events, chunks.event, chunks.end, data_frame, DONE, openai_failed)
