"""このキーで使えるモデル。 / The models that the key may use."""

from __future__ import annotations

from tsuzuri.serve.call import Call
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire.openai_models import listed

METHOD, PATHS, POLICY = "GET", ("/v1/models", "/models"), ("chat", "embeddings", "admin")


async def answer(call: Call) -> Answer:
    return Answer(listed(call.allowed()))
