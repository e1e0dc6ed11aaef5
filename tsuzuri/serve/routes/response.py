"""保存した答え。 / A stored response."""

from __future__ import annotations

from tsuzuri.serve.call import Call
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire.openai_responses import FETCH, check_query

METHOD, PATHS, POLICY = "GET", ("/v1/responses/{response}", "/responses/{response}"), ("chat",)


async def answer(call: Call) -> Answer:
    check_query(call.request.query_params.multi_items(), FETCH)
    kept = await call.service.keeping.find(call.tenant, call.request.path_params["response"])
    return Answer(kept["response"])
