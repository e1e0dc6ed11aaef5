"""A tokenizer with more tokens, learned from a text of another field: BPE goes on where it had stopped.

In: a byte-level BPE tokenizer, texts, how many. Out: the same tokenizer with merges added after its own, and for each new token the
old ids it stands for. Old ids keep their meaning; a text that contains no new token gets the ids it always got.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import tokenizers

from tsuzuri.errors import ConfigError, Words
from tsuzuri.text.bpe import merges
from tsuzuri.text.fast import FastTokenizer


@dataclass(frozen=True, slots=True)
class Extended:
    tokenizer: FastTokenizer
    pieces: list[list[int]]  # of each new token, in order: ids of the old tokenizer


def extend(tokenizer: FastTokenizer, texts: Iterable[str], count: int) -> Extended:
    """`count` new tokens, those whose pairs are most frequent in the texts. Raises ConfigError for a tokenizer that is not byte-level
    BPE, and where the texts do not support so many."""
    asked = Words(f"トークナイザに {count} トークンを加えようとしました。", f"Adding {count} tokens to a tokenizer.")
    state = json.loads(json.dumps(tokenizer.state))
    if tokenizer.kind != "bpe" or (state.get("decoder") or {}).get("type") != "ByteLevel" or state.get("normalizer") is not None:
        raise ConfigError(
            asked,
            found=Words(
                f"種類が {tokenizer.kind} です。加えられるのはバイト単位の bpe です。", f"It is {tokenizer.kind}; byte-level bpe can grow."
            ),
            todo=Words("bpe のトークナイザのモデルを使ってください。", "Use a model with a bpe tokenizer."),
        )
    core = tokenizers.Tokenizer.from_str(json.dumps(state))
    counted: Counter[str] = Counter()
    for text in texts:
        counted.update(piece for piece, _ in core.pre_tokenizer.pre_tokenize_str(text))
    ids = [[token.id for token in core.model.tokenize(piece)] for piece in counted]
    first = tokenizer.vocab_size
    found = merges(ids, list(counted.values()), first, first + count)
    if len(found) < count:
        raise ConfigError(
            asked,
            found=Words(f"この文章から作れるのは {len(found)} までです。", f"This text supports only {len(found)}."),
            todo=Words("数を減らすか、文章を増やしてください。", "Ask for fewer, or give it more text."),
        )
    named = {id: piece for piece, id in state["model"]["vocab"].items()}
    pieces: list[list[int]] = []
    for number, (left, right) in enumerate(found):
        named[first + number] = named[left] + named[right]
        state["model"]["vocab"][named[first + number]] = first + number
        state["model"]["merges"].append([named[left], named[right]])
        pieces.append([old for side in (left, right) for old in (pieces[side - first] if side >= first else [side])])
    return Extended(FastTokenizer(tokenizers.Tokenizer.from_str(json.dumps(state))), pieces)
