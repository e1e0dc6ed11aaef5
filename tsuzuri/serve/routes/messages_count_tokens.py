"""モデルが読むとおりの、会話のトークン数。 / How many tokens a conversation is, as the model would read it."""

from __future__ import annotations

from tsuzuri.errors import Words
from tsuzuri.serve.call import Call, able
from tsuzuri.serve.refusal import anthropic_shape
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire.anthropic_messages import read_count

METHOD, PATHS, POLICY, SHAPE = "POST", ("/v1/messages/count_tokens",), ("chat",), anthropic_shape


async def answer(call: Call) -> Answer:
    asked = read_count(call.body)
    model = call.served(asked.model)
    able(model, asked)
    tokens = model.ours(Words("トークンの数", "a number of tokens"))
    await tokens.fits(asked.messages)  # what never fits is told so, before megabytes of it are masked and cut
    messages = await call.service.guard.messages(asked.messages)
    return Answer({"input_tokens": len(await tokens.conversation(messages, asked.options.tools))})
