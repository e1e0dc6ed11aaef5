"""Ollama のベクトル（手元のモデル）。 / Ollama's vectors, by models of our own."""

from __future__ import annotations

import time

from tsuzuri.serve.call import Call
from tsuzuri.serve.running import closing
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import ollama, openai_embeddings

METHOD, PATHS, POLICY, SHAPE = "POST", ("/api/embed",), ("embeddings",), ollama.shape


async def answer(call: Call) -> Answer:
    begun = time.monotonic_ns()
    wanted = ollama.read_embed(call.body)
    model = call.served(wanted.model)
    vectors = call.vectors(model, openai_embeddings.places(wanted), {})
    found = []
    async with closing(vectors):
        async for each in vectors:
            openai_embeddings.check_dimensions(wanted, len(each.vector))
            found.append(each)
    told = [line for each in found for line in each.told]
    tokens = sum(each.tokens for each in found)
    return Answer(ollama.embedded(model.name, [each.vector for each in found], tokens, time.monotonic_ns() - begun, told))
