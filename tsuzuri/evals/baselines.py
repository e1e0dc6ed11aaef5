"""What a model has to beat: n-gram models of tokens, characters and bytes trained on the same text, and xz.

In: the text a model has read and the text held out from it. Out: a `Baseline` for each rival, with its time.
The n-gram model is counted in three units because none of them is always the strongest; a claim is made against
`strongest` of them. Nothing here is a network, and nothing is downloaded.
"""

from __future__ import annotations

import lzma
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsuzuri.errors import InputError, Words
from tsuzuri.evals.bits import Bits, Progress, bits_per_byte, of_documents
from tsuzuri.model.families.ngram import NgramModel
from tsuzuri.types import Tokenizer

MAX_XZ_BYTES = 64 << 20  # xz sees back as far as its dictionary, and needs eleven times that in memory
JOIN = b"\n"  # between documents for xz, which knows only one run of bytes; counted as text


@dataclass(frozen=True, slots=True)
class Units:
    """A way to cut text into ids without loss. A text is as probable as its ids, or more where others decode to it too."""

    name: str
    vocab_size: int
    encode: Callable[[str], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Baseline:
    name: str
    bits: Bits
    seconds: float


def byte_units() -> Units:
    """UTF-8 bytes, V = 256."""
    return Units("byte", 256, lambda text: text.encode())


def character_units(train: Iterable[str]) -> Units:
    """The characters read at least twice; all others are spelt as their UTF-8 bytes, ids 0 to 255.

    Characters read once are spelt too, so that the model has learnt what spelling looks like when a new one comes.
    """
    read: Counter[str] = Counter()
    for text in train:
        read.update(text)
    ids = {character: (256 + i,) for i, character in enumerate(sorted(c for c, n in read.items() if n > 1))}

    def encode(text: str) -> list[int]:
        return [id for character in text for id in ids.get(character) or character.encode()]

    return Units("character", 256 + len(ids), encode)


def token_units(tokenizer: Tokenizer) -> Units:
    """The ids of the network's own tokenizer, so that only the model differs."""
    return Units("token", tokenizer.vocab_size, tokenizer.encode)


def kneser_ney(
    train: Iterable[str], held: Sequence[str], units: Units, *, order: int = 5, seed: int = 0, progress: Progress | None = None
) -> Baseline:
    """A modified Kneser–Ney model counted on `train`, in bits per byte of `held`. Documents are not joined."""
    begin = time.perf_counter()
    name = f"{order}-gram {units.name}"
    documents = list(_encoded(train, units, f"{name}: read", progress))
    _tell(progress, f"{name}: count", 0, 1)
    model = NgramModel.fit(documents, units.vocab_size, order)
    _tell(progress, f"{name}: count", 1, 1)
    sizes = [len(text.encode()) for text in held]
    bits = of_documents(model.score, _encoded(held, units, f"{name}: score", progress), sizes, seed=seed)
    return Baseline(name, bits, time.perf_counter() - begin)


def n_grams(
    train: Sequence[str], held: Sequence[str], tokenizer: Tokenizer, *, order: int = 5, seed: int = 0, progress: Progress | None = None
) -> dict[str, Baseline]:
    """`kneser_ney` in every unit: token, character, byte. One model is in memory at a time."""
    every = (token_units(tokenizer), character_units(train), byte_units())
    return {units.name: kneser_ney(train, held, units, order=order, seed=seed, progress=progress) for units in every}


def strongest(baselines: Mapping[str, Baseline]) -> Baseline:
    """The one with the fewest bits per byte: the one a claim is made against."""
    return min(baselines.values(), key=lambda baseline: baseline.bits.bits_per_byte)


def xz(text: bytes, prior: bytes = b"") -> Baseline:
    """The size of `text` as an .xz file (preset 9, extreme) in bits per byte; a byte counts as a token.

    With `prior`, what `text` adds to a file that already holds the prior: the harder comparison, since xz then has read
    what the model has. The dictionary is made to hold all of it, so no text is out of sight. About 1 MB/s and eleven
    times the size in memory. Raises InputError when the text is empty or all of it together exceeds 64 MiB.
    """
    begin = time.perf_counter()
    size = len(prior) + len(text)
    if size > MAX_XZ_BYTES:
        raise InputError(
            Words("xz で圧縮して比べようとしました。", "Comparing with xz."),
            found=Words(f"{size:,} バイトあり、64 MiB を超えています。", f"There are {size:,} bytes, more than 64 MiB."),
            todo=Words("文章を減らすか、学習用の文章なしで比べてください。", "Take less text, or compare without the training text."),
        )
    packed = _packed(prior + text, size) - (_packed(prior, size) if prior else 0)
    value = bits_per_byte(packed * float(np.log(2)) * 8, len(text))
    bits = Bits(value, value, bytes=len(text), tokens=len(text), documents=1, standard_error=None, interval=None)
    return Baseline("xz after training text" if prior else "xz", bits, time.perf_counter() - begin)


def joined(documents: Iterable[str]) -> bytes:
    """Documents as one run of bytes, for `xz`."""
    return JOIN.join(text.encode() for text in documents)


def _packed(data: bytes, size: int) -> int:
    """Bytes of the .xz file, with a dictionary of at least `size`."""
    dictionary = max(1 << 16, 1 << (size - 1).bit_length())
    chain = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": dictionary}]
    return len(lzma.compress(data, lzma.FORMAT_XZ, filters=chain))


def _encoded(texts: Iterable[str], units: Units, what: str, progress: Progress | None) -> Iterable[NDArray[np.integer[Any]]]:
    total = len(texts) if isinstance(texts, Sequence) else 0
    for done, text in enumerate(texts, 1):
        yield np.array(list(units.encode(text)), np.int32)
        _tell(progress, what, done, total or done)


def _tell(progress: Progress | None, what: str, done: int, total: int) -> None:
    if progress:
        progress(what, done, total)
