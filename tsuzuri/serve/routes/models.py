"""このキーで使えるモデルと料金。 / The models that the key may use, with their prices."""

from __future__ import annotations

from tsuzuri.serve.call import Call
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire.openai_models import listed

METHOD, PATHS, POLICY = "GET", ("/v1/models", "/models"), ("chat", "embeddings", "admin")


async def answer(call: Call) -> Answer:
    return Answer(listed([(model, call.price(model)) for model in call.allowed()]))
