"""保存した答えを消す。跡も残さない。 / A stored response is erased, without a trace."""

from __future__ import annotations

from tsuzuri.serve.call import Call
from tsuzuri.serve.sending import Answer

METHOD, PATHS, POLICY = "DELETE", ("/v1/responses/{response}", "/responses/{response}"), ("chat",)


async def answer(call: Call) -> Answer:
    id = call.request.path_params["response"]
    await call.service.keeping.erase(call.tenant, id)
    call.marks = {"erased": id}
    return Answer({"id": id, "object": "response", "deleted": True})
