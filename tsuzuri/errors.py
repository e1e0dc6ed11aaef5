"""Every error we raise on purpose, as one tree.

    TsuzuriError
    ├── ConfigError          a recipe, a flag or a config.json asks for what cannot be
    ├── InputError           a file or text that cannot be used: empty, binary, wrongly encoded, too large
    ├── FormatError          an artefact that is not what it says: corrupt, truncated, tampered with
    ├── TrainingError        a run that may not go on: nothing to learn from, loss not a number
    ├── ContextError         more tokens than the model can take
    ├── BusyError            more asked for at once than can be taken on
    ├── SpaceError           no space or no permission to write
    ├── MissingError         a file, model or optional package that is not there
    ├── RemoteError          a server that cannot be reached, refuses, or gives up halfway
    └── StopRequested        the person asked to stop; work so far is kept

Each says three things: what was asked, what was found, what to do; in Japanese or in English, by locale.
The programmer's own fault is an `assert`, never one of these.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import NamedTuple


class Words(NamedTuple):
    """One sentence in both languages; `str()` gives the reader's."""

    ja: str
    en: str

    def __str__(self) -> str:
        return self.ja if language() == "ja" else self.en


WHY = {  # what the system says in English, whatever the locale
    errno.EACCES: "権限がありません",
    errno.EADDRINUSE: "ほかのプログラムが使っています",
    errno.EADDRNOTAVAIL: "この計算機のアドレスではありません",
    errno.EISDIR: "ディレクトリです",
    errno.ENOENT: "ありません",
    errno.ENOSPC: "空きがありません",
    errno.ENOTDIR: "途中がディレクトリではありません",
    errno.EPERM: "許されていません",
    errno.EROFS: "書き込めない場所です",
    socket.EAI_NONAME: "その名前は見つかりません",
}


def why(error: BaseException) -> Words:
    """The system's reason, to stand in brackets; of an error that has none its kind."""
    told = getattr(error, "strerror", None) or type(error).__name__
    return Words(WHY.get(getattr(error, "errno", None) or 0, told), told)


def language() -> str:
    """'ja' or 'en'. TSUZURI_LANG wins, then LC_ALL, LC_MESSAGES and LANG; a locale that names no language is Japanese."""
    for name in ("TSUZURI_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name, "")
        if value:
            return "ja" if value[:2].lower() == "ja" or value.split(".")[0] in ("C", "POSIX") else "en"
    return "ja"


class TsuzuriError(Exception):
    """`asked`: what was to be done. `found`: what stood in the way. `todo`: what the person can do now. `code`: one word for programs,
    where an error of one kind has several causes that are to be told apart."""

    def __init__(self, asked: Words, *, found: Words, todo: Words, code: str = "") -> None:
        super().__init__(asked, found, todo)
        self.asked, self.found, self.todo, self.code = asked, found, todo, code

    def __str__(self) -> str:
        return f"{self.asked}\n  {Words('状況', 'found')}: {self.found}\n  {Words('対処', 'to do')}: {self.todo}"


class ConfigError(TsuzuriError):
    pass


class InputError(TsuzuriError):
    pass


class FormatError(TsuzuriError):
    pass


class TrainingError(TsuzuriError):
    pass


class ContextError(TsuzuriError):
    pass


class BusyError(TsuzuriError):
    """More is asked for at once than can be taken on; a little later it can."""


class SpaceError(TsuzuriError):
    pass


class MissingError(TsuzuriError):
    pass


class RemoteError(TsuzuriError):
    pass


class StopRequested(TsuzuriError):
    pass
