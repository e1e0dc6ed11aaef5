"""The text format of word2vec (.vec), which gensim, fastText and others write and read: a line `V D`, then a word and D numbers a line.

In: a file from anywhere, or `Vectors`. Out: `Vectors` without counts, or such a file. What does not fit is a FormatError,
found before room for it is taken: every number needs two bytes of the file. The words keep their order.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from tsuzuri.directory import told, write_bytes
from tsuzuri.errors import FormatError, InputError, MissingError, Words
from tsuzuri.model.vectors import MOST, WIDEST, Cut, Floats, Vectors

LONGEST = 1 << 16  # bytes of a word; of a number, 64 are plenty
NUMBER = 64


def write(vectors: Vectors, path: Path) -> None:
    """Numbers as they are read back to the last bit. Raises SpaceError, and InputError for a word with white space in it."""
    for word in vectors.words:
        if not word or word.split() != [word]:
            raise InputError(
                Words(f"{path.name} を word2vec のテキスト形式で書こうとしました。", f"Writing {path.name} in word2vec's text format."),
                found=Words(
                    f"語「{word}」に空白があり、この形式では書けません。",
                    f"The word '{word}' has white space in it, which this format has no way to say.",
                ),
                todo=Words("ほかの単位（units）で学習したベクトルを使ってください。", "Use vectors trained with other units."),
            )
    lines = [f"{len(vectors.words)} {vectors.matrix.shape[1]}"]
    lines += [f"{word} {' '.join(map(str, row))}" for word, row in zip(vectors.words, vectors.matrix, strict=True)]
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, "\n".join([*lines, ""]).encode())


def read(path: Path, cut: Cut, *, units: str = "word") -> Vectors:
    """A .vec file; `cut` is how texts are to be cut, which the file does not say. Raises MissingError and FormatError."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            words, matrix = _read(path, file, size)
    except (OSError, ValueError) as error:  # ValueError: no name that a file can have
        raise MissingError(
            _asked(path),
            found=Words(
                f"開けません（{getattr(error, 'strerror', None) or error}）。",
                f"It cannot be opened ({getattr(error, 'strerror', None) or error}).",
            ),
            todo=Words("パスと権限を確かめてください。", "Check the path and the permissions."),
        ) from error
    return Vectors(words, matrix, None, cut, method="word2vec text", units=units)


def _read(path: Path, file: BinaryIO, size: int) -> tuple[list[str], Floats]:
    head = file.readline(2 * NUMBER).split()
    if len(head) != 2 or not all(part.isdigit() and len(part) < 10 for part in head):
        raise _wrong(path, 1, Words("「語数 次元数」ではありません。", "It is not 'words numbers'."))
    count, width = int(head[0]), int(head[1])
    if not (1 <= count <= MOST and 1 <= width <= WIDEST and count * (2 * width + 1) <= size):
        about = f"{count:,} × {width:,}"
        raise _wrong(
            path, 1, Words(f"{about} は、このファイルに入る数ではありません。", f"{about} is more than this file, or this program, holds.")
        )
    matrix = np.empty((count, width), np.float32)
    words: dict[str, None] = {}
    for row in range(count):
        line = file.readline(LONGEST + NUMBER * width)
        word, *numbers = line.rstrip(b" \r\n").split(b" ")
        if not line.endswith(b"\n") and file.read(1):
            raise _wrong(path, row + 2, Words("行が長すぎます。", "The line is too long."))
        if len(numbers) != width:
            raise _wrong(
                path, row + 2, Words(f"数が {len(numbers)} 個です。{width} 個が要ります。", f"It has {len(numbers)} numbers, not {width}.")
            )
        try:
            spelt = word.decode()
            with np.errstate(over="ignore"):  # too large is infinite, and refused as that
                matrix[row] = np.array(numbers, dtype=np.bytes_).astype(np.float32)
        except ValueError as error:  # a UnicodeDecodeError is one
            raise _wrong(path, row + 2, Words("UTF-8 の語と数として読めません。", "It is not a word in UTF-8 and numbers.")) from error
        if not spelt or spelt in words or not np.isfinite(matrix[row]).all():
            raise _wrong(
                path,
                row + 2,
                Words("語が空か重複しているか、数が有限ではありません。", "The word is empty or stands twice, or a number is not finite."),
            )
        words[spelt] = None
    if file.read(1):
        raise _wrong(path, count + 2, Words(f"{count} 語の後に続きがあります。", f"There is more after {count} words."))
    return list(words), matrix


def _wrong(path: Path, line: int, found: Words) -> FormatError:
    return FormatError(
        _asked(path),
        found=Words(f"{line} 行目：{found.ja}", f"Line {line}: {found.en}"),
        todo=Words("壊れているか、別の形式です。入手し直してください。", "It is damaged or of another format: fetch it again."),
    )


def _asked(path: Path) -> Words:
    return Words(f"{path.name} を word2vec のテキスト形式として読もうとしました。", f"Reading {path.name} in word2vec's text format.")
