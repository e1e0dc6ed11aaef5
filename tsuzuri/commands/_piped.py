"""Text from standard input: UTF-8, bounded, never guessed at."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tsuzuri.errors import InputError, MissingError, Words, why

MAX_BYTES = 1 << 24  # no context is 16 MiB long


def piped() -> str:
    """All of standard input. Raises InputError for what is empty, too large or no UTF-8, UsageError at a terminal."""
    if sys.stdin.isatty():
        raise click.UsageError(str(Words("文章を指定するか、標準入力から渡してください。", "Give a text, or pipe one in.")))
    return _text(sys.stdin.buffer.read(MAX_BYTES + 1), Words("標準入力を読もうとしました。", "Reading standard input."))


def from_file(path: Path) -> str:
    """All of a file. Raises MissingError, and InputError as `piped`."""
    asked = Words(f"{path} を読もうとしました。", f"Reading {path}.")
    try:
        with path.open("rb") as file:
            found = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise MissingError(
            asked,
            found=Words(f"開けません（{why(error).ja}）。", f"It cannot be opened ({why(error).en})."),
            todo=Words("パスと権限を確かめてください。", "Check the path and the permissions."),
        ) from error
    return _text(found, asked)


def _text(found: bytes, asked: Words) -> str:
    if not found:
        raise InputError(asked, found=Words("空です。", "It is empty."), todo=Words("文章を渡してください。", "Pipe a text in."))
    if len(found) > MAX_BYTES:
        raise InputError(
            asked,
            found=Words(f"{MAX_BYTES >> 20} MiB を超えています。", f"It is larger than {MAX_BYTES >> 20} MiB."),
            todo=Words("文章を短くしてください。", "Shorten the text."),
        )
    try:
        return found.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = error.start
        raise InputError(
            asked,
            found=Words(f"{place} バイト目から UTF-8 として読めません。", f"From byte {place} on it is not UTF-8."),
            todo=Words(
                "UTF-8 に変換してから渡してください（例：iconv -f SHIFT_JIS -t UTF-8）。",
                "Convert it to UTF-8 first, for example with iconv -f SHIFT_JIS -t UTF-8.",
            ),
        ) from error
