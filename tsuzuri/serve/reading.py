"""A directory of a model that only reads, behind the service: an encoder (BERT, RoBERTa, ModernBERT …), or word vectors.

In: texts or token ids. Out: a vector of length 1 for each, and how many tokens were read. What computes runs in a thread of its own,
never in the event loop. It writes no text. It loads torch and is imported only when a directory is named.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from tsuzuri.chat import labels
from tsuzuri.errors import ConfigError, InputError, Words
from tsuzuri.model import weights
from tsuzuri.model.vectors import MODEL_TYPE, Vectors
from tsuzuri.serve.models import Embedded, Prepared, Reader
from tsuzuri.text.words import cutter

T = TypeVar("T")
GIVES_VECTORS = ("embed", "masked")  # heads


def reader(directory: Path, *, quantize: str | None = None, threads: int | None = None, **_: object) -> Reader | None:
    """None where the model writes. Raises ConfigError for an encoder that was trained for something else than vectors, and where it is
    to be quantised; what `labels.load` and `Vectors.load` raise."""
    config = directory / "config.json"
    words = config.is_file() and weights.read_json(config).get("model_type") == MODEL_TYPE
    if not words and not labels.holds_encoder(directory):
        return None
    if quantize is not None:
        raise ConfigError(
            Words(
                f"モデル {directory.name} を {quantize} に量子化しようとしました。", f"Quantising the model {directory.name} to {quantize}."
            ),
            found=Words("読むだけのモデルは、読み込むときに量子化できません。", "A model that only reads is not quantised on loading."),
            todo=Words("--quantize を外してください。", "Leave --quantize out."),
        )
    return WordVectors(directory) if words else Encoding(directory, threads)


class _Away:
    """One thread for what computes."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="tsuzuri-serve")

    def close(self) -> None:
        self._worker.shutdown()

    async def _away(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)


class Encoding(_Away):
    """`Reader` of an encoder: the mean over the tokens of a text."""

    def __init__(self, directory: Path, threads: int | None = None) -> None:
        super().__init__()
        self.encoder = labels.load(directory, threads=threads)
        self.context_length = self.encoder.model.context_length
        if self.encoder.task not in GIVES_VECTORS:
            raise ConfigError(
                Words(f"エンコーダ {directory} を提供しようとしました。", f"Serving the encoder {directory}."),
                found=Words(
                    f"{self.encoder.task} のために学習したもので、ベクトルを作るものではありません。",
                    f"It was trained for {self.encoder.task}, not for vectors.",
                ),
                todo=Words(
                    "tsuzuri label で使うか、ベクトルのためのエンコーダを指定してください。",
                    "Use it with tsuzuri label, or name an encoder for vectors.",
                ),
            )

    async def decode(self, ids: Sequence[int]) -> str:
        return await self._away(lambda: self.encoder.tokenizer.decode(ids))

    async def prepare(self, prompt: str | Sequence[int]) -> Prepared:
        def work() -> Prepared:
            row = self.encoder.checked(self.encoder.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt))
            return Prepared(row, len(row))

        return await self._away(work)

    async def embed(self, prompts: Sequence[Prepared]) -> AsyncIterator[tuple[int, Embedded]]:
        """Several in one call of the model, as many as `labels.together` allows."""
        for places in labels.together([each.ids for each in prompts]):
            rows = [prompts[place].ids for place in places]
            vectors = (await self._away(partial(self.encoder.embed_rows, rows))).tolist()
            for place, vector in zip(places, vectors, strict=True):
                yield place, Embedded(vector, prompts[place].tokens)


class WordVectors(_Away):
    """`Reader` of word vectors: the weighted mean of the words of a text; those that have no vector are told."""

    context_length: int | None = None

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.vectors = Vectors.load(directory, cutter)

    async def decode(self, ids: Sequence[int]) -> str:
        """Raises InputError: words have no numbers that a client could know."""
        raise InputError(
            Words("トークン番号をモデルに渡そうとしました。", "Giving the model token ids."),
            found=Words("単語ベクトルのモデルが読めるのは文章だけです。", "A model of word vectors reads texts only."),
            todo=Words("文章を渡してください。", "Give it a text."),
        )

    async def prepare(self, prompt: str | Sequence[int]) -> Prepared:
        text = prompt if isinstance(prompt, str) else await self.decode(prompt)

        def work() -> Prepared:
            vector, count, unknown = self.vectors.embed(text), len(self.vectors.cut(text)), len(self.vectors.unknown(text))
            words = Words(f"ベクトルのない語が {unknown} 語あり、数えていません。", f"{unknown} words have no vector and do not count.")
            return Prepared((), count, Embedded(vector.tolist(), count, (str(words),) if unknown else ()))

        return await self._away(work)

    async def embed(self, prompts: Sequence[Prepared]) -> AsyncIterator[tuple[int, Embedded]]:
        for place, each in enumerate(prompts):
            assert each.ready is not None
            yield place, each.ready
