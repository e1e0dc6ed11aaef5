"""Our tokenizers <-> the vocabulary keys of a GGUF file.

In: a byte-level BPE tokenizer. Out: tokens, kinds, merges, and the whole tokenizer.json under the key that the format has for it;
and back. llama.cpp cuts a text by patterns of its own, of which PRE is the nearest to ours: merges never join two scripts, so
nearly every text gets the same ids (tests/text/test_gguf_vocabulary.py counts). Other kinds of tokenizer have no counterpart there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from tsuzuri.errors import ConfigError, FormatError, Words
from tsuzuri.text.fast import FastTokenizer, parse

PRE = "llama-bpe"
NORMAL, CONTROL, UNUSED = 1, 3, 5  # token types
WHOLE = "tokenizer.huggingface.json"
DIGITS_3, DIGITS_1 = r"\p{N}{1,3}", r"\p{N}"
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"  # GPT-4's pattern
)
PATTERNS = {  # names that llama.cpp has for pre-tokenizers -> a pattern; None: that of GPT-2, which the library has
    "default": None, "gpt-2": None, "llama-bpe": WORDS.replace("DIGITS", DIGITS_3), "llama3": WORDS.replace("DIGITS", DIGITS_3),
    "qwen2": WORDS.replace("DIGITS", DIGITS_1),
}  # fmt: skip


def keys(tokenizer: FastTokenizer, rows: int, chat_template: str | None, ends: Mapping[str, int]) -> dict[str, Any]:
    """The metadata of a tokenizer for a model with `rows` embeddings. `ends`: bos, eos, padding -> id. Raises ConfigError for a
    tokenizer that is not byte-level BPE."""
    state = tokenizer.state
    model = state["model"]
    if tokenizer.kind != "bpe" or model.get("byte_fallback") or (state.get("decoder") or {}).get("type") != "ByteLevel":
        raise ConfigError(
            Words("トークナイザを GGUF に書き込もうとしました。", "Writing the tokenizer into a GGUF file."),
            found=Words(
                f"種類が {tokenizer.kind} です。GGUF に書けるのはバイト単位の bpe だけです。",
                f"It is {tokenizer.kind}; only byte-level bpe can be written.",
            ),
            todo=Words(
                "--to hf で書き出すか、bpe のトークナイザで学習してください。", "Export with --to hf, or train with a bpe tokenizer."
            ),
        )
    special = {token["id"]: token["content"] for token in state["added_tokens"]}
    named = {id: piece for piece, id in model["vocab"].items()} | special
    tokens = [named.get(id, f"[UNUSED{id}]") for id in range(rows)]
    kinds = [CONTROL if id in special else NORMAL if id in named else UNUSED for id in range(rows)]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    found: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": PRE,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.add_bos_token": False,
        WHOLE: json.dumps(state, ensure_ascii=False),
    }
    found |= {f"tokenizer.ggml.{name}_token_id": id for name, id in ends.items()}
    return found if chat_template is None else {**found, "tokenizer.chat_template": chat_template}


def tokenizer(metadata: Mapping[str, Any]) -> FastTokenizer:
    """The tokenizer of a file: the whole tokenizer.json where it holds one, else made from tokens and merges. Raises FormatError
    for keys that contradict each other, ConfigError for a kind that is not byte-level BPE."""
    whole = metadata.get(WHOLE)
    if isinstance(whole, str):
        return parse(whole, Words("GGUF の中のトークナイザを読もうとしました。", "Reading the tokenizer in a GGUF file."))
    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or pre not in PATTERNS:
        raise ConfigError(
            Words("GGUF の中のトークナイザを読もうとしました。", "Reading the tokenizer in a GGUF file."),
            found=Words(
                f"種類が {kind!r}、分割が {pre!r} です。読めるのは gpt2（{'、'.join(PATTERNS)}）です。",
                f"It is {kind!r}, cut by {pre!r}; gpt2 can be read ({', '.join(PATTERNS)}).",
            ),
            todo=Words("safetensors 形式のモデルを入手してください。", "Fetch the model as safetensors."),
        )
    try:
        return _made(metadata, PATTERNS[pre])
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            Words("GGUF の中のトークナイザを読もうとしました。", "Reading the tokenizer in a GGUF file."),
            found=Words(f"語彙か結合の項目が壊れています（{error}）。", f"Its tokens or merges are damaged ({error})."),
            todo=Words("ファイルを入手し直してください。", "Fetch the file again."),
        ) from error


def _made(metadata: Mapping[str, Any], pattern: str | None) -> FastTokenizer:
    tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    pairs = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    if len(kinds) != len(tokens) or len(set(tokens)) != len(tokens) or any(len(pair) != 2 for pair in pairs):
        raise ValueError("tokens")
    known = set(tokens)
    if not all({left, right, left + right} <= known for left, right in pairs):
        raise ValueError("merges")
    core = tokenizers.Tokenizer(models.BPE({token: id for id, token in enumerate(tokens)}, pairs))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    cut = [] if pattern is None else [pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")]
    core.pre_tokenizer = pre_tokenizers.Sequence([*cut, level])
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL])
    text = Words("GGUF の中のトークナイザを読もうとしました。", "Reading the tokenizer in a GGUF file.")
    return parse(core.to_str(), text)
