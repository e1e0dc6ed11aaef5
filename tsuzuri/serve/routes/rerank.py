"""質問に近い順に文章を並べる（Jina、Cohere と同じ形）。 / Texts in the order of how near they are to a question, as Jina's and Cohere's."""

from __future__ import annotations

import secrets

from tsuzuri.serve.call import Call
from tsuzuri.serve.running import closing
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import rerank

METHOD, PATHS, POLICY = "POST", ("/v1/rerank", "/rerank"), ("embeddings",)


async def answer(call: Call) -> Answer:
    """How near: the cosine of the vectors."""
    wanted = rerank.read(call.body)
    model = call.served(wanted.model)
    vectors = call.vectors(model, rerank.places(wanted), wanted.marks)
    async with closing(vectors):
        found = [each async for each in vectors]
    told = list(dict.fromkeys(line for each in found for line in each.told))
    tokens = sum(each.tokens for each in found)
    return Answer(rerank.whole(f"rerank-{secrets.token_hex(12)}", model.name, wanted, [each.vector for each in found], tokens, told))
