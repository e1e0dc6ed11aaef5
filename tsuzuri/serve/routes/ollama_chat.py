"""Ollama のチャット。 / Ollama's chat."""

from __future__ import annotations

from tsuzuri.serve.call import Call, line_by_line, whole
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import ollama

METHOD, PATHS, POLICY, SHAPE = "POST", ("/api/chat",), ("chat",), ollama.shape


async def answer(call: Call) -> Answer:
    asked = ollama.read_chat(call.body)
    model = call.served(asked.model)
    head, events = call.head("", model), call.conversation(model, asked)
    if not asked.stream:
        return await whole(events, 1, lambda answers: ollama.whole(head, asked, answers[0], chat=True))
    chunks = ollama.Chunks(head, asked, chat=True)
    return line_by_line(events, chunks.event, chunks.end, ollama.shape)
