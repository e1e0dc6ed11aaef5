"""文章や会話のトークン（vLLM と同じ形）。 / The tokens of a text or a conversation, as vLLM's."""

from __future__ import annotations

from tsuzuri.errors import Words
from tsuzuri.serve.call import Call
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire.asked import piece
from tsuzuri.serve.wire.tokens import read_tokenize, tokenized

METHOD, PATHS, POLICY = "POST", ("/tokenize", "/v1/tokenize"), ("chat", "embeddings")


async def answer(call: Call) -> Answer:
    cut = read_tokenize(call.body)
    tokens = call.served(cut.model).ours(Words("トークンへの分割", "tokens"))
    ids = await (tokens.conversation(cut.messages, cut.tools) if cut.prompt is None else tokens.encode(cut.prompt))
    strings = [piece(tokens.spell(id)) for id in ids] if cut.strings else None
    return Answer(tokenized(ids, strings, tokens.context_length))
