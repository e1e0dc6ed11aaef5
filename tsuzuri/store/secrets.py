"""The secrets of an installation: files of 32 random bytes, mode 0600, outside the data directory.

In: a directory. Out: `pepper` (under which keys, sessions and audit records are hashed) and `master` keys (which wrap the data keys).
Whoever takes the database, or a copy of it, has none of them. A secret that the database was made with and that is gone is
told, never made anew: with a new one no key would be found and nothing sealed could be read. It does not know the database.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from tsuzuri.directory import told
from tsuzuri.errors import FormatError, MissingError, Words

BYTES = 32
PEPPER = "pepper"
MASTER = re.compile(r"master-(\d{4})")


@dataclass(frozen=True, slots=True)
class Secrets:
    """`directory` is made with mode 0700 when the first secret is."""

    directory: Path
    _read: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)

    def pepper(self) -> bytes:
        return self.read(PEPPER)

    def derived(self, purpose: str) -> bytes:
        """A key of its own for each purpose, from the pepper: a hash made for one is never one of another."""
        return hmac.digest(self.pepper(), purpose.encode(), "sha256")

    def masters(self) -> list[str]:
        """Names of the master keys that are there, oldest first; new data keys are wrapped with the last."""
        if not self.directory.is_dir():
            return []
        return sorted(path.name for path in self.directory.iterdir() if MASTER.fullmatch(path.name))

    def new_master(self) -> str:
        """Makes the next master key; the older ones stay until nothing is wrapped with them."""
        name = f"master-{max((int(name[-4:]) for name in self.masters()), default=0) + 1:04d}"
        self.create(name)
        return name

    def forget(self, name: str) -> None:
        """Takes one away, for good."""
        self._read.pop(name, None)
        with told(self.directory):
            (self.directory / name).unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        return (self.directory / name).is_file()

    def fingerprint(self, name: str) -> str:
        """Tells whether it is the same one, and nothing else about it."""
        return hashlib.sha256(b"tsuzuri " + name.encode() + self.read(name)).hexdigest()

    def create(self, name: str) -> None:
        """New random bytes under a name that is free. Another process that does the same at this moment loses to one of the two."""
        with told(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = self.directory / f".{name}.{secrets.token_hex(4)}"
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "w", encoding="ascii") as file:
                    file.write(secrets.token_hex(BYTES) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                try:
                    os.link(temporary, self.directory / name)  # whole, and never over another
                except FileExistsError:
                    return
            finally:
                temporary.unlink()
            _sync(self.directory)

    def read(self, name: str) -> bytes:
        """Raises MissingError and FormatError; a file that others may read is refused, too."""
        if name in self._read:
            return self._read[name]
        path = self.directory / name
        asked = Words(f"秘密鍵のファイル {path} を読もうとしました。", f"Reading the secret {path}.")
        try:
            text, mode = path.read_text(encoding="ascii"), path.stat().st_mode
        except FileNotFoundError as error:
            raise MissingError(
                asked,
                found=Words("そのファイルがありません。", "It is not there."),
                todo=Words(
                    "控えから戻すか、TSUZURI_SECRETS_DIR でその場所を指定してください。作り直しても代わりにはなりません。",
                    "Put your copy back, or name its place with TSUZURI_SECRETS_DIR. A new one is no substitute.",
                ),
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise _unusable(asked, Words("読めません。", "It cannot be read.")) from error
        if os.name == "posix" and mode & 0o077:
            raise FormatError(
                asked,
                found=Words("本人以外にも読める権限になっています。", "Others than its owner may read it."),
                todo=Words(f"chmod 600 {path} を実行してください。", f"Run chmod 600 {path}."),
            )
        if not re.fullmatch(rf"[0-9a-f]{{{2 * BYTES}}}\n?", text):
            raise _unusable(asked, Words("内容が壊れています。", "Its content is damaged."))
        self._read[name] = bytes.fromhex(text.strip())
        return self._read[name]


def _unusable(asked: Words, found: Words) -> FormatError:
    return FormatError(asked, found=found, todo=Words("控えから戻してください。", "Put your copy back."))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
