"""A repository into a directory: partial files beside it, resumed and verified, then the whole at once.

In: a `Wire`, a repository, where to. Out: the directory, complete and of one commit, or what was there before.
What is under way lies in `.NAME.partial` beside it, each file named by its hash; the same call goes on with it.
It knows no model and prints nothing: a `Watch` is told.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tsuzuri import directory
from tsuzuri.errors import ConfigError, FormatError, SpaceError, Words
from tsuzuri.hub.listing import MAX_JSON_BYTES, Choice, File, Listing, Repository, choose, read
from tsuzuri.hub.wire import Again, Answer, Tries, Wire

RECORD = "pulled.json"  # in the directory: where it came from
STATE = "state.json"  # in `.NAME.partial`: which commit the files belong to
PROGRESS = 1 << 20  # bytes after which a connection that broke off was worth it
BLOCK = 1 << 20
AGAIN = Words("同じコマンドで、そのファイルだけを取り直せます。", "The same command fetches that file anew.")


class Watch:
    """Is told how it goes; this one tells nobody."""

    def begin(self, bytes: int) -> None:
        """So many in all; those that are there already are told by `advance`, too."""

    def file(self, file: File) -> None:
        """The next one."""

    def advance(self, bytes: int) -> None:
        """Bytes that are there; a negative count where they have to be sent again."""

    def settle(self) -> None:
        """All has come; it is hashed once more and on its way to the disk."""

    def notice(self, words: Words) -> None:
        """Something a person should know."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What would be fetched."""

    repository: Repository
    listing: Listing
    choice: Choice

    def record(self, address: str) -> dict[str, Any]:
        return {
            "repository": str(self.repository),
            "revision": self.repository.revision,
            "commit": self.listing.commit,
            "endpoint": address,
            "files": {file.name: {"bytes": file.bytes, file.algorithm: file.hash} for file in self.choice.taken},
            "skipped": dict(self.choice.skipped),
        }


@dataclass(frozen=True, slots=True)
class Pulled:
    out: Path
    received: int  # bytes that came over the network
    resumed: int  # bytes that were there already
    seconds: float
    unchanged: bool  # the directory was there, of this commit and intact


def look(wire: Wire, repository: Repository, gguf: Sequence[str] = (), watch: Watch | None = None) -> Offer:
    """What the repository holds at this revision, pinned to a commit, and what of it is taken. Writes nothing.

    Raises RemoteError, MissingError and FormatError.
    """
    asked = _asked(repository)
    path = f"/api/models/{repository}/revision/{quote(repository.revision, safe='')}?blobs=true"
    tries = Tries(wire.patience, asked, (watch or Watch()).notice)
    while True:
        try:
            with wire.get(path, asked) as answer:
                listing = read(_bounded(answer.chunks, asked), asked)
            break
        except Again as error:
            tries.again(error)
    if re.fullmatch("[0-9a-f]{40}", repository.revision) and listing.commit != repository.revision:
        found = Words(f"ハブは別のコミット {listing.commit} を示しました。", f"The hub shows another commit, {listing.commit}.")
        raise FormatError(asked, found=found, todo=Words("接続先を確かめてください。", "Check the address."))
    return Offer(repository, listing, choose(listing, gguf, asked))


def left(offer: Offer, out: Path) -> int:
    """Bytes yet to come, counting on what an earlier try and an earlier commit have left.

    Raises ConfigError where it may not be written; unlike `pull` it reads no file to the end.
    """
    directory.check(out)
    record = read_object(out / RECORD)
    there = _kept(_folder(_real(out)), offer)
    return sum(file.bytes - there.get(file.hash, 0) for file in offer.choice.distinct if not _has(record, file))


def pull(wire: Wire, offer: Offer, out: Path, watch: Watch | None = None) -> Pulled:
    """Fetches what is missing, verifies everything, and lets the directory appear or replaces the same repository's earlier one.

    Raises ConfigError where something else is, SpaceError before it starts when there is no room, RemoteError when the server
    cannot be reached or breaks off too often, FormatError for what is not what the listing says. What has come stays, for the next try.
    """
    begun, watch = time.monotonic(), watch or Watch()
    out = _real(out)
    earlier = _earlier(out, offer.repository)
    directory.writable(out)
    folder = _folder(out)
    with directory.told(folder):
        folder.mkdir(parents=True, exist_ok=True)
    unchanged = earlier.get("commit") == offer.listing.commit and earlier.get("files") == offer.record(wire.address)["files"]
    received = resumed = 0
    with directory.alone(folder):
        if not unchanged:
            _prepare(folder, offer, out, earlier, watch)
            _check_room(out, left(offer, out))
            watch.begin(sum(file.bytes for file in offer.choice.distinct))
            for file in offer.choice.distinct:
                watch.file(file)
                partial = Partial(folder, file, watch)
                resumed += partial.resume()
                _complete(partial, wire, offer, watch)
                received += partial.received
            watch.settle()
            with directory.whole(out) as temporary:
                _lay(folder, temporary, offer.choice.taken)
                text = json.dumps(offer.record(wire.address), ensure_ascii=False, indent=1)
                (temporary / RECORD).write_text(text, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
    return Pulled(out, received, resumed, time.monotonic() - begun, unchanged)


class Partial:
    """One file under way: what of it is on the disk, and the hash of that."""

    def __init__(self, folder: Path, file: File, watch: Watch) -> None:
        self.file, self.path = file, folder / file.hash
        self._watch = watch
        self.size = self.received = 0  # bytes: on the disk; of those and of dropped ones, what came over the network
        self.drop()

    def drop(self, *, remove: bool = False) -> None:
        """From the beginning."""
        if remove:
            self.path.unlink(missing_ok=True)
        self._watch.advance(-self.size)
        self.size = 0
        # git's own name for a small file, SHA-1 of its header and content; what LFS holds has a SHA-256
        small = self.file.algorithm == "git_sha1"
        self._hash = hashlib.sha1(b"blob %d\0" % self.file.bytes, usedforsecurity=False) if small else hashlib.sha256()

    def resume(self) -> int:
        """Reads what an earlier try left. Returns its bytes; what is wrong in it is removed, and the person told."""
        if not self.path.is_file():
            return 0
        fits = self.path.stat().st_size <= self.file.bytes
        with directory.told(self.path), self.path.open("rb") as file:
            while fits and (block := file.read(BLOCK)):
                self._count(block)
        if not fits or (self.size == self.file.bytes and not self.right):
            name = self.file.name
            self._watch.notice(Words(f"{name} は前回の分が壊れているので、取り直します。", f"What was left of {name} is damaged: anew."))
            self.drop(remove=True)
        return self.size

    def write(self, answer: Answer, asked: Words) -> None:
        """All of an answer, after what is there. Raises FormatError, without a trace left, when it is more than it should be."""
        with directory.told(self.path), self.path.open("ab" if self.size else "wb") as out:
            for chunk in answer.chunks:
                if self.size + len(chunk) > self.file.bytes:
                    self.drop(remove=True)
                    ja, en = "サーバーが、一覧にある大きさより多く送ってきました", "The server sends more than its list says"
                    raise FormatError(asked, found=Words(f"{ja}。", f"{en}."), todo=AGAIN)
                out.write(chunk)
                self._count(chunk)
                self.received += len(chunk)

    @property
    def right(self) -> bool:
        return self.size == self.file.bytes and self._hash.hexdigest() == self.file.hash

    def _count(self, block: bytes) -> None:
        self._hash.update(block)
        self.size += len(block)
        self._watch.advance(len(block))


def _complete(partial: Partial, wire: Wire, offer: Offer, watch: Watch) -> None:
    """Fetches the rest of one file and verifies it."""
    file = partial.file
    asked = Words(f"{offer.repository} の {file.name} を取り寄せようとしました。", f"Fetching {file.name} of {offer.repository}.")
    tries = Tries(wire.patience, asked, watch.notice)
    while partial.size < file.bytes:
        before = partial.size
        try:
            _receive(partial, wire, offer, asked, watch)
        except Again as error:
            tries.again(error, moved=partial.size - before >= PROGRESS)
    if not partial.right:
        partial.drop(remove=True)
        raise FormatError(
            asked,
            found=Words(
                f"届いたもののハッシュが {file.hash[:12]}… になりません。消しました。", f"Its hash is not {file.hash[:12]}…; removed."
            ),
            todo=AGAIN,
        )
    with directory.told(partial.path):
        partial.path.touch()  # an empty file was never written


def _receive(partial: Partial, wire: Wire, offer: Offer, asked: Words, watch: Watch) -> None:
    """One request for the rest. Raises Again when not all of it comes."""
    path = f"/{offer.repository}/resolve/{offer.listing.commit}/{quote(partial.file.name)}"
    with wire.get(path, asked, start=partial.size) as answer:
        if answer.status == 416:
            partial.drop(remove=True)
            raise Again(Words("続きからは送れないそうです。", "It cannot go on from there."))
        _agree(answer, partial, offer.listing.commit, asked)
        if answer.status == 200 and partial.size:
            watch.notice(Words("サーバーが続きから送れないので、最初から受け取ります。", "The server cannot go on from there: anew."))
            partial.drop()
        partial.write(answer, asked)
    if partial.size < partial.file.bytes:
        raise Again(Words("途中で終わりました。", "It ended early."))


def _agree(answer: Answer, partial: Partial, commit: str, asked: Words) -> None:
    """Raises FormatError when what the server says of this answer is not what it said in its list."""
    file = partial.file
    length = answer.headers.get("content-length")
    rest = file.bytes - partial.size if answer.status == 206 else file.bytes
    span = re.fullmatch(r"bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19}|\*)", answer.headers.get("content-range", ""))
    what = next(filter(None, (_differs(name, value, file, commit) for name, value in answer.told)), None)
    if answer.status == 206 and (span is None or int(span[1]) != partial.size or span[2] not in ("*", str(file.bytes))):
        what = Words("頼んだところからではない", "it does not begin where it was asked to")
    elif length is not None and (int(length) > rest or (answer.status == 200 and int(length) < rest)):
        what = Words("長さが違う", "the length is another")
    if what:
        found = Words(f"届くものが一覧と合いません（{what.ja}）。", f"What comes is not what the list says: {what.en}.")
        raise FormatError(asked, found=found, todo=Words("時間をおいて同じコマンドを実行してください。", "Run the same command later."))


def _differs(name: str, value: str, file: File, commit: str) -> Words | None:
    """How one of the hub's headers contradicts its list; an ETag that is no hash of this kind says nothing."""
    if name == "x-repo-commit" and value != commit:
        return Words("別のコミットのもの", "it is of another commit")
    etag = value.removeprefix("W/").strip('"')
    if name == "x-linked-etag" and re.fullmatch(f"[0-9a-f]{{{len(file.hash)}}}", etag) and etag != file.hash:
        return Words("ハッシュが違う", "the hash is another")
    if name == "x-linked-size" and value != str(file.bytes):
        return Words("大きさが違う", "the size is another")
    return None


def _earlier(out: Path, repository: Repository) -> dict[str, Any]:
    """The record of an earlier pull of the same repository, verified; empty where nothing is.

    Raises ConfigError for anything else: another result, or a directory that was changed since, is a person's own affair.
    """
    with directory.told(out):
        directory.check(out)
        directory.recover(out)
    if not out.is_dir() or not any(out.iterdir()):
        return {}
    record = read_object(out / RECORD)
    found = Words("別のものが入っています。", "It holds something else.")
    if record.get("repository") == str(repository):
        try:
            directory.verify(out)
            return record
        except FormatError as error:
            found = error.found
    raise ConfigError(
        Words(f"{out} に {repository} を取り寄せようとしました。", f"Pulling {repository} into {out}."),
        found=found,
        todo=Words(
            "そのままにしてあります。消すか、--out で別の場所を指定してください。", "It was left alone: remove it, or name another --out."
        ),
    )


def _kept(folder: Path, offer: Offer) -> dict[str, int]:
    """Hash -> bytes of the files that count: half ones of this commit, whole ones of any."""
    same = read_object(folder / STATE).get("commit") == offer.listing.commit
    found = {file.hash: (folder / file.hash).stat().st_size for file in offer.choice.distinct if (folder / file.hash).is_file()}
    return {file.hash: found[file.hash] for file in offer.choice.distinct if _counts(found.get(file.hash), file, same)}


def _counts(size: int | None, file: File, same: bool) -> bool:
    return size is not None and (size == file.bytes or (same and size < file.bytes))


def _has(record: dict[str, Any], file: File) -> bool:
    """Whether a directory with this record has the same file under the same name."""
    files = record.get("files")
    entry = files.get(file.name) if isinstance(files, dict) else None
    return isinstance(entry, dict) and entry.get(file.algorithm) == file.hash


def _prepare(folder: Path, offer: Offer, out: Path, earlier: dict[str, Any], watch: Watch) -> None:
    """Only files that count stay in the folder, and what the directory before has of this commit is among them."""
    kept = _kept(folder, offer)
    with directory.told(folder):
        others = [path for path in folder.iterdir() if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", path.name) and path.name not in kept]
        if others:
            count = sum(path.stat().st_size for path in others)
            ja, en = (
                f"前回の途中の分は、今回のコミットのものではないので消します（{count:,} バイト）。",
                f"What is of another commit goes ({count:,} bytes).",
            )
            watch.notice(Words(ja, en))
        for path in others:
            path.unlink()
        directory.write_text(folder / STATE, json.dumps({"repository": str(offer.repository), "commit": offer.listing.commit}))
    for file in offer.choice.distinct:
        if file.hash not in kept and _has(earlier, file):
            with suppress(OSError):  # where there are no hard links it comes over the network
                os.link(out / file.name, folder / file.hash)


def _lay(folder: Path, target: Path, files: Iterable[File]) -> None:
    """The files under their names: hard links, so that a kill here loses nothing; moved where there are no links."""
    moved: dict[str, Path] = {}
    for file in files:
        place = target / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(folder / file.hash, place)
        except OSError:
            if file.hash in moved:
                shutil.copyfile(moved[file.hash], place)
            else:
                (folder / file.hash).rename(place)
        moved.setdefault(file.hash, place)


def _check_room(out: Path, needed: int) -> None:
    free = shutil.disk_usage(_folder(out)).free
    if needed > free:
        raise SpaceError(
            Words(f"{out} に取り寄せようとしました。", f"Pulling into {out}."),
            found=Words(
                f"あと {needed:,} バイト要りますが、空きは {free:,} バイトです。", f"It takes {needed:,} bytes more; {free:,} are free."
            ),
            todo=Words("空きを作るか、--out で別の場所を指定してください。", "Free some space, or name another place with --out."),
        )


def _folder(out: Path) -> Path:
    return out.with_name(f".{out.name}.partial")


def _real(out: Path) -> Path:
    """Partial files must lie on the same disk as the directory: where a symbolic link leads, and under a name, not '.' or '..'."""
    return Path(os.path.realpath(out)) if out.is_symlink() or out.name in ("", "..") else out


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of moderate size; empty where it is missing or damaged."""
    with suppress(OSError, ValueError, RecursionError):
        if path.stat().st_size <= MAX_JSON_BYTES and isinstance(value := json.loads(path.read_bytes()), dict):
            return value
    return {}


def _bounded(chunks: Iterable[bytes], asked: Words) -> bytes:
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > MAX_JSON_BYTES:
            found = Words(f"ファイルの一覧が {MAX_JSON_BYTES >> 20} MiB を超えています。", f"The list is over {MAX_JSON_BYTES >> 20} MiB.")
            raise FormatError(asked, found=found, todo=Words("接続先を確かめてください。", "Check the address."))
    return bytes(data)


def _asked(repository: Repository) -> Words:
    at = "" if repository.revision == "main" else f"@{repository.revision}"
    return Words(f"{repository}{at} を取り寄せようとしました。", f"Pulling {repository}{at}.")
