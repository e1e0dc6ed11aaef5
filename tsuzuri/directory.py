"""A directory is written whole or not at all.

In: a path and what is to be written. Out: the directory under its name, complete, with `files.json` (sizes and SHA-256),
or the state before, whatever happens in between: an exception, a full disk, a kill, a power cut.
How: a temporary directory beside it, fsync of every file, rename, fsync of the parent. It knows nothing of the contents.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from tsuzuri.errors import ConfigError, FormatError, SpaceError, Words

MANIFEST = "files.json"
LOCK = ".lock"
RENAME_EXCHANGE = 2  # of renameat2(2), Linux 3.15
AT_FDCWD = -100
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_RIGHT = {errno.EACCES, errno.EPERM, errno.EROFS}
NO_PLACE = {
    errno.ENOENT: Words("そこへ至るフォルダがありません。", "A directory on the way to it is not there."),
    errno.ENOTDIR: Words("途中にあるのがフォルダではなくファイルです。", "What is on the way to it is a file, not a directory."),
    errno.EISDIR: Words("同じ名前のフォルダがあります。", "A directory of that name is there."),
    errno.EEXIST: Words("同じ名前のものがあります。", "Something of that name is there."),
    errno.ENOTEMPTY: Words("同じ名前のものがあります。", "Something of that name is there."),
    errno.ENAMETOOLONG: Words("名前が長すぎます。", "Its name is too long."),
    errno.ELOOP: Words("シンボリックリンクが循環しています。", "Symbolic links on the way to it go in a circle."),
}


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yields a temporary directory; when the block ends well it becomes `path`, replacing an earlier result.

    Raises ConfigError for what is no earlier result (`check`), SpaceError when there is no room, no permission or no such
    place; then, and at any exception, `path` is as it was. Where `path` is a symbolic link, what it points to is replaced.
    """
    with told(path):
        check(path)
        path = Path(os.path.realpath(path)) if path.is_symlink() else path
        recover(path)
    temporary = _temporary(path)
    try:
        with told(path):
            temporary.mkdir(parents=True)
        with told(path, temporary):
            yield temporary
        with told(path):
            _seal(temporary)
            check(path)
            _replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check(path: Path) -> None:
    """Raises ConfigError when `path` is a file, lies below one, or is a directory with files in it that are not ours.

    Ours is what has a manifest: a result replaces an earlier result, never what a person keeps there.
    """
    asked = Words(f"{path} に書き込もうとしました。", f"Writing {path}.")
    todo = Words("別の出力先を指定してください。", "Name another place.")
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise ConfigError(asked, found=Words(f"{place} はファイルです。", f"{place} is a file."), todo=todo)
    if path.is_dir() and any(path.iterdir()) and not (path / MANIFEST).is_file():
        found = Words("別のファイルが入っていて、置き換えると失われます。", "It holds other files, which would be lost.")
        raise ConfigError(asked, found=found, todo=todo)


def writable(path: Path) -> None:
    """Raises SpaceError where `whole(path)` would: no permission, or no such place. Asked before long work; it leaves nothing."""
    with told(path):
        path = Path(os.path.realpath(path)) if path.is_symlink() else path
        nearest = next(place for place in path.absolute().parents if _there(place))
        probe = nearest / _temporary(path).name
        probe.mkdir()
        probe.rmdir()


def verify(path: Path) -> None:
    """Raises FormatError naming the first file that is missing, altered, or not in the manifest."""
    try:
        listed = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["files"]
        wanted = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _broken(path, Words(f"{MANIFEST} がないか、読めません。", f"{MANIFEST} is missing or cannot be read.")) from error
    there = {file.relative_to(path).as_posix(): file for file in _files(path)} if path.is_dir() else {}
    for name in sorted(set(wanted) | set(there)):
        if name not in there:
            raise _broken(path, Words(f"{name} がありません。", f"{name} is missing."))
        if name not in wanted:
            raise _broken(path, Words(f"目録にない {name} があります。", f"{name} is there but not in the manifest."))
        size = there[name].stat().st_size
        if size != wanted[name][0]:
            raise _broken(
                path,
                Words(
                    f"{name} は {wanted[name][0]} バイトのはずが {size} バイトです。", f"{name} has {size} bytes, not {wanted[name][0]}."
                ),
            )
        try:
            same = _hash(there[name]) == wanted[name][1]
        except OSError as error:
            raise _broken(path, Words(f"{name} を読めません。", f"{name} cannot be read.")) from error
        if not same:
            raise _broken(path, Words(f"{name} の内容が変わっています。", f"The contents of {name} have changed."))


def recover(path: Path) -> None:
    """Clears away what a killed process left: its temporary directory or file; and puts an old directory back into an empty place."""
    if not path.parent.is_dir():
        return
    old = path.with_name(f".{path.name}.old")
    if old.is_dir():
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(path)
    pattern = re.compile(re.escape(f".{path.name}.") + r"(\d+)-[0-9a-f]{8}\.tmp")
    for entry in path.parent.iterdir():
        match = pattern.fullmatch(entry.name)
        if match and not _alive(int(match[1])):
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """No other process works in the directory `path` meanwhile. Raises ConfigError where one does; the system lifts the lock
    of a process that dies. Where it knows no such locks (Windows), nothing is kept out."""
    if fcntl is None:
        yield
        return
    with told(path), (path / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                Words(f"{path} で作業を始めようとしました。", f"Starting to work in {path}."),
                found=Words("別のプロセスがそこで作業しています。", "Another process is at work there."),
                todo=Words("それが終わるのを待つか、別の出力先を指定してください。", "Wait for it to end, or name another place."),
            ) from error
        yield


def write_bytes(path: Path, data: bytes) -> None:
    """One file, whole or not at all. Raises SpaceError."""
    temporary = _temporary(path)
    try:
        with told(path):
            recover(path)
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """`write_bytes` in UTF-8."""
    write_bytes(path, text.encode())


def _there(path: Path) -> bool:
    """A link counts, wherever it leads; what is in the way of looking is an OSError."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _temporary(path: Path) -> Path:
    """A name beside it that `recover` knows."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _seal(directory: Path) -> None:
    """The manifest, and everything on its way to the disk."""
    listed = {file.relative_to(directory).as_posix(): {"bytes": file.stat().st_size, "sha256": _hash(file)} for file in _files(directory)}
    (directory / MANIFEST).write_text(json.dumps({"files": listed}, ensure_ascii=False, indent=1), encoding="utf-8")
    for file in directory.rglob("*"):
        _sync(file)
    _sync(directory)


def _replace(temporary: Path, path: Path) -> None:
    """The moment it happens: one rename, or an exchange where there was something before."""
    if not path.exists():
        temporary.rename(path)
    elif not _exchange(temporary, path):
        old = path.with_name(f".{path.name}.old")
        path.rename(old)  # a crash between these two renames is what `recover` mends
        temporary.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    _sync(path.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the system cannot."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return False
    return int(function(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)) == 0


def _files(directory: Path) -> list[Path]:
    return sorted(file for file in directory.rglob("*") if file.is_file() and file != directory / MANIFEST)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def told(path: Path, below: Path | None = None) -> Iterator[None]:
    """Writing `path`: no room, no permission, no such place become a SpaceError; every other error as it is.

    With `below`, only what was met while writing there: the block may read, too, and that is another story.
    """
    try:
        yield
    except OSError as error:
        elsewhere = below is not None and not Path(str(error.filename)).is_relative_to(below)
        if error.errno in NO_ROOM:
            found = Words("空き容量が足りません。", "There is no space left.")
            todo = Words("空きを作るか、別の出力先を指定してください。", "Free some space or name another place.")
        elif elsewhere or error.errno not in NO_RIGHT | set(NO_PLACE):
            raise
        elif error.errno in NO_RIGHT:
            found = Words("書き込む権限がありません。", "There is no permission to write.")
            todo = Words("権限を確かめるか、別の出力先を指定してください。", "Check the permissions or name another place.")
        else:
            found = NO_PLACE[error.errno]
            todo = Words("パスを確かめるか、別の出力先を指定してください。", "Check the path or name another place.")
        kept = Words(f"{todo.ja}これまでの分は残っています。", f"{todo.en} What was there is still there.")
        raise SpaceError(Words(f"{path} に書き込もうとしました。", f"Writing {path}."), found=found, todo=kept) from error


def _broken(path: Path, found: Words) -> FormatError:
    return FormatError(
        Words(f"{path.name} の中身に問題があります。", f"Verifying {path.name}."),
        found=found,
        todo=Words("壊れているので、作り直すか、入手し直してください。", "It is damaged: make it again or fetch it again."),
    )
