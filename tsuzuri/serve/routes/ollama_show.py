"""一つのモデルにできること（Ollama の形）。 / What one model can do, in Ollama's form."""

from __future__ import annotations

from tsuzuri.serve.call import Call
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import ollama

METHOD, PATHS, POLICY, SHAPE = "POST", ("/api/show",), ("chat", "embeddings", "admin"), ollama.shape


async def answer(call: Call) -> Answer:
    return Answer(ollama.shown(call.served(ollama.read_show(call.body))))
