"""保存した答えへの依頼の項目。 / The items of the request that a stored response answered."""

from __future__ import annotations

from tsuzuri.serve.call import Call
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire.openai_responses import ITEMS, check_query, items

METHOD, PATHS, POLICY = "GET", ("/v1/responses/{response}/input_items", "/responses/{response}/input_items"), ("chat",)


async def answer(call: Call) -> Answer:
    """Those of that one request; what led to it belongs to the responses before it."""
    query = check_query(call.request.query_params.multi_items(), ITEMS)
    kept = await call.service.keeping.find(call.tenant, call.request.path_params["response"])
    return Answer(items(kept, query))
