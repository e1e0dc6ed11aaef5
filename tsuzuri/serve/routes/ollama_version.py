"""この tsuzuri の版（Ollama の形）。 / The version of this tsuzuri, in Ollama's form."""

from __future__ import annotations

from tsuzuri import __version__
from tsuzuri.serve.call import Call
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import ollama

METHOD, PATHS, POLICY, SHAPE = "GET", ("/api/version",), ("chat", "embeddings", "admin"), ollama.shape


async def answer(call: Call) -> Answer:
    return Answer({"version": __version__})
