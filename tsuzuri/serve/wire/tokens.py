"""Tokens of a text or a conversation, and text of tokens, as vLLM's /tokenize and /detokenize.

In: the JSON of a request -> what is to be cut or joined. In: ids -> the answer. It knows no tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.serve.wire import fields, openai_tools
from tsuzuri.serve.wire.fields import JSON, Field, invalid, refused, used
from tsuzuri.types import Message

LONGEST = 1 << 16  # characters: one word of as many is cut in one go, while others wait for the interpreter
TOKENIZE: tuple[Field, ...] = (
    used("model", "モデルの名前", "the name of a model"),
    used("prompt", f"文章（{LONGEST} 文字まで）", f"a text, of at most {LONGEST} characters"),
    used("messages", "会話（prompt の代わりに）", "a conversation, instead of a prompt"),
    used("tools", "会話で呼び出せるツール", "tools that may be called in the conversation"),
    used("return_token_strs", "トークンの文字も返す", "the tokens as strings, too"),
    refused("add_special_tokens", "文章に特別なトークンは足しません。", "No special tokens are added to a text.", False),
    refused("add_generation_prompt", "会話には必ず付けます。", "A conversation always has it.", True),
)
DETOKENIZE: tuple[Field, ...] = (
    used("model", "モデルの名前", "the name of a model"),
    used("tokens", "トークン番号", "token ids"),
)


@dataclass(frozen=True, slots=True)
class Cut:
    model: str
    prompt: str | None
    messages: tuple[Message, ...]
    tools: tuple[JSON, ...]
    strings: bool


def read_tokenize(request: JSON) -> Cut:
    """Raises Refusal."""
    fields.check(request, TOKENIZE)
    prompt = fields.string(request, "prompt", most=LONGEST)
    if (prompt is None) == (request.get("messages") is None):
        raise invalid("prompt", Words("prompt か messages のどちらかが要ります。", "It takes either prompt or messages."))
    messages = openai_tools.messages(request) if prompt is None else ()
    tools = openai_tools.tools(request).tools
    if tools and prompt is not None:
        raise invalid("tools", Words("messages と一緒のときだけです。", "Only together with messages."))
    return Cut(fields.needed(request, "model", most=256), prompt, messages, tools, fields.boolean(request, "return_token_strs"))


def read_detokenize(request: JSON) -> tuple[str, list[int]]:
    """(model, ids). Raises Refusal."""
    fields.check(request, DETOKENIZE)
    ids = fields.several(request.get("tokens"), "tokens", most=1 << 20)
    if not all(isinstance(id, int) and not isinstance(id, bool) and 0 <= id < 2**31 for id in ids):
        raise invalid("tokens", Words("トークン番号の並びが要ります。", "It takes token ids."), code="invalid_type")
    return fields.needed(request, "model", most=256), ids


def tokenized(ids: Sequence[int], strings: Sequence[str] | None, context_length: int | None) -> dict[str, Any]:
    made: dict[str, Any] = {"count": len(ids), "max_model_len": context_length, "tokens": list(ids)}
    return made if strings is None else {**made, "token_strs": list(strings)}
