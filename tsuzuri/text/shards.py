"""Text as ids on disk: little-endian uint16 or uint32 files, memory-mapped, with a manifest that vouches for them.

In: documents and a tokenizer. Out: a directory of `tokens-00000.bin` …, `documents.bin` (lengths) and `manifest.json`,
written whole or not at all; and `Shards`, which reads it. No special token is added: boundaries are the objective's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tsuzuri import directory as directories
from tsuzuri.errors import FormatError, InputError, TsuzuriError, Words
from tsuzuri.text.corpus import output
from tsuzuri.text.corpus.read import Document, origin

Ids: TypeAlias = NDArray[np.uint16] | NDArray[np.uint32]

MANIFEST = "manifest.json"
LENGTHS = "documents.bin"  # (documents, 2) int64: tokens, UTF-8 bytes
VERSION = 1
BATCH = 256  # documents tokenized at once
MAX_MANIFEST = 1 << 26


class Encoder(Protocol):
    """What of `text/fast.py` is needed here."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]: ...


@dataclass(frozen=True, slots=True)
class File:
    """One file of the directory. `tokens` is 0 for the file of lengths."""

    name: str
    tokens: int
    size: int  # bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Source:
    """What came from one collection under one licence. Empty strings: the documents did not say."""

    source: str
    licence: str
    documents: int
    tokens: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in a directory of shards. `empty`: documents without a single character, which were left out."""

    tokenizer: str  # fingerprint
    vocab_size: int
    dtype: str  # uint16 or uint32
    documents: int
    tokens: int
    bytes: int  # of the text, in UTF-8
    empty: int
    sources: tuple[Source, ...]
    files: tuple[File, ...]
    version: int = VERSION


def write(
    directory: Path,
    documents: Iterable[Document],
    tokenizer: Encoder,
    *,
    progress: Callable[[int], None] | None = None,
    shard_tokens: int = 1 << 26,
) -> Manifest:
    """Tokenize `documents` into `directory`, a file for every `shard_tokens` tokens or a little more: no document is cut.

    `progress` hears how many documents are done. Raises InputError when there is no text at all, SpaceError when there is no room,
    ConfigError when `directory` holds other files.
    """
    output.check(directory)
    with directories.whole(directory) as temporary:
        writer = _Writer(temporary, np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4"), shard_tokens)
        iterator = iter(documents)
        done = empty = 0
        while batch := list(islice(iterator, BATCH)):
            full = [document for document in batch if document.text]
            for document, ids in zip(full, tokenizer.encode_batch([document.text for document in full]), strict=True):
                writer.add(document, ids)
            done, empty = done + len(batch), empty + len(batch) - len(full)
            if progress:
                progress(done)
        return writer.finish(tokenizer, empty)


class _Writer:
    """Appends documents to the current file and begins the next one when it is full."""

    def __init__(self, directory: Path, dtype: np.dtype[Any], shard_tokens: int) -> None:
        self._directory, self._dtype, self._limit = directory, dtype, shard_tokens
        self._held: list[NDArray[Any]] = []
        self._count = 0
        self._lengths: list[tuple[int, int]] = []
        self._files: list[File] = []
        self._sources: dict[tuple[str, str], list[int]] = {}

    def add(self, document: Document, ids: Sequence[int]) -> None:
        assert ids, "a tokenizer gives at least one id for a text that is not empty"
        self._held.append(np.asarray(ids, dtype=self._dtype))
        self._count += len(ids)
        size = len(document.text.encode())
        self._lengths.append((len(ids), size))
        row = self._sources.setdefault((origin(document.source), document.licence), [0, 0, 0])
        row[:] = row[0] + 1, row[1] + len(ids), row[2] + size
        if self._count >= self._limit:
            self._flush()

    def finish(self, tokenizer: Encoder, empty: int) -> Manifest:
        if not self._lengths:
            raise InputError(
                Words("文章をトークンに直そうとしました。", "Turning text into tokens."),
                found=Words(f"文章が一つもありません（空の文書 {empty} 件）。", f"There is no text at all ({empty} empty documents)."),
                todo=Words("入力を確かめてください。", "Check the input."),
            )
        self._flush()
        self._save(LENGTHS, np.asarray(self._lengths, dtype="<i8").tobytes(), 0)
        tokens, size = (sum(column) for column in zip(*self._lengths, strict=True))
        manifest = Manifest(
            tokenizer.fingerprint,
            tokenizer.vocab_size,
            "uint16" if self._dtype.itemsize == 2 else "uint32",
            len(self._lengths),
            tokens,
            size,
            empty,
            tuple(Source(*name, *counts) for name, counts in sorted(self._sources.items())),
            tuple(self._files),
        )
        (self._directory / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1) + "\n", encoding="utf-8")
        return manifest

    def _flush(self) -> None:
        if self._held:
            self._save(f"tokens-{len(self._files):05}.bin", np.concatenate(self._held).tobytes(), self._count)
            self._held, self._count = [], 0

    def _save(self, name: str, data: bytes, tokens: int) -> None:
        (self._directory / name).write_bytes(data)
        self._files.append(File(name, tokens, len(data), hashlib.sha256(data).hexdigest()))


class Shards:
    """A directory of shards: its manifest, the length of every document, and the ids of each without copying them.

    `verify=True` hashes every file (about 1 GB/s); otherwise only sizes are compared. Raises FormatError naming what is wrong.
    """

    def __init__(self, directory: Path, *, verify: bool = True) -> None:
        self.directory = directory
        with _reported(directory):
            self.manifest = _manifest(directory)
            if verify:
                _check_hashes(directory, self.manifest)
            self.lengths, self.byte_lengths = _lengths(directory, self.manifest)
            self._maps = [np.memmap(directory / file.name, dtype=_dtype(self.manifest), mode="r") for file in _token_files(self.manifest)]
            ends = np.cumsum([file.tokens for file in _token_files(self.manifest)], dtype=np.int64)
            self._starts = np.concatenate([[0], np.cumsum(self.lengths)])  # of each document, in the whole
            self._bases = np.concatenate([[0], ends])
            _check_whole(directory, self)

    def __len__(self) -> int:
        return self.manifest.documents

    def document(self, index: int) -> Ids:
        """The ids of one document, a view into the file. Raises IndexError."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = int(self._starts[index])
        shard = int(np.searchsorted(self._bases, start, side="right")) - 1
        offset = start - int(self._bases[shard])
        found: Ids = self._maps[shard][offset : offset + int(self.lengths[index])]
        return found

    def __iter__(self) -> Iterator[Ids]:
        return (self.document(index) for index in range(len(self)))


# ── reading what may be damaged


def _manifest(directory: Path) -> Manifest:
    path = directory / MANIFEST
    if path.stat().st_size > MAX_MANIFEST:
        raise _broken(directory, Words(f"{MANIFEST} が大きすぎます。", f"{MANIFEST} is too large."))
    value = json.loads(path.read_text(encoding="utf-8"))
    listed = [File(str(f["name"]), int(f["tokens"]), int(f["size"]), str(f["sha256"])) for f in value["files"]]
    names = [f"tokens-{number:05}.bin" for number in range(len(listed) - 1)]
    if [file.name for file in listed] != [*names, LENGTHS]:  # also keeps a manifest from naming files elsewhere
        raise _broken(directory, Words("目録のファイル名が正しくありません。", "The manifest names other files than there should be."))
    counts = {name: int(value[name]) for name in ("vocab_size", "documents", "tokens", "bytes", "empty", "version")}
    if counts["version"] != VERSION or value["dtype"] not in ("uint16", "uint32"):
        raise _broken(directory, Words("この版では読めない形式です。", "It is of a form this version cannot read."))
    sources = tuple(
        Source(str(s["source"]), str(s["licence"]), int(s["documents"]), int(s["tokens"]), int(s["bytes"])) for s in value["sources"]
    )
    return Manifest(str(value["tokenizer"]), dtype=value["dtype"], sources=sources, files=tuple(listed), **counts)


def _check_hashes(directory: Path, manifest: Manifest) -> None:
    for file in manifest.files:
        _check_size(directory, file)
        with (directory / file.name).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != file.sha256:
                raise _broken(directory, Words(f"{file.name} の内容が変わっています。", f"The contents of {file.name} have changed."))


def _check_size(directory: Path, file: File) -> None:
    size = (directory / file.name).stat().st_size
    if size != file.size:
        raise _broken(
            directory,
            Words(f"{file.name} は {file.size} バイトのはずが {size} バイトです。", f"{file.name} has {size} bytes, not {file.size}."),
        )


def _lengths(directory: Path, manifest: Manifest) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tokens and UTF-8 bytes of every document."""
    for file in manifest.files:
        _check_size(directory, file)
    table = np.fromfile(directory / LENGTHS, dtype="<i8").reshape(-1, 2).astype(np.int64)
    return np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1])


def _check_whole(directory: Path, shards: Shards) -> None:
    """The counts agree with each other, so that no document can reach beyond its file."""
    manifest, item = shards.manifest, _dtype(shards.manifest).itemsize
    totals = tuple(sum(getattr(source, name) for source in manifest.sources) for name in ("documents", "tokens", "bytes"))
    agree = (
        totals == (manifest.documents, manifest.tokens, manifest.bytes)
        and len(shards.lengths) == manifest.documents
        and int(shards.lengths.sum()) == manifest.tokens == sum(file.tokens for file in manifest.files)
        and int(shards.byte_lengths.sum()) == manifest.bytes
        and bool((shards.lengths > 0).all())
        and all(file.tokens * item == file.size for file in _token_files(manifest))
        and bool(np.isin(shards._bases, shards._starts).all())
    )
    if not agree:
        raise _broken(directory, Words("目録とファイルの数が合いません。", "The counts in the manifest and the files do not agree."))


def _token_files(manifest: Manifest) -> tuple[File, ...]:
    return tuple(file for file in manifest.files if file.name != LENGTHS)


def _dtype(manifest: Manifest) -> np.dtype[Any]:
    return np.dtype("<u2" if manifest.dtype == "uint16" else "<u4")


@contextmanager
def _reported(directory: Path) -> Iterator[None]:
    try:
        yield
    except TsuzuriError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _broken(
            directory, Words("目録か中身がないか、読めません。", "The manifest or a file is missing or cannot be read.")
        ) from error


def _broken(directory: Path, found: Words) -> FormatError:
    return FormatError(
        Words(f"トークンのファイル {directory.name} を開こうとしました。", f"Opening the shards {directory.name}."),
        found=found,
        todo=Words("消して、作り直してください。", "Delete it and make it again."),
    )
