"""What a repository holds and what of it is taken: an untrusted server's words, checked before anything is fetched.

In: `owner/name@revision` as a person writes it, and the hub's JSON. Out: a `Listing`, one commit with its files, their sizes
and hashes; `choose` says which files are taken and why the others are not. It touches neither disk nor network.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeGuard

from tsuzuri.errors import ConfigError, FormatError, MissingError, Words
from tsuzuri.folder import suggestion

MAX_JSON_BYTES = 16 << 20  # 10,000 files take about 3 MB
MAX_FILES = 10_000
MAX_FILE_BYTES = 1 << 50
MAX_NAME_BYTES, MAX_STEP_BYTES = 1024, 255  # of a path, of one step of it: less than any file system in use allows
OWN = ("files.json", "pulled.json")  # what we write ourselves into the directory
WORD = r"\w(?:[\w.-]{0,94}\w)?"
WRITTEN = re.compile(rf"({WORD})/({WORD})(?:@({WORD}(?:/{WORD}){{0,9}}))?", re.ASCII)
TEXTS = ("merges.txt", "vocab.txt", "README.md")
SUFFIXES = {
    "pickle": (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz"),
    "weights": (".h5", ".keras", ".msgpack", ".onnx", ".ot", ".pb", ".tflite", ".mlmodel", ".nemo"),
    "code": (".py", ".pyc", ".ipynb", ".sh", ".js", ".so", ".dll", ".dylib", ".exe", ".jar"),
    "safetensors": (".safetensors",),
    "gguf": (".gguf",),
    "text": (".json", ".jinja"),
}
KINDS = {  # why a file is not taken
    "pickle": Words("pickle など、読むだけでコードが動きうる形式", "pickle and the like: reading them can run code"),
    "weights": Words("safetensors でない重み", "weights that are not safetensors"),
    "code": Words("プログラム", "code"),
    "safetensors": Words("safetensors（GGUF を指定したため）", "safetensors, because GGUF was asked for"),
    "gguf": Words("GGUF（--gguf で指定すれば取り込みます）", "GGUF; --gguf takes it"),
    "own": Words("tsuzuri が書くファイルと同じ名前", "named like a file that tsuzuri writes"),
    "other": Words("モデルを使うのに要らないもの", "not needed to use the model"),
}


@dataclass(frozen=True, slots=True)
class Repository:
    owner: str
    name: str
    revision: str = "main"  # branch, tag or commit

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def folder(self) -> str:
        """A name no other repository has: '--' stands in no name."""
        return f"{self.owner}--{self.name}"


@dataclass(frozen=True, slots=True)
class File:
    name: str  # with '/' between folders, checked
    bytes: int
    hash: str  # 64 digits: SHA-256 of the content (LFS). 40: SHA-1 of git's blob, which is b"blob <bytes>\0" + content

    @property
    def algorithm(self) -> str:
        return "sha256" if len(self.hash) == 64 else "git_sha1"


@dataclass(frozen=True, slots=True)
class Listing:
    commit: str  # 40 digits
    files: tuple[File, ...]
    model_type: str | None  # as the hub says it; a hint, config.json decides


@dataclass(frozen=True, slots=True)
class Choice:
    taken: tuple[File, ...]  # small ones first, so that what is wrong is found out early
    skipped: tuple[tuple[str, str], ...]  # (name, one of KINDS)

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.taken)

    @property
    def distinct(self) -> tuple[File, ...]:
        """One file of each content."""
        return tuple({file.hash: file for file in self.taken}.values())


def repository(written: str) -> Repository:
    """`owner/name` or `owner/name@revision`. Raises ConfigError for anything else."""
    match = WRITTEN.fullmatch(written)
    if match is None or ".." in written or "--" in f"{match[1]}/{match[2]}" or written.partition("@")[0].endswith((".git", ".ipynb")):
        raise ConfigError(
            Words(f"「{written[:200]}」を取り寄せようとしました。", f"Pulling '{written[:200]}'."),
            found=Words("リポジトリの名前の形ではありません。", "It is not the name of a repository."),
            todo=Words(
                "「所有者/名前」か「所有者/名前@版」の形で指定してください。例：llm-jp/llm-jp-3-440m",
                "Write owner/name or owner/name@revision, for example llm-jp/llm-jp-3-440m.",
            ),
        )
    return Repository(match[1], match[2], match[3] or "main")


def read(data: bytes, asked: Words) -> Listing:
    """The answer of `/api/models/…/revision/…?blobs=true`. Raises FormatError for what is no such answer or not to be trusted."""
    try:
        answer = json.loads(data)
        commit, siblings = answer["sha"], answer["siblings"]
        if not _digits(commit, 40) or not isinstance(siblings, list):
            raise ValueError("fields")
        config = answer.get("config")
        kind = config.get("model_type") if isinstance(config, dict) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        todo = Words("接続先（--endpoint）を確かめてください。", "Check the address (--endpoint).")
        raise FormatError(asked, found=Words("ハブの答えとして読めません。", "The answer is not that of a hub."), todo=todo) from error
    if len(siblings) > MAX_FILES:
        raise _untrusted(asked, f"ファイルが {len(siblings):,} 個もあります", f"there are {len(siblings):,} files")
    return Listing(commit, tuple(_file(entry, asked) for entry in siblings), kind if isinstance(kind, str) else None)


def choose(listing: Listing, gguf: Sequence[str], asked: Words) -> Choice:
    """Weights in safetensors, or the GGUF files named, with what is needed to use them.

    Raises MissingError when the repository has no such weights, FormatError when its names cannot stand beside each other.
    """
    kinds = {file.name: _kind(file.name) for file in listing.files}
    for name in gguf:
        if kinds.get(name) != "gguf":
            known = [name for name, kind in kinds.items() if kind == "gguf"]
            found = Words(f"「{name}」という GGUF はありません。", f"There is no GGUF of the name {name}.")
            raise MissingError(asked, found=found, todo=suggestion(name, known) if known else NO_GGUF)
    weights = [file for file in listing.files if (file.name in gguf if gguf else kinds[file.name] == "safetensors")]
    if not weights:
        raise _no_weights(kinds, asked)
    taken = [*weights, *(file for file in listing.files if kinds[file.name] == "text")]
    _check_together(taken, asked)
    names = {file.name for file in taken}
    skipped = tuple((file.name, kinds[file.name]) for file in listing.files if file.name not in names)
    return Choice(tuple(sorted(taken, key=lambda file: file.bytes)), skipped)


NO_GGUF = Words("--gguf を付けずに実行してください。", "Leave out --gguf.")


def _kind(name: str) -> str:
    """'text', or one of KINDS."""
    last = name.rpartition("/")[2]
    suffix = PurePosixPath(last.lower()).suffix
    found = next((kind for kind, suffixes in SUFFIXES.items() if suffix in suffixes), None)
    if name in OWN:
        return "own"
    return found or ("text" if last in TEXTS or last.startswith("LICENSE") else "other")


def _file(entry: Any, asked: Words) -> File:
    """One of the siblings. A name is a relative path that stays below its folder and shows what it is."""
    name = entry.get("rfilename") if isinstance(entry, dict) else None
    steps = name.split("/") if isinstance(name, str) else []
    if (
        not isinstance(name, str)
        or not all(letter.isprintable() or letter == "　" for letter in name)  # no control, direction or half character
        or "\\" in name
        or any(step in ("", ".", "..") or len(step.encode()) > MAX_STEP_BYTES for step in steps)
        or len(name.encode()) > MAX_NAME_BYTES
        or re.match("[A-Za-z]:", name)  # a drive of Windows
    ):
        raise _untrusted(asked, f"使えないファイル名があります：{ascii(name)[:120]}", f"a name cannot be used: {ascii(name)[:120]}")
    lfs = entry.get("lfs")
    size, digest = (lfs.get("size"), lfs.get("sha256")) if isinstance(lfs, dict) else (entry.get("size"), entry.get("blobId"))
    if type(size) is not int or not 0 <= size < MAX_FILE_BYTES or not _digits(digest, 64 if lfs else 40):
        raise _untrusted(asked, f"{name} の大きさかハッシュが分かりません", f"size or hash of {name} is not known")
    return File(name, size, digest)


def _digits(value: object, count: int) -> TypeGuard[str]:
    return isinstance(value, str) and re.fullmatch(rf"[0-9a-f]{{{count}}}", value) is not None


def _check_together(files: Sequence[File], asked: Words) -> None:
    """No two files of one name, on any file system; none that is also a folder; one hash has one size."""
    names: dict[str, str] = {}
    for file in files:
        key = unicodedata.normalize("NFC", file.name).casefold()
        if key in names:
            raise _untrusted(asked, f"{names[key]} と {file.name} を区別できません", f"{names[key]} and {file.name} are one name")
        names[key] = file.name
    for key in names:
        for parent in PurePosixPath(key).parents:
            if str(parent) in names:
                raise _untrusted(asked, f"{names[str(parent)]} はフォルダでもあります", f"{names[str(parent)]} is a folder, too")
    sizes = {file.hash: file.bytes for file in files}
    for file in files:
        if sizes[file.hash] != file.bytes:
            raise _untrusted(asked, f"{file.name} の大きさが一つに決まりません", f"{file.name} has two sizes")


def _no_weights(kinds: dict[str, str], asked: Words) -> MissingError:
    """Which formats there are instead."""
    there: dict[str, list[str]] = {}
    for name, kind in kinds.items():
        if kind in ("pickle", "weights", "gguf"):
            there.setdefault(kind, []).append(name)
    ja = "、".join(f"{KINDS[kind].ja}：{'、'.join(names[:3])}{' ほか' * (len(names) > 3)}" for kind, names in there.items())
    en = "; ".join(f"{KINDS[kind].en}: {', '.join(names[:3])}{' …' * (len(names) > 3)}" for kind, names in there.items())
    found = Words(f"safetensors がありません。あるのは、{ja}。", f"There are no safetensors. There is {en}.") if there else NO_WEIGHTS
    gguf = there.get("gguf")
    return MissingError(
        asked,
        found=found,
        todo=Words(f"--gguf {gguf[0]} のように指定してください。", f"Name one, as in --gguf {gguf[0]}.")
        if gguf
        else Words("safetensors のあるリポジトリか版を指定してください。", "Name a repository or a revision with safetensors."),
    )


NO_WEIGHTS = Words("safetensors も、ほかの形式の重みもありません。", "There are neither safetensors nor other weights.")


def _untrusted(asked: Words, ja: str, en: str) -> FormatError:
    return FormatError(
        asked,
        found=Words(f"ファイルの一覧が信用できません（{ja}）。", f"The list of files is not to be trusted ({en})."),
        todo=Words("接続先か、リポジトリの持ち主に問い合わせてください。", "Ask whoever runs the hub or owns the repository."),
    )
