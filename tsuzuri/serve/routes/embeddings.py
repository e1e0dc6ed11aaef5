"""OpenAI のベクトル（手元のモデル）。 / OpenAI's embeddings, by models of our own."""

from __future__ import annotations

from tsuzuri.serve.call import Call
from tsuzuri.serve.running import closing
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import openai_embeddings

METHOD, PATHS, POLICY = "POST", ("/v1/embeddings", "/embeddings"), ("embeddings",)


async def answer(call: Call) -> Answer:
    wanted = openai_embeddings.read(call.body)
    found = []
    vectors = call.vectors(call.served(wanted.model), openai_embeddings.places(wanted), wanted.marks)
    async with closing(vectors):
        async for each in vectors:
            openai_embeddings.check_dimensions(wanted, len(each.vector))
            found.append(each)
    told = [line for each in found for line in each.told]
    return Answer(openai_embeddings.whole(wanted, [each.vector for each in found], sum(each.tokens for each in found), told))
