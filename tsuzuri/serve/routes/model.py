"""One model by its name (GET /v1/models/NAME), slashes and aliases included."""

from __future__ import annotations

from tsuzuri.serve.call import Call
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire.openai_models import one

METHOD, PATHS, POLICY = "GET", ("/v1/models/{model:path}", "/models/{model:path}"), ("chat", "embeddings", "admin")


async def answer(call: Call) -> Answer:
    return Answer(one(call.served(call.request.path_params["model"])))
