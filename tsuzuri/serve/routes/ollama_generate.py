"""Ollama の一問一答と、続きの生成。 / Ollama's generate: one question, or a text to continue."""

from __future__ import annotations

from tsuzuri.serve.call import Call, line_by_line, whole
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import ollama

METHOD, PATHS, POLICY, SHAPE = "POST", ("/api/generate",), ("chat",), ollama.shape


async def answer(call: Call) -> Answer:
    asked = ollama.read_generate(call.body)
    model = call.served(asked.model)
    head, events = call.head("", model), call.continuations(model, asked) if asked.prompts else call.conversation(model, asked)
    if not asked.stream:
        return await whole(events, 1, lambda answers: ollama.whole(head, asked, answers[0], chat=False))
    chunks = ollama.Chunks(head, asked, chat=False)
    return line_by_line(events, chunks.event, chunks.end, ollama.shape)
