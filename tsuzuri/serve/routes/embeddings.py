"""OpenAI のベクトル（手元のモデル）。 / OpenAI's embeddings, by models of our own."""

from __future__ import annotations

from tsuzuri.errors import Words
from tsuzuri.serve.call import Call
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import openai_embeddings

METHOD, PATHS, POLICY = "POST", ("/v1/embeddings", "/embeddings"), ("embeddings",)


async def answer(call: Call) -> Answer:
    """One after the other: a client that goes away ends it between two."""
    wanted = openai_embeddings.read(call.body)
    tokens = call.served(wanted.model).ours(Words("ベクトル", "vectors"))
    call.marks = wanted.marks
    vectors = []
    notices: list[str] = []
    for each in wanted.inputs:
        if isinstance(each, str):
            await tokens.fits(each)
        text, told = await call.service.guard.text(each if isinstance(each, str) else await tokens.decode(each))
        vector, count = await tokens.embed(text if told or isinstance(each, str) else each)  # ids stay ids unless something is masked
        notices += told
        vectors.append(vector)
        call.meter.prompt_tokens += count
    return Answer(openai_embeddings.whole(wanted, vectors, call.meter.prompt_tokens, notices))
