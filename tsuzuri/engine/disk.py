"""Pages that survive a restart: what a page holds, in a file under the page's key.

In: a directory, a fingerprint of everything the contents depend on, and how many bytes there may be. Out: `find` and `keep`.
A file is written whole or not at all, is held against its digest when it is read, and the longest unused go first. What a key is,
and so that no tenant finds another's pages, is the business of `pages.py`. It knows no request.

The keys and values of a text give the text away to whoever has the model: the directory is as confidential as the texts.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from tsuzuri.directory import told, write_bytes
from tsuzuri.engine.pages import Key
from tsuzuri.engine.running import Contents
from tsuzuri.errors import FormatError, MissingError
from tsuzuri.model import safe

DIGEST = "digest"
MOST = 1 << 30  # bytes


class Disk:
    def __init__(self, directory: Path, fingerprint: str, most: int = MOST) -> None:
        """Raises SpaceError or ConfigError where the directory cannot be made."""
        self._place, self._most = directory / fingerprint, most
        with told(directory):
            self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
            there = sorted(((file.stat().st_mtime_ns, file) for file in self._place.glob("*.safetensors")), key=lambda pair: pair[0])
            self._sizes = OrderedDict((file.stem, file.stat().st_size) for _, file in there)  # the longest unused first

    def __contains__(self, key: Key) -> bool:
        return key.hex() in self._sizes

    def find(self, key: Key) -> Contents | None:
        """None where it is not there, or no longer what was written."""
        name = key.hex()
        if name not in self._sizes:
            return None
        try:
            found = safe.read(self._path(name))
        except (FormatError, MissingError):
            found = {}
        digest = found.pop(DIGEST, None)
        if digest is None or not torch.equal(digest, _digest(found)):
            self._forget(name)
            return None
        self._sizes.move_to_end(name)
        self._path(name).touch()
        return found

    def keep(self, key: Key, contents: Contents) -> None:
        """Raises SpaceError where there is no room, ConfigError where the directory is gone."""
        if key in self:
            return
        path = self._path(key.hex())
        data = safetensors.torch.save({**{name: x.contiguous().cpu() for name, x in contents.items()}, DIGEST: _digest(contents)})
        if len(data) > self._most:
            return
        while sum(self._sizes.values()) + len(data) > self._most:
            self._forget(next(iter(self._sizes)))
        with told(path):
            write_bytes(path, data)
            path.chmod(0o600)
        self._sizes[key.hex()] = len(data)

    def _path(self, name: str) -> Path:
        return self._place / f"{name}.safetensors"

    def _forget(self, name: str) -> None:
        del self._sizes[name]
        with told(self._place):
            self._path(name).unlink(missing_ok=True)


def fingerprint(weights: Iterable[Tensor], *notes: object) -> str:
    """Of everything that keys and values are computed from: the weights, and what else is noted, such as the kernels' name."""
    found = hashlib.blake2b(repr(notes).encode(), digest_size=16, person=b"tsuzuri.disk")
    for weight in weights:
        found.update(f"{weight.dtype} {tuple(weight.shape)}".encode())
        found.update(_bytes(weight))
    return found.hexdigest()


def _digest(contents: Contents) -> Tensor:
    found = hashlib.blake2b(digest_size=16)
    for name in sorted(contents):
        x = contents[name]
        found.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
        found.update(_bytes(x))
    return torch.frombuffer(bytearray(found.digest()), dtype=torch.uint8)


def _bytes(x: Tensor) -> bytes:
    return x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
