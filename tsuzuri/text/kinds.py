"""Four ways to choose a vocabulary, each trained by the `tokenizers` library on bytes, so that none can lose anything.

    bpe          merge the most frequent pair, again and again (Sennrich et al. 2016)     replay the merges
    unigram      keep the pieces that make the text most probable (Kudo 2018)             most probable path
    wordpiece    merges chosen as BPE's, one vocabulary (Schuster & Nakajima 2012)        longest match from the left
    characters   the most frequent characters; others are spelt as bytes                  longest match from the left

In: texts, a size, special tokens. Out: a `tokenizers.Tokenizer` cut by script (`split.py`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from tsuzuri.text.bytelevel import alphabet, visible
from tsuzuri.text.split import PATTERN

LONGEST = 64  # characters of a run matched at once: longest match tries every end for every start, a cube of the length


def bpe(texts: Iterable[str], vocab_size: int, special: tuple[str, ...]) -> tokenizers.Tokenizer:
    core = _dressed(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(special), initial_alphabet=sorted(alphabet().values()), show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    return core


def unigram(texts: Iterable[str], vocab_size: int, special: tuple[str, ...]) -> tokenizers.Tokenizer:
    """Pieces of at most 24 bytes (8 kanji). Bytes the trainer pruned come back with the lowest score: dear, but possible."""
    core = _dressed(models.Unigram())
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size - len(special),
        initial_alphabet=sorted(alphabet().values()),
        max_piece_length=24,
        unk_token=None,
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    # The trainer sums in an order that differs from run to run: the last digits are rounded away and ties sorted.
    # Without any text it divides nothing by nothing, and JSON writes that as null.
    found = {piece: round(score or 0.0, 4) for piece, score in json.loads(core.to_str())["model"]["vocab"] if piece not in special}
    # Bytes the text does not have stand 0.0001 above one another, from the lowest up, in an order that differs, too: all are put there.
    lowest = min(found.values())
    found |= {c: lowest for c in alphabet().values() if found.get(c, 0.0) < lowest + 256 * 0.0001}
    learned = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    missing = [(c, lowest - 10.0) for c in sorted(alphabet().values()) if c not in found]
    kept = [pair for pair in learned if len(pair[0]) == 1] + [pair for pair in learned if len(pair[0]) > 1]
    kept = (missing + kept)[: vocab_size - len(special)]
    return _rebuilt(models.Unigram([*((token, 0.0) for token in special), *kept], 0, False), special)


def wordpiece(texts: Iterable[str], vocab_size: int, special: tuple[str, ...]) -> tokenizers.Tokenizer:
    core = _dressed(models.WordPiece(unk_token=special[0]))
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special),
        initial_alphabet=sorted(alphabet().values()),
        continuing_subword_prefix="",
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return _matching(json.loads(core.to_str())["model"]["vocab"], special)


def characters(texts: Iterable[str], vocab_size: int, special: tuple[str, ...]) -> tokenizers.Tokenizer:
    """The commonest characters of more than one byte; ties go to the lower code point."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    room = vocab_size - len(special) - 256
    common = sorted((c for c in counts if ord(c) >= 0x80), key=lambda c: (-counts[c], c))[:room]
    pieces = [*special, *sorted(alphabet().values()), *(visible(c) for c in common)]
    return _matching({piece: id for id, piece in enumerate(pieces)}, special)


KINDS: dict[str, Callable[[Iterable[str], int, tuple[str, ...]], tokenizers.Tokenizer]] = {
    "bpe": bpe,
    "unigram": unigram,
    "wordpiece": wordpiece,
    "characters": characters,
}


def of(state: dict[str, Any]) -> str:
    """The kind of a tokenizer.json: its model's type, and characters where no piece is longer than one."""
    kind = {"BPE": "bpe", "Unigram": "unigram", "WordPiece": "wordpiece"}.get(state["model"]["type"], state["model"]["type"])
    if kind != "wordpiece":
        return str(kind)
    special = {token["content"] for token in state["added_tokens"]}
    back = {character: byte for byte, character in alphabet().items()}
    whole = [bytes(back[c] for c in piece) for piece in state["model"]["vocab"] if piece not in special and len(piece) > 1]
    return "characters" if all(_one_character(piece) for piece in whole) else "wordpiece"


def cut_by_script(state: dict[str, Any]) -> bool:
    """Whether a text's ids are those of its `split` pieces one after the other, each what the model makes of its bytes."""
    split = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    steps = (state["pre_tokenizer"] or {}).get("pretokenizers")
    return steps == [split, level] and state["normalizer"] is None and all(token["special"] for token in state["added_tokens"])


def _one_character(piece: bytes) -> bool:
    try:
        return len(piece.decode()) == 1
    except UnicodeDecodeError:
        return False


def _matching(vocabulary: dict[str, int], special: tuple[str, ...]) -> tokenizers.Tokenizer:
    """Longest match over byte-level pieces. All 256 bytes are pieces, so the unknown token is never used."""
    limit = 4 * LONGEST  # bytes of a character, at most
    model = models.WordPiece(vocabulary, unk_token=special[0], max_input_chars_per_word=limit, continuing_subword_prefix="")
    core = _rebuilt(model, special)
    core.pre_tokenizer = by_script(pre_tokenizers.Split(tokenizers.Regex(f"[\\s\\S]{{1,{LONGEST}}}"), "isolated"))
    return core


def _rebuilt(model: Any, special: tuple[str, ...]) -> tokenizers.Tokenizer:
    core = _dressed(model)
    core.add_special_tokens(list(special))
    return core


def _dressed(model: Any) -> tokenizers.Tokenizer:
    """A tokenizer around a model: cut by script, then bytes as visible characters; and back."""
    core = tokenizers.Tokenizer(model)
    core.pre_tokenizer = by_script()
    core.decoder = decoders.ByteLevel()
    return core


def by_script(*more: Any) -> Any:
    """The pre-tokenizer: cut by `split.py`'s pattern, then by `more`, then bytes as visible characters."""
    scripts = pre_tokenizers.Split(tokenizers.Regex(PATTERN), "isolated")
    return pre_tokenizers.Sequence([scripts, *more, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
