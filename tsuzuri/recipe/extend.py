"""A model for the words of another field: a larger vocabulary, learned from its texts, and what that does to bits per byte.

In: a model directory, texts, how many tokens. Out: a model directory with the larger vocabulary, and three numbers on held-out texts:
before, after with rows started from the mean of their pieces, and, for comparison, with random rows. Nothing is trained here.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tsuzuri import directory as directories
from tsuzuri.errors import ConfigError, InputError, Words
from tsuzuri.evals.bits import Bits
from tsuzuri.evals.windows import bits_per_byte
from tsuzuri.model import weights
from tsuzuri.model.adapt import vocabulary
from tsuzuri.recipe.hand_over import EXTRAS
from tsuzuri.text import fast
from tsuzuri.text.corpus.read import read
from tsuzuri.text.extend import extend
from tsuzuri.text.fast import FastTokenizer

BOUNDARY = "<|endoftext|>"
HELD = 10  # every tenth text is held out
MAX_HELD = 100_000  # bytes that are scored


@dataclass(frozen=True, slots=True)
class Grown:
    directory: str
    vocab_size: int
    tokens: list[str]  # the new ones
    bytes_per_token: tuple[float, float]  # of the held-out texts, before and after
    before: Bits
    after: Bits
    random_rows: Bits

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def grow(source: Path, inputs: Sequence[Path], count: int, target: Path) -> Grown:
    """Raises ConfigError (a tokenizer or head that cannot grow), InputError (too few texts), and what reading and writing raise."""
    texts = [document.text for document in read(list(inputs))]
    held = _first(texts[HELD - 1 :: HELD])
    if not held:
        raise InputError(
            Words("語彙を増やすための文章を読みました。", "Reading texts to extend a vocabulary."),
            found=Words(f"{len(texts)} 件しかありません。", f"There are only {len(texts)}."),
            todo=Words(f"{HELD} 件以上の文書を渡してください。", f"Give at least {HELD} documents."),
        )
    learned = [text for number, text in enumerate(texts, 1) if number % HELD]
    model, tokenizer = weights.load(source, dtype=torch.float32), fast.load(source)
    if tokenizer.vocab_size > model.vocab_size or BOUNDARY not in tokenizer.special:
        raise ConfigError(
            Words(f"{source.name} の語彙を増やそうとしました。", f"Extending the vocabulary of {source.name}."),
            found=Words(
                f"トークナイザがモデルより大きいか、{BOUNDARY} がありません。",
                f"The tokenizer is larger than the model, or has no {BOUNDARY}.",
            ),
            todo=Words("同じモデルのファイルを揃えてください。", "Put files of the same model together."),
        )
    found = extend(tokenizer, learned, count)
    first = tokenizer.vocab_size
    larger = vocabulary.extend(model, first, found.pieces)
    boundary = tokenizer.special[BOUNDARY]
    before, after = _Encoded(held, tokenizer), _Encoded(held, found.tokenizer)
    grown = Grown(
        str(target),
        found.tokenizer.vocab_size,
        [found.tokenizer.decode([id]) for id in range(first, first + count)],
        (before.bytes_per_token, after.bytes_per_token),
        bits_per_byte(model, before, boundary),
        bits_per_byte(larger, after, boundary),
        bits_per_byte(_random(larger, first, count), after, boundary),
    )
    family = weights.family_of(source).MODEL_TYPE
    with directories.whole(target) as temporary:
        weights.save(larger, temporary, family)
        for name in ("README.md", *EXTRAS):
            if (source / name).is_file():
                shutil.copy(source / name, temporary / name)
        found.tokenizer.save(temporary)
    return grown


def _first(texts: Sequence[str]) -> list[str]:
    """Whole texts, until there is enough to score."""
    found: list[str] = []
    for text in texts:
        if sum(len(one.encode()) for one in found) >= MAX_HELD:
            break
        found.append(text)
    return found


def _random(model: Any, first: int, count: int) -> Any:
    """The same with the new rows drawn, as spread as the others are."""
    other = vocabulary.extend(model, model.vocab_size, [])
    generator = torch.Generator().manual_seed(0)
    for name, weight in other.named_parameters():
        if name in ("embedding.weight", "head.weight"):
            drawn = torch.randn(count, weight.shape[1], generator=generator) * weight[:first].std() + weight[:first].mean()
            weight.data = torch.cat([weight[:first], drawn, weight[first + count :]])
    return other


class _Encoded:
    """`evals.windows.Documents` of texts in a tokenizer."""

    def __init__(self, texts: Sequence[str], tokenizer: FastTokenizer) -> None:
        self.ids = [np.asarray(tokenizer.encode(text)) for text in texts]
        self.byte_lengths: NDArray[np.int64] = np.array([len(text.encode()) for text in texts], np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def document(self, index: int) -> NDArray[np.integer[Any]]:
        return self.ids[index]

    @property
    def bytes_per_token(self) -> float:
        return float(self.byte_lengths.sum()) / max(1, sum(len(ids) for ids in self.ids))
