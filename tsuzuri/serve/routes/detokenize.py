"""トークンの文字（vLLM と同じ形）。 / The text of tokens, as vLLM's."""

from __future__ import annotations

from tsuzuri.errors import Words
from tsuzuri.serve.call import Call
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire.tokens import read_detokenize

METHOD, PATHS, POLICY = "POST", ("/detokenize", "/v1/detokenize"), ("chat", "embeddings")


async def answer(call: Call) -> Answer:
    name, ids = read_detokenize(call.body)
    tokens = call.served(name).ours(Words("トークンの文字", "the text of tokens"))
    return Answer({"prompt": await tokens.decode(ids)})
