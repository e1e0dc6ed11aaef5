"""OpenAI の続きの生成（手元のモデル）。 / OpenAI's completions, by models of our own."""

from __future__ import annotations

from tsuzuri.errors import Words
from tsuzuri.serve.call import DONE, Call, data_frame, openai_failed, streamed, whole
from tsuzuri.serve.models import Served
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import openai_completions
from tsuzuri.serve.wire.asked import Asked

METHOD, PATHS, POLICY = "POST", ("/v1/completions", "/completions"), ("chat",)


async def answer(call: Call) -> Answer:
    asked = openai_completions.read(call.body)
    model = call.served(asked.model)
    echoed = await _echoed(model, asked)
    head, events = call.head("cmpl-", model), call.continuations(model, asked)
    if not asked.stream:
        count = asked.choices * len(asked.prompts)
        return await whole(events, count, lambda answers: openai_completions.whole(head, asked, answers, echoed))
    chunks = openai_completions.Chunks(head, asked, echoed)
    return streamed(events, chunks.event, chunks.end, data_frame, DONE, openai_failed)


async def _echoed(model: Served, asked: Asked) -> list[str]:
    """What stands before the continuations of each prompt; ids are given back as the text that they are."""
    tokens = model.ours(Words("文章の続き", "the continuation of a text"))
    if not asked.echo:
        return [""] * len(asked.prompts)
    return [prompt if isinstance(prompt, str) else await tokens.decode(prompt) for prompt in asked.prompts]
