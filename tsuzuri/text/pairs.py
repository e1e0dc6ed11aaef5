"""Pairs of texts from JSON lines: what is to be read and what is to be written.

In: files (.jsonl, packed or not) and the names of two columns. Out: (source, target) in the order of the files, every one of
them; a line without both is refused by number. It knows no tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tsuzuri.errors import InputError, Words
from tsuzuri.text.corpus.read import objects

LONGEST = 1 << 20  # bytes of a line


def read(paths: Sequence[Path], source: str, target: str) -> Iterator[tuple[str, str]]:
    """Raises MissingError and InputError naming file and line."""
    form = Words(
        f'一行に {{"{source}": "…", "{target}": "…"}} の形で書いてください。',
        f'Write one {{"{source}": "…", "{target}": "…"}} a line.',
    )
    for path in paths:
        for number, record in objects(path, LONGEST, form):
            for name in (source, target):
                value = record.get(name)
                if not isinstance(value, str) or not value.strip():
                    raise InputError(
                        Words(f"{path.name} の組を読もうとしました。", f"Reading the pairs of {path.name}."),
                        found=Words(f"{number} 行目に文章 {name} がありません。", f"Line {number} has no text {name}."),
                        todo=form,
                    )
            yield record[source], record[target]
