"""モデルが読むとおりの、会話のトークン数。 / How many tokens a conversation is, as the model would read it."""

from __future__ import annotations

from tsuzuri.serve.call import Call
from tsuzuri.serve.refusal import anthropic_shape
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire.anthropic_messages import read_count

METHOD, PATHS, POLICY, SHAPE = "POST", ("/v1/messages/count_tokens",), ("chat",), anthropic_shape


async def answer(call: Call) -> Answer:
    asked = read_count(call.body)
    return Answer({"input_tokens": await call.counted(call.served(asked.model), asked)})
