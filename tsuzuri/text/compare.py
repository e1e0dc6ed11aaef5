"""How well tokenizers spell a text they were not trained on: characters and bytes a token, and fertility by script.

In: tokenizers and held-out texts. Out: rows of plain numbers that can be written as JSON. It trains, but keeps nothing.
Fertility is tokens a word (Rust et al. 2021, section 3.2). Japanese writes no spaces between words, so a word here is a
piece of `split.py`: a run of one script. 1 means that every piece is a token of its own; ours never go below it.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from tsuzuri.errors import ConfigError, InputError, Words
from tsuzuri.text import fast, kinds
from tsuzuri.text.corpus.dedup import digest
from tsuzuri.text.corpus.read import Document
from tsuzuri.text.split import SCRIPTS, scripts

SALT = 0x7473757A  # of the division here: that of a corpus goes by the same hash, and dividing one of its halves again by it would leave next to nothing
SIZES = (4_000, 8_000, 16_000, 32_000, 64_000)


class Spelling(Protocol):
    """What is measured: ids of a text, and the bytes an id stands for."""

    @property
    def vocab_size(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def token_bytes(self, id: int) -> bytes: ...


def measure(tokenizer: Spelling, texts: Iterable[str]) -> dict[str, Any]:
    """documents, characters, bytes, tokens, characters_per_token, bytes_per_token, lossless, and fertility: script -> tokens a piece.

    Scripts that the texts do not use are left out. Where a tokenizer changes the text (`lossless` is false), fertility is of
    the text as the tokens spell it. Raises InputError when there is nothing to measure.
    """
    counts: Counter[str] = Counter()
    pieces: Counter[str] = Counter()
    tokens: defaultdict[str, float] = defaultdict(float)
    lossless = True
    for text in texts:
        spelt = [tokenizer.token_bytes(id) for id in tokenizer.encode(text)]
        counts.update(documents=1, characters=len(text), bytes=len(text.encode()), tokens=len(spelt))
        lossless = lossless and b"".join(spelt) == text.encode()
        seen = -1
        for part in parts(spelt):
            tokens[part.script] += part.bytes / len(spelt[part.token])  # one that crosses pieces counts by its share of bytes
            pieces[part.script] += part.piece > seen
            seen = part.piece
    if not counts["tokens"]:
        raise InputError(
            Words("トークナイザを文章で測ろうとしました。", "Measuring a tokenizer on text."),
            found=Words("測る文章が空です。", "There is no text to measure."),
            todo=Words("文章を増やしてください。", "Give it more text."),
        )
    return {
        **counts,
        "characters_per_token": counts["characters"] / counts["tokens"],
        "bytes_per_token": counts["bytes"] / counts["tokens"],
        "lossless": lossless,
        "fertility": {script: tokens[script] / pieces[script] for script in SCRIPTS if pieces[script]},
    }


class Part(NamedTuple):
    """What one token and one piece of a text have in common."""

    token: int  # place among the tokens
    piece: int  # place among the pieces
    script: str
    text: str  # of the whole piece
    bytes: int  # that they share


def parts(spelt: Sequence[bytes]) -> Iterator[Part]:
    """Tokens laid along the pieces of the text they spell, in order; a token that crosses pieces comes once for each.

    >>> [(part.token, part.text, part.bytes) for part in parts(["今日".encode(), "は".encode()[:1], "は、".encode()[1:]])]
    [(0, '今日', 6), (1, 'は', 1), (2, 'は', 2), (2, '、', 3)]
    """
    ahead = enumerate(scripts(b"".join(spelt).decode("utf-8", errors="surrogateescape")))
    piece, script, text, left = -1, "", "", 0  # left: bytes of the piece that no token has covered yet
    for token, whole in enumerate(spelt):
        rest = len(whole)
        while rest:
            if not left:
                piece, (script, text) = next(ahead)
                left = len(text.encode("utf-8", errors="surrogateescape"))
            shared = min(rest, left)
            yield Part(token, piece, script, text, shared)
            rest, left = rest - shared, left - shared


def divide(documents: Iterable[Document], fraction: float = 0.1) -> tuple[list[str], list[str]]:
    """Texts to train on and texts held out: those whose hash lies in the lowest `fraction`, at least one of each.

    Documents of one source and title are parts of one work and go the same way; so do copies. More input moves none.
    Raises InputError when there are fewer than two works.
    """
    works: dict[bytes, list[str]] = {}
    for document in documents:
        if document.text:
            name = f"{document.source}\0{document.title}" if document.title else document.text
            works.setdefault(digest(name, SALT), []).append(document.text)
    if len(works) < 2:
        raise InputError(
            Words("文章を学習用と検証用に分けようとしました。", "Dividing text into training and held out."),
            found=Words(f"作品が {len(works)} 件しかありません。", f"There are only {len(works)} works."),
            todo=Words("二作品以上の文章を渡してください。", "Give text of at least two works."),
        )
    ordered = sorted(works)
    count = sum(int.from_bytes(name[:8], "big") < fraction * 2**64 for name in ordered)
    count = min(max(count, 1), len(ordered) - 1)
    return [text for name in ordered[count:] for text in works[name]], [text for name in ordered[:count] for text in works[name]]


def table(
    train: Sequence[str],
    held_out: Sequence[str],
    names: Sequence[str] = tuple(kinds.KINDS),
    sizes: Sequence[int] = SIZES,
    baselines: Mapping[str, Spelling] | None = None,
    progress: Callable[[str, int], None] = lambda kind, size: None,
) -> Iterator[dict[str, Any]]:
    """Rows, as they are ready: kind, vocab_size and what `measure` found. First the baselines, under their own names.

    A row whose vocabulary the text does not support has `unsupported` instead: why, for the reader. `progress` hears what
    is trained next. Raises ConfigError for an unknown kind and for a size that no text could support.
    """
    for kind in names:
        for size in sizes:
            fast.check(kind, size)
    for name, tokenizer in (baselines or {}).items():
        yield {"kind": name, "vocab_size": tokenizer.vocab_size, **measure(tokenizer, held_out)}
    for kind in names:
        for size in sizes:
            progress(kind, size)
            start = time.perf_counter()
            try:
                tokenizer = fast.train(kind, train, size)
            except ConfigError as error:
                yield {"kind": kind, "vocab_size": size, "unsupported": str(error.found)}
                continue
            seconds = time.perf_counter() - start
            yield {"kind": kind, "vocab_size": size, "train_seconds": seconds, **measure(tokenizer, held_out)}
