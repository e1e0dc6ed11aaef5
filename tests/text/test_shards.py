"""Shards: what is read is what the tokenizer gave, in files that vouch for themselves."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tsuzuri import directory
from tsuzuri.errors import ConfigError, FormatError, InputError
from tsuzuri.text import fast, shards
from tsuzuri.text.corpus.read import Document
from tsuzuri.text.shards import Shards, Source

STORY = (Path(__file__).parents[1] / "data" / "ryoriten.txt").read_text(encoding="utf-8")
TEXTS = [line for line in STORY.splitlines() if line]


class CodePoints:
    """A tokenizer with a large vocabulary: an id is a code point."""

    vocab_size = 0x110000
    fingerprint = "code points"

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [[ord(character) for character in text] for text in texts]


def documents(texts: Sequence[str]) -> list[Document]:
    return [Document(text) for text in texts]


@pytest.fixture(scope="module")
def tokenizer() -> fast.FastTokenizer:
    return fast.train("bpe", TEXTS, 400)


@pytest.mark.parametrize("limit", [1, 100, 1 << 26])
def test_ids_lengths_and_bytes_are_the_tokenizers(tmp_path: Path, tokenizer: fast.FastTokenizer, limit: int) -> None:
    heard: list[int] = []
    texts = TEXTS * 3
    manifest = shards.write(tmp_path / "s", documents(texts), tokenizer, shard_tokens=limit, progress=heard.append)
    found = Shards(tmp_path / "s")
    assert found.manifest == manifest
    assert (manifest.tokenizer, manifest.vocab_size, manifest.dtype) == (tokenizer.fingerprint, 400, "uint16")
    assert len(found) == len(texts) == heard[-1]
    assert (len(manifest.files) > 2) == (limit < 1000)
    for index, text in enumerate(texts):
        ids = found.document(index)
        assert ids.dtype == np.uint16
        assert ids.tolist() == tokenizer.encode(text)
        assert len(ids) == found.lengths[index]
        assert len(text.encode()) == found.byte_lengths[index]
    assert found.lengths.dtype == found.byte_lengths.dtype == np.int64
    assert manifest.tokens == found.lengths.sum()
    assert manifest.bytes == found.byte_lengths.sum() == len("".join(texts).encode())
    assert [ids.tolist() for ids in found] == [found.document(i).tolist() for i in range(len(found))]
    directory.verify(tmp_path / "s")


def test_a_large_vocabulary_takes_four_bytes(tmp_path: Path) -> None:
    text = "𠮷野家🍜"
    manifest = shards.write(tmp_path / "s", documents([text]), CodePoints())
    assert manifest.dtype == "uint32"
    assert "".join(map(chr, Shards(tmp_path / "s").document(0))) == text


def test_documents_are_views_and_cannot_be_written(tmp_path: Path) -> None:
    shards.write(tmp_path / "s", documents(["あいう"]), CodePoints())
    ids = Shards(tmp_path / "s").document(0)
    assert isinstance(ids.base, np.memmap) or isinstance(ids, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 1


def test_empty_documents_are_counted_and_nothing_at_all_is_refused(tmp_path: Path) -> None:
    manifest = shards.write(tmp_path / "s", documents(["", "あ", "", "い"]), CodePoints())
    assert (manifest.documents, manifest.empty) == (2, 2)
    assert Shards(tmp_path / "s").document(1).tolist() == [ord("い")]
    with pytest.raises(InputError, match="空の文書 1 件"):
        shards.write(tmp_path / "t", documents([""]), CodePoints())
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("index", [-1, 2])
def test_index_out_of_range(tmp_path: Path, index: int) -> None:
    shards.write(tmp_path / "s", documents(["あ", "い"]), CodePoints())
    with pytest.raises(IndexError):
        Shards(tmp_path / "s").document(index)


def test_sources_and_licences_are_counted(tmp_path: Path) -> None:
    values = [("あい", "github:a/b:1", "CC BY 4.0"), ("う", "aozorabunko:1", "PD-JP"), ("xyz", "github:a/b:2", "CC BY 4.0"), ("え", "", "")]
    shards.write(tmp_path / "s", [Document(text, source=source, licence=licence) for text, source, licence in values], CodePoints())
    assert Shards(tmp_path / "s").manifest.sources == (
        Source("", "", 1, 1, 3),
        Source("aozorabunko", "PD-JP", 1, 1, 3),
        Source("github:a/b", "CC BY 4.0", 2, 5, 9),
    )


def test_other_files_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "diary.txt").write_text("大切", encoding="utf-8")
    with pytest.raises(ConfigError, match="別のファイル"):
        shards.write(tmp_path / "own", documents(["あ"]), CodePoints())
    assert (tmp_path / "own" / "diary.txt").read_text(encoding="utf-8") == "大切"
    for text in ("あ", "い"):
        shards.write(tmp_path / "s", documents([text]), CodePoints())
    assert Shards(tmp_path / "s").document(0).tolist() == [ord("い")]


def damaged(path: Path, name: str, how: str) -> None:
    file = path / name
    data = bytearray(file.read_bytes())
    if how == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif how == "flip":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    else:
        file.unlink()


@pytest.mark.parametrize("name", ["tokens-00000.bin", "tokens-00001.bin", "documents.bin", "manifest.json"])
@pytest.mark.parametrize("how", ["cut", "gone", "flip"])
def test_damage_is_found(tmp_path: Path, name: str, how: str) -> None:
    shards.write(tmp_path / "s", documents(TEXTS), CodePoints(), shard_tokens=1000)
    if (name, how) == ("manifest.json", "flip"):
        text = (tmp_path / "s" / name).read_text().replace('"documents": ', '"documents": 1')
        (tmp_path / "s" / name).write_text(text)
    else:
        damaged(tmp_path / "s", name, how)
    with pytest.raises(FormatError):
        Shards(tmp_path / "s")


CHANGES = [
    ("version", 9),
    ("dtype", "float64"),
    ("dtype", "uint16"),
    ("tokens", 1),
    ("bytes", 1),
    ("sources", []),
    ("files", []),
    ("files", [{"name": "../x", "tokens": 1, "size": 1, "sha256": ""}]),
    ("files", 3),
    ("documents", "many"),
]


@pytest.mark.parametrize(("key", "value"), CHANGES)
def test_a_manifest_that_lies_is_refused_without_hashes_too(tmp_path: Path, key: str, value: object) -> None:
    shards.write(tmp_path / "s", documents(TEXTS), CodePoints())
    path = tmp_path / "s" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(FormatError):
        Shards(tmp_path / "s", verify=False)


def test_a_failure_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    def stream():  # type: ignore[no-untyped-def]
        yield Document("あ")
        raise OSError(5, os.strerror(5))

    with pytest.raises(OSError, match="error"):
        shards.write(tmp_path / "s", stream(), CodePoints())
    assert list(tmp_path.iterdir()) == []
