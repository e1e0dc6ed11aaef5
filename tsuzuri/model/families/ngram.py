"""The n-gram model: interpolated modified Kneser–Ney (Chen & Goodman 1999), behind the same seam as every network.

In: documents of ids. Out: the probability of each next id, given the ids just before it and nothing else: the model
to beat. `PlainNgram` is the lesson, a page of dictionaries; `NgramModel` is the product, the same numbers from sorted
arrays (`_ngram_counts.py`). Neither knows text, and neither is trained by gradients: `fit` counts once.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from tsuzuri.config import build, dump
from tsuzuri.errors import ConfigError, FormatError, InputError, MissingError, SpaceError, Words
from tsuzuri.model.families._ngram_counts import Discounts, Floats, Ints, Table, children, discounts, sound, tables, walk
from tsuzuri.model.transformer import UNLIMITED
from tsuzuri.types import Past

MODEL_TYPE = "ngram"
SPECIAL = Words(
    "直前の n − 1 トークンだけを見て、回数を数えて確率にする。学習はいらず、どのニューラルネットワークもまずこれに勝たねばならない。",
    "Sees only the n − 1 tokens before and turns counts into probabilities: nothing is trained, and every network has to beat it first.",
)
EQUATION = "p(w|c) = (count(cw) − D) / count(c) + λ(c)·p(w|shorter c)"
PAPER = "Shannon 1948; Kneser & Ney 1995; Chen & Goodman 1999"
PUBLIC: dict[str, str] = {}
CONFIG, WEIGHTS = "config.json", "model.safetensors"
MAX_CONFIG_BYTES = 1 << 20
MAX_ORDER = 64
CHUNK = 1 << 24  # numbers of a dense table held at once: 128 MiB


class PlainNgram:
    """The plain twin, in the words of the papers. Slow, and exactly the model.

    A k-gram of the top order counts as often as it was read. A shorter one counts as often as there are *different*
    ids to its left: 「ンフランシスコ」 is frequent, but only ever after 「サ」, so on its own it should be improbable.
    At a document's start there is no left, and the plain count stays.
    """

    def __init__(self, documents: Iterable[Sequence[int]], vocab_size: int, order: int = 5, boundary: int | None = None) -> None:
        self.vocab_size, self.order = vocab_size, order
        self.boundary = vocab_size if boundary is None else boundary
        read = [Counter[tuple[int, ...]]() for _ in range(order)]
        for document in documents:
            for gram in self._grams([self.boundary, *document]):
                read[len(gram) - 1][gram] += 1
        self.counts = [read[-1]]
        for shorter, longer in zip(reversed(read[:-1]), reversed(read), strict=False):
            left = Counter(gram[1:] for gram in longer)
            self.counts.insert(0, Counter({gram: left[gram] or count for gram, count in shorter.items()}))
        self.discounts = [discounts(np.array(list(counts.values()))) for counts in self.counts]

    def _grams(self, text: list[int]) -> Iterable[tuple[int, ...]]:
        for end in range(1, len(text)):
            for k in range(1, min(self.order, end + 1) + 1):
                gram = tuple(text[end - k + 1 : end + 1])
                if self.boundary in gram[1:-1]:
                    break  # another document begins inside
                yield gram

    def probability(self, context: Sequence[int], id: int) -> float:
        """p(id | context), Chen & Goodman 1999, eq. 25, from the shortest context to the longest."""
        before = (self.boundary, *context)
        p = 1 / self.vocab_size
        for k, (counts, taken) in enumerate(zip(self.counts, self.discounts, strict=True)):
            if k > len(before):
                break
            history = before[len(before) - k :]
            followers = {gram[-1]: count for gram, count in counts.items() if gram[:-1] == history}
            if not followers:
                break  # never read: neither was any longer one
            discount = {w: taken[min(count, 3) - 1] for w, count in followers.items()}
            total = sum(followers.values())
            p = (followers.get(id, 0) - discount.get(id, 0)) / total + sum(discount.values()) / total * p
        return p


@dataclass(frozen=True, slots=True, kw_only=True)
class NgramConfig:
    """config.json. `boundary`: the id that separates documents; null: one of the model's own that no text contains."""

    model_type: str
    vocab_size: int
    order: int
    boundary: int | None
    discounts: list[list[float]]  # D1, D2, D3+ of each order, for the reader; the tables already contain them

    def __post_init__(self) -> None:
        _check(self.vocab_size, self.order, self.boundary)
        if self.model_type != MODEL_TYPE:
            raise _refused(
                Words(
                    f"model_type が「{self.model_type}」ですが、「{MODEL_TYPE}」でなければなりません。",
                    f"model_type is '{self.model_type}'; it must be '{MODEL_TYPE}'.",
                )
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The `model:` section of a recipe."""

    family: str = MODEL_TYPE
    order: int = 5

    def __post_init__(self) -> None:
        _check(1, self.order, None)


class NgramModel:
    """`model(tokens, past) -> logits` from counts. The logits are natural-log probabilities over all V ids, never -inf."""

    def __init__(self, vocab_size: int, boundary: int | None, orders: list[Table], taken: list[Discounts]) -> None:
        """What `fit` and `load` make. `orders[k - 1]` is the table of order k."""
        self.vocab_size, self.order = vocab_size, len(orders)
        self.boundary, self.discounts = boundary, taken
        self._orders = orders
        self._start = vocab_size if boundary is None else boundary

    context_length = UNLIMITED

    @property
    def size(self) -> int:
        """Distinct n-grams of all orders."""
        return sum(len(table.keys) for table in self._orders)

    def parameters(self) -> Iterator[Tensor]:
        """None: nothing here is moved by a gradient."""
        return iter(())

    @classmethod
    def fit(cls, documents: Iterable[Ints], vocab_size: int, order: int = 5, boundary: int | None = None) -> NgramModel:
        """Counts documents (T,) of ids. Raises ConfigError (impossible shape) and InputError (no ids, or ids ≥ V).

        `boundary` is the id that ends documents, if the vocabulary has one: nothing is counted across it either.
        About 5 s and 0.6 GB for 5 million tokens at order 5 on one core; both grow in proportion.
        """
        _check(vocab_size, order, boundary)
        checked = [_ids(document, vocab_size) for document in documents]
        if not sum(map(len, checked)):
            raise InputError(
                Words("n-gram モデルを作ろうとしました。", "Fitting an n-gram model."),
                found=Words("文書にトークンが一つもありません。", "The documents hold no tokens."),
                todo=Words("学習用の文章を渡してください。", "Give it text to learn from."),
            )
        start = vocab_size if boundary is None else boundary
        return cls(vocab_size, boundary, *tables(checked, vocab_size, order, start))

    def score(self, ids: Ints) -> Floats:
        """(T,) natural-log probability of each id of one document, the first given only that a document begins."""
        line = np.concatenate([[self._start], _ids(ids, self.vocab_size)])  # (T + 1,)
        rows = walk(self._orders, line, self.vocab_size + 1)
        p = self._orders[0].probability[line[1:]]  # (T,)
        for below, table, context, row in zip(self._orders, self._orders[1:], rows, rows[1:], strict=False):
            before, here = context[:-1], row[1:]
            p = np.where(here >= 0, _take(table.probability, here), np.where(before >= 0, _take(below.backoff, before), 1.0) * p)
        return np.log(np.asarray(p, np.float64))

    def distribution(self, contexts: Ints) -> Floats:
        """(N, C) the last C ≤ order - 1 ids, -1 where the document had not begun -> (N, V) probabilities."""
        width, rows = self.vocab_size + 1, len(contexts)
        p = np.tile(self._orders[0].probability[: self.vocab_size], (rows, 1))  # (N, V)
        if contexts.shape[-1] == 0:
            return p
        found = walk(self._orders[: contexts.shape[-1]], contexts, width)
        for below, table, ends in zip(self._orders, self._orders[1:], found, strict=False):
            context = ends[:, -1]  # (N,) row of the last k - 1 ids
            p *= np.where(context >= 0, _take(below.backoff, context), 1.0)[:, None]
            which, child = children(table, context, width)
            p[which, table.keys[child] % width] = table.probability[child]
        return p

    def __call__(self, tokens: Tensor, past: Past) -> Tensor:
        """(...) int64 -> (..., V) float32 log-probabilities of the id after each. The state is the last order - 1 ids."""
        contexts = tokens[..., None][..., :0]
        if self.order > 1:
            padded = tokens[..., None].expand(*tokens.shape, self.order - 1)
            contexts = past.recur(0, padded, self._remember)  # (..., order - 1)
        flat = _ids(tokens.detach().cpu().numpy().reshape(-1), self.vocab_size)
        known = contexts.detach().cpu().numpy().reshape(len(flat), self.order - 1)
        logits = np.empty((len(flat), self.vocab_size), np.float32)
        step = max(1, CHUNK // self.vocab_size)
        for begin in range(0, len(flat), step):
            logits[begin : begin + step] = np.log(self.distribution(known[begin : begin + step]))
        return torch.from_numpy(logits).reshape(*tokens.shape, self.vocab_size).to(tokens.device)

    def _remember(self, inputs: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """A Scan. (..., T, C) with the token in every column -> its last C ids (..., T, C), and those of the last token."""
        if state is None:
            state = inputs.new_full((*inputs.shape[:-2], inputs.shape[-1]), -1)
            state[..., -1] = self._start
        line = torch.cat([state, inputs[..., -1]], dim=-1)  # (..., C + T)
        size = inputs.shape[-1]
        return line.unfold(-1, size, 1)[..., 1:, :], line[..., -size:]

    def save(self, directory: Path) -> None:
        """config.json and model.safetensors. Raises SpaceError when they cannot be written; then neither is replaced."""
        config = NgramConfig(
            model_type=MODEL_TYPE,
            vocab_size=self.vocab_size,
            order=self.order,
            boundary=self.boundary,
            discounts=[list(taken) for taken in self.discounts],
        )
        arrays = {f"order.{k}.{name}": getattr(table, name) for k, table in enumerate(self._orders, 1) for name in Table.__slots__}
        names = (WEIGHTS, CONFIG)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            save_file(arrays, directory / _unfinished(WEIGHTS), metadata={"format": "np"})
            (directory / _unfinished(CONFIG)).write_text(json.dumps(dump(config), indent=2) + "\n", encoding="utf-8")
            for name in names:
                (directory / _unfinished(name)).replace(directory / name)
        except (OSError, SafetensorError) as error:
            for name in names:
                with contextlib.suppress(OSError):
                    (directory / _unfinished(name)).unlink()
            raise SpaceError(
                Words(f"n-gram モデルを {directory} に保存しようとしました。", f"Saving an n-gram model to {directory}."),
                found=Words(f"書き込めません（{type(error).__name__}）。", f"It cannot be written ({type(error).__name__})."),
                todo=Words("空き容量と権限を確かめてください。", "Check free space and permissions."),
            ) from error

    @classmethod
    def load(cls, directory: Path) -> NgramModel:
        """What `save` wrote. Raises MissingError, FormatError (not what it says) and ConfigError (fields that cannot be)."""
        for name in (CONFIG, WEIGHTS):
            if not (directory / name).is_file():
                raise MissingError(
                    _asked(directory),
                    found=Words(f"{name} がありません。", f"There is no {name}."),
                    todo=Words("n-gram モデルのフォルダを指定してください。", "Name the directory of an n-gram model."),
                )
        config = _read_config(directory)
        try:
            arrays = load_file(directory / WEIGHTS)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise _corrupt(directory, f"{WEIGHTS}: {type(error).__name__}") from error
        orders = _checked_tables(directory, config, arrays)
        return cls(config.vocab_size, config.boundary, orders, [(a, b, c) for a, b, c in config.discounts])


load = NgramModel.load


def fit(settings: Settings, documents: Iterable[Ints], vocab_size: int, boundary: int) -> NgramModel:
    """What the pre-training stage does with this family. Each document is followed by the boundary, so that its end is learned."""
    return NgramModel.fit((np.append(document, boundary) for document in documents), vocab_size, settings.order, boundary)


def _unfinished(name: str) -> str:
    return f"{name}.unfinished"


def _take(values: Floats, rows: NDArray[np.int64]) -> Floats:
    """values[rows], with anything at all where the row is -1: the caller has masked those."""
    return values[np.maximum(rows, 0)] if len(values) else np.ones(rows.shape)


def _ids(ids: Ints, vocab_size: int) -> Ints:
    """A document (T,) of ids below V, or InputError."""
    array = np.asarray(ids)
    if array.shape == (0,):
        return array.astype(np.int32)
    if array.ndim != 1 or array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= vocab_size:
        about = f"{array.dtype}, {array.shape}" + (f", {array.min()}–{array.max()}" if array.size else "")
        raise InputError(
            Words("n-gram モデルにトークン列を渡そうとしました。", "Giving ids to an n-gram model."),
            found=Words(
                f"0 以上 {vocab_size} 未満の整数の一次元配列ではありません（{about}）。",
                f"Not a row of integers of at least 0 and below {vocab_size} ({about}).",
            ),
            todo=Words("モデルと同じトークナイザを使ってください。", "Use the tokenizer the model was made with."),
        )
    return array.astype(np.int32)


def _check(vocab_size: int, order: int, boundary: int | None) -> None:
    """Raises ConfigError for a shape that cannot be."""
    if vocab_size < 1 or vocab_size >= 2**31 - 1:
        raise _refused(
            Words(
                f"vocab_size が {vocab_size} ですが、1 以上 {2**31 - 2} 以下の整数が要ります。",
                f"vocab_size is {vocab_size}; it must be 1 to {2**31 - 2}.",
            )
        )
    if not 1 <= order <= MAX_ORDER:
        raise _refused(
            Words(f"order が {order} です。使えるのは 1 から {MAX_ORDER} までです。", f"order is {order}; it may be 1 to {MAX_ORDER}.")
        )
    if boundary is not None and not 0 <= boundary < vocab_size:
        raise _refused(Words(f"boundary の {boundary} は語彙にありません。", f"boundary {boundary} is not in the vocabulary."))


def _refused(found: Words) -> ConfigError:
    return ConfigError(
        Words("n-gram モデルの設定に問題があります。", "Checking the shape of an n-gram model."),
        found=found,
        todo=Words("設定を直してください。", "Correct the setting."),
    )


def _asked(directory: Path) -> Words:
    return Words(f"n-gram モデル {directory} を読み込もうとしました。", f"Loading the n-gram model {directory}.")


def _corrupt(directory: Path, what: str) -> FormatError:
    return FormatError(
        _asked(directory),
        found=Words(f"ファイルの中身が壊れています（{what}）。", f"A file is corrupt ({what})."),
        todo=Words("保存し直すか、バックアップから戻してください。", "Save it again, or restore it from a backup."),
    )


def _read_config(directory: Path) -> NgramConfig:
    path = directory / CONFIG
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise _corrupt(directory, f"{CONFIG} > 1 MiB")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise _corrupt(directory, f"{CONFIG}: {type(error).__name__}") from error
    if not isinstance(values, dict):
        raise _corrupt(directory, CONFIG)
    config = build(NgramConfig, values)
    if [len(taken) for taken in config.discounts] != [3] * config.order:
        raise _corrupt(directory, f"{CONFIG}: discounts")
    return config


def _checked_tables(directory: Path, config: NgramConfig, arrays: dict[str, NDArray[Any]]) -> list[Table]:
    """The arrays of the file as tables, after every check that keeps a walk inside them and a probability a probability."""
    wanted = [[f"order.{k}.{name}" for name in Table.__slots__] for k in range(1, config.order + 1)]
    if set(arrays) != {name for names in wanted for name in names}:
        raise _corrupt(directory, f"{WEIGHTS}: names")
    orders: list[Table] = []
    for names in wanted:
        table = Table(*(arrays[name] for name in names))
        if not sound(table, orders[-1] if orders else None, config.vocab_size):
            raise _corrupt(directory, f"{WEIGHTS}: {names[0]}")
        orders.append(table)
    return orders
