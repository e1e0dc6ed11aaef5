"""答えずに、モデルが読むトークンを数える。 / How many tokens a model would read, without an answer."""

from __future__ import annotations

from tsuzuri.serve.call import Call
from tsuzuri.serve.routes.responses import continued
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import openai_responses

METHOD, PATHS, POLICY = "POST", ("/v1/responses/input_tokens", "/responses/input_tokens"), ("chat",)


async def answer(call: Call) -> Answer:
    asked = await continued(call, openai_responses.read_count(call.body))
    return Answer({"object": "response.input_tokens", "input_tokens": await call.counted(call.served(asked.model), asked)})
