"""このキーで使えるモデル（Ollama の形）。 / The models that the key may use, in Ollama's form."""

from __future__ import annotations

from tsuzuri.serve.call import Call
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import ollama

METHOD, PATHS, POLICY, SHAPE = "GET", ("/api/tags",), ("chat", "embeddings", "admin"), ollama.shape


async def answer(call: Call) -> Answer:
    return Answer({"models": [ollama.tagged(model) for model in call.allowed()]})
