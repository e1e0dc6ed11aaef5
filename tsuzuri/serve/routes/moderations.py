"""文章に危うい内容があるか（OpenAI と同じ形）。 / Whether a text holds harmful content, in OpenAI's form."""

from __future__ import annotations

import secrets

from tsuzuri.serve.call import Call
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import openai_moderations

METHOD, PATHS, POLICY = "POST", ("/v1/moderations", "/moderations"), ("chat",)


async def answer(call: Call) -> Answer:
    """No model reads the texts."""
    wanted = openai_moderations.read(call.body)
    found = await call.service.guard.content(wanted.texts)
    return Answer(openai_moderations.whole(f"modr-{secrets.token_hex(12)}", found))
