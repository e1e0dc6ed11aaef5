"""答えずに、モデルが読むトークンを数える。 / How many tokens a model would read, without an answer."""

from __future__ import annotations

from tsuzuri.errors import Words
from tsuzuri.serve.call import Call, able
from tsuzuri.serve.routes.responses import continued
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import openai_responses

METHOD, PATHS, POLICY = "POST", ("/v1/responses/input_tokens", "/responses/input_tokens"), ("chat",)


async def answer(call: Call) -> Answer:
    asked = await continued(call, openai_responses.read_count(call.body))
    model = call.served(asked.model)
    able(model, asked)
    tokens = model.ours(Words("トークンの数", "a number of tokens"))
    await tokens.fits(asked.messages)  # what never fits is told so, before megabytes of it are masked and cut
    read = await tokens.conversation(await call.service.guard.messages(asked.messages), asked.options.tools)
    return Answer({"object": "response.input_tokens", "input_tokens": len(read)})
