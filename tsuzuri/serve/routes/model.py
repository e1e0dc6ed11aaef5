"""名前か別名で一つのモデル。料金も示す。 / One model, by its name or an alias, with its price."""

from __future__ import annotations

from tsuzuri.serve.call import Call
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire.openai_models import one

METHOD, PATHS, POLICY = "GET", ("/v1/models/{model:path}", "/models/{model:path}"), ("chat", "embeddings", "admin")


async def answer(call: Call) -> Answer:
    found = call.served(call.request.path_params["model"])
    return Answer(one(found, call.price(found)))
