"""Word vectors: which words are near, what is to a as b is to c, and a text as the mean of its words.

In: a directory (config.json, vocabulary.json, model.safetensors, and the tokenizer.json that cuts the text, if one does), or a
`.vec` file of others. Out: answers as words, cosines and vectors. It learns nothing (`train/vectors/`), and it knows no
text: how a text is cut into words is handed in (`text/words.py`).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from tsuzuri import directory as directories
from tsuzuri.config import build, dump
from tsuzuri.errors import ConfigError, FormatError, InputError, MissingError, Words
from tsuzuri.model import safe

Floats: TypeAlias = NDArray[np.float32]
Cut: TypeAlias = Callable[[str], list[str]]
Near: TypeAlias = list[tuple[str, float]]  # words and how near they are, the nearest first

MODEL_TYPE = "word_vectors"
CONFIG, VOCABULARY, WEIGHTS, TOKENIZER = "config.json", "vocabulary.json", "model.safetensors", "tokenizer.json"
MAX_CONFIG = 1 << 20  # bytes
MAX_VOCABULARY = 1 << 28  # bytes; a million words of Japanese are about 15 MB
MOST = 1 << 22  # words, and
WIDEST = 4096  # numbers of a vector
SMOOTHING = 1e-3  # a of SIF (Arora et al. 2017, section 4.1): a word of this share of the text counts half
FLAT = 1e-6  # of the largest variance: a direction with less holds nothing
SMALL = 1e-3  # ε of 3CosMul (Levy & Goldberg 2014, eq. 5)
MODEL_FOLDER = Words("単語ベクトルのフォルダを指定してください。", "Name a directory of word vectors.")


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorConfig:
    """config.json."""

    model_type: str
    method: str  # skip-gram, cbow, glove; for the reader
    units: str  # how text is cut: word, token, character
    vocab_size: int
    vector_size: int

    def __post_init__(self) -> None:
        if self.model_type != MODEL_TYPE:
            found = f"model_type が「{self.model_type}」です。「{MODEL_TYPE}」が要ります。"
            raise _refused(Words(found, f"model_type is '{self.model_type}'; it must be '{MODEL_TYPE}'."))
        for name, most in (("vocab_size", MOST), ("vector_size", WIDEST)):
            value = getattr(self, name)
            if not 1 <= value <= most:
                raise _refused(Words(f"{name} が {value} です。1 から {most} までです。", f"{name} is {value}; it lies in 1 … {most}."))


class Vectors:
    """V words, a vector (V, D) for each, and how often each was read (V,), where that is known."""

    def __init__(
        self, words: Sequence[str], matrix: Floats, counts: NDArray[np.int64] | None, cut: Cut, *, method: str = "", units: str = "word"
    ) -> None:
        assert matrix.shape[0] == len(words) and (counts is None or len(counts) == len(words))
        self.words, self.matrix, self.counts, self.cut = list(words), matrix, counts, cut
        self.method, self.units = method, units
        self.numbers = {word: number for number, word in enumerate(self.words)}

    # ── words

    def nearest(self, word: str, k: int = 10) -> Near:
        """The k words of the largest cosine. Raises InputError for a word that has no vector, naming others that do."""
        return self.combine([word], [], k)

    def similarity(self, one: str, other: str) -> float:
        """The cosine of two words, -1 … 1."""
        return float(self.unit[self.number(one)] @ self.unit[self.number(other)])

    def analogy(self, a: str, b: str, c: str, k: int = 10, rule: Literal["add", "multiply"] = "add") -> Near:
        """a is to b as c is to …: the words nearest to b - a + c."""
        return self.combine([b, c], [a], k, rule)

    def combine(self, plus: Sequence[str], minus: Sequence[str], k: int = 10, rule: Literal["add", "multiply"] = "add") -> Near:
        """The k words nearest to a sum and difference of words; the words themselves are left out.

        `add`: the cosine with the sum of unit vectors (3CosAdd, Mikolov et al. 2013c). `multiply`: Π cos(plus) / Π cos(minus) with
        cosines moved to 0 … 1 (3CosMul, Levy & Goldberg 2014), so that no single one decides.
        """
        if k < 1:
            raise _refused(Words(f"{k} 語を求められました。1 以上にしてください。", f"{k} words were asked for; it takes at least 1."))
        more, less = [self.number(word) for word in plus], [self.number(word) for word in minus]
        if rule == "add":
            wanted = self.unit[more].sum(0) - self.unit[less].sum(0)  # (D,)
            scores = self.unit @ _unit(wanted)  # (V,)
        else:
            near = (1 + self.unit @ self.unit[more + less].T) / 2  # (V, plus + minus)
            scores = near[:, : len(more)].prod(1) / (near[:, len(more) :].prod(1) + SMALL)
        scores[more + less] = -np.inf
        best = np.argsort(-scores, kind="stable")[:k]
        return [(self.words[number], float(scores[number])) for number in best if np.isfinite(scores[number])]

    def number(self, word: str) -> int:
        """The row of a word, as it is or as text would be cut. Raises InputError with near spellings."""
        found = self.numbers.get(word)
        if found is None:
            parts = self.cut(word)
            found = self.numbers.get(parts[0]) if len(parts) == 1 else None
            if found is None:
                raise self._unknown(word, parts)
        return found

    # ── texts

    def embed(self, text: str) -> Floats:
        """A text as D numbers of length 1: the mean of its words, each counting a / (a + its share of the text trained on).

        The weights are SIF's (Arora et al. 2017); where counts are not known, as in a .vec file, all count the same. The vectors
        are those of `spread`. Words without a vector count nothing: `unknown` tells which. Raises InputError where no word has one.
        """
        numbers = [self.numbers[word] for word in self.cut(text) if word in self.numbers]
        if not numbers:
            raise InputError(
                Words(f"「{_short(text)}」をベクトルにしようとしました。", f"Turning '{_short(text)}' into a vector."),
                found=Words("知っている語が一つもありません。", "It has not one word that is known."),
                todo=Words("別の文章にするか、もっと広い文章で学習してください。", "Give another text, or train on more."),
            )
        return _unit(self.weights[numbers] @ self.spread[numbers])

    def unknown(self, text: str) -> list[str]:
        """The words of a text that have no vector, in order."""
        return [word for word in self.cut(text) if word not in self.numbers]

    @cached_property
    def unit(self) -> Floats:
        """(V, D) every vector at length 1."""
        return _unit(self.matrix)

    @cached_property
    def weights(self) -> Floats:
        """(V,) how much a word counts in a mean."""
        if self.counts is None:
            return np.ones(len(self.words), np.float32)
        share = self.counts / self.counts.sum()
        return np.asarray(SMOOTHING / (SMOOTHING + share), np.float32)

    @cached_property
    def spread(self) -> Floats:
        """(V, D) the vectors less their mean, made equally wide in every direction (whitening), each at length 1.

        Trained vectors share a few large directions, frequency above all, that say little of the meaning and drown the rest in
        a mean (Mu & Viswanath 2018 take them out; here they are made as small as any other). docs/log.md has what it is worth.
        """
        middle = self.matrix - self.matrix.mean(0, dtype=np.float64)
        variance, directions = np.linalg.eigh(middle.T @ middle / len(middle))  # (D,), (D, D)
        there = variance > FLAT * max(float(variance[-1]), np.finfo(np.float64).tiny)
        narrow = directions[:, there] / np.sqrt(variance[there])
        return _unit(middle @ narrow @ directions[:, there].T)

    # ── on disk

    def save(self, directory: Path, tokenizer: Callable[[Path], None] | None = None) -> None:
        """The directory, whole or not at all. `tokenizer` writes the files of the one that cuts the text. Raises SpaceError."""
        assert self.counts is not None, "what was read from .vec is written as .vec"
        assert (tokenizer is not None) == (self.units == "token")
        config = VectorConfig(
            model_type=MODEL_TYPE, method=self.method, units=self.units, vocab_size=len(self.words), vector_size=self.matrix.shape[1]
        )
        with directories.whole(directory) as temporary:
            (temporary / CONFIG).write_text(json.dumps(dump(config), indent=1) + "\n", encoding="utf-8")
            (temporary / VOCABULARY).write_text(json.dumps(self.words, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
            tensors = {"vectors": torch.from_numpy(self.matrix).contiguous(), "counts": torch.from_numpy(self.counts)}
            safe.write(temporary / WEIGHTS, tensors, {"format": "pt"})
            if tokenizer:
                tokenizer(temporary)

    @classmethod
    def load(cls, directory: Path, cutter: Callable[[str, Path | None], Cut]) -> Vectors:
        """What `save` wrote; `cutter(units, tokenizer)` is `text/words.py`'s.

        Raises MissingError, FormatError (a file is not what it says) and ConfigError (fields that cannot be).
        """
        for name in (CONFIG, VOCABULARY, WEIGHTS):
            if not (directory / name).is_file():
                raise MissingError(_asked(directory), found=Words(f"{name} がありません。", f"There is no {name}."), todo=MODEL_FOLDER)
        if (directory / directories.MANIFEST).is_file():
            directories.verify(directory)
        fields = _json(directory, CONFIG, MAX_CONFIG)
        if not isinstance(fields, dict):
            raise _corrupt(directory, CONFIG)
        config = build(VectorConfig, fields)
        words = _words(directory, config.vocab_size)
        matrix, counts = _tensors(directory, config)
        cut = cutter(config.units, directory / TOKENIZER if config.units == "token" else None)
        return cls(words, matrix, counts, cut, method=config.method, units=config.units)

    def _unknown(self, word: str, parts: list[str]) -> InputError:
        known = [part for part in parts if part in self.numbers] if len(parts) > 1 else []
        near = self.spelt_like("".join(parts) or word)
        ja = f"似た綴りの語：{'、'.join(near)}。" if near else "学習した文章に出てくる語を指定してください。"
        en = f"Spelt alike: {', '.join(near)}." if near else "Name a word that the training text has."
        if known:
            ja, en = f"{ja}切り分けた「{'」「'.join(known)}」もあります。", f"{en} Cut into pieces, there is {', '.join(known)}."
        return InputError(
            Words(f"「{word}」のベクトルを引こうとしました。", f"Looking up the vector of '{word}'."),
            found=Words("この語は語彙にありません。", "This word is not in the vocabulary."),
            todo=Words(ja, en),
        )

    def spelt_like(self, word: str, k: int = 5) -> list[str]:
        """Words of a similar spelling, the closest first."""
        letters = set(word)
        close = [other for other in self.words if abs(len(other) - len(word)) <= 3 and letters & set(other)]
        return difflib.get_close_matches(word, close, n=k, cutoff=0.4)


def _unit(vectors: Any) -> Floats:
    """Length 1 along the last side; zero stays zero. Squares are added up in float64: those of a large float32 are more than it holds."""
    length = np.sqrt(np.einsum("...d,...d->...", vectors, vectors, dtype=np.float64))[..., None]
    return np.asarray(vectors / np.maximum(length, np.finfo(np.float32).tiny), np.float32)


def _json(directory: Path, name: str, most: int) -> Any:
    try:
        if (directory / name).stat().st_size > most:
            raise _corrupt(directory, f"{name} > {most >> 20} MiB")
        return json.loads((directory / name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise _corrupt(directory, f"{name}: {type(error).__name__}") from error


def _words(directory: Path, count: int) -> list[str]:
    """The vocabulary: so many different texts, none of them empty."""
    words = _json(directory, VOCABULARY, MAX_VOCABULARY)
    if not isinstance(words, list) or len(words) != count or not all(isinstance(word, str) and word for word in words):
        raise _corrupt(directory, f"{VOCABULARY}: {count} words")
    if len(set(words)) != count:
        raise _corrupt(directory, f"{VOCABULARY}: a word stands twice")
    return words


def _tensors(directory: Path, config: VectorConfig) -> tuple[Floats, NDArray[np.int64]]:
    """Vectors and counts, of the shapes the configuration says, and numbers all."""
    wanted = {"vectors": ("F32", (config.vocab_size, config.vector_size)), "counts": ("I64", (config.vocab_size,))}
    found = {name: (info.dtype, info.shape) for name, info in safe.header(directory / WEIGHTS).items()}
    if found != wanted:
        raise _corrupt(directory, f"{WEIGHTS}: shapes")
    tensors = safe.read(directory / WEIGHTS)
    matrix, counts = tensors["vectors"].numpy(), tensors["counts"].numpy()
    if not np.isfinite(matrix).all() or counts.min() < 0 or not 0 < counts.sum(dtype=np.float64) < 1 << 62:
        raise _corrupt(directory, f"{WEIGHTS}: values")
    return matrix, counts


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}…"


def _asked(directory: Path) -> Words:
    return Words(f"単語ベクトル {directory} を読もうとしました。", f"Reading the word vectors {directory}.")


def _corrupt(directory: Path, what: str) -> FormatError:
    return FormatError(
        _asked(directory),
        found=Words(f"ファイルの中身が壊れています（{what}）。", f"A file is corrupt ({what})."),
        todo=Words("作り直すか、入手し直してください。", "Make it again, or fetch it again."),
    )


def _refused(found: Words) -> ConfigError:
    return ConfigError(
        Words("単語ベクトルの設定を確かめました。", "Checking the settings of word vectors."),
        found=found,
        todo=Words("値を直してください。", "Correct the value."),
    )
