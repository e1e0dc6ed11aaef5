"""Documents from files: .txt and .jsonl, also packed as .zst or .gz, and .parquet, read as a stream.

In: paths. Out: `Document`s in the order of the files, every one of them. Encodings of .txt are found by strict trial:
what cannot be told for certain is refused, never guessed. It does not clean, filter or normalise: that is `clean.py`.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import zstandard

from tsuzuri.errors import InputError, MissingError, Words

KINDS = (".txt", ".jsonl", ".parquet")
PACKED = (".zst", ".gz")  # not of .parquet, which packs itself
MAX_LINE = 1 << 26  # bytes of one JSON line, unpacked: 64 MiB is twenty long novels
MAX_TEXT = 1 << 28  # bytes of one .txt, unpacked: it is one document and held in memory
ROWS = 16  # of Parquet at a time: a few bytes of it may stand for the same long text in every row
BITE = 2048  # packed bytes at a time: zstd can make at most 32,768 of one (four bytes for a block of 128 KiB), so 64 MiB
MAX_WINDOW = 1 << 27  # bytes; what `zstd --long` uses; a larger one is a bomb

FIELDS = ("text", "title", "source", "licence", "license", "author", "credit")
JAPANESE = re.compile(r"[ぁ-んァ-ヶー々〆一-龥、。「」『』（）・！？　０-９Ａ-Ｚａ-ｚ…―〜～]")
KANA = re.compile(r"[ぁ-んァ-ヶ]")
FOREIGN = re.compile(r"[^\x00-\x7f]")
CONTROL = re.compile(r"[\x00-\x08\x0e-\x19\x1b-\x1f\x7f]")  # \x1a ends files of old systems


Detected: TypeAlias = Callable[[Path, str], None]  # file, encoding
_LEGACY = {"cp932": "Shift_JIS (CP932)", "euc_jp": "EUC-JP", "euc_jis_2004": "EUC-JIS-2004"}


@dataclass(frozen=True, slots=True)
class Document:
    """One text and where it is from. An empty string: the file did not say."""

    text: str
    title: str = ""
    source: str = ""
    licence: str = ""
    credit: str = ""  # whom to name, as the licence asks


class Decoded(NamedTuple):
    text: str
    encoding: str


def origin(source: str) -> str:
    """The collection a document is from: github:owner/name with what stands before it, what stands before the first colon, or *.txt for
    plain files."""
    if source.partition(":")[0].endswith("github"):
        return ":".join(source.split(":")[:2])
    plain = source.removesuffix(".zst").removesuffix(".gz").lower().endswith(".txt")
    return "*.txt" if plain and ":" not in source else source.split(":")[0]


def files(paths: Sequence[Path]) -> list[Path]:
    """The files themselves, and the supported files inside directories, sorted; each once.

    Raises MissingError (no such path) and InputError (not a supported file, or none in a directory).
    """
    found: dict[Path, Path] = {}
    for path in paths:
        with _reported(path):
            inside = _inside(path) if path.is_dir() else [_supported(path)]
        found.update({file.resolve(): file for file in inside if file.resolve() not in found})
    if not found:
        raise InputError(
            Words("文章を読もうとしました。", "Reading text."),
            found=Words("入力が一つも指定されていません。", "No input was given."),
            todo=Words("ファイルかフォルダを指定してください。", "Name files or directories."),
        )
    return list(found.values())


def read(paths: Sequence[Path], detected: Detected | None = None) -> Iterator[Document]:
    """Every document of every file. `detected` hears the encoding of each .txt.

    Raises what `files` raises, and InputError naming file and line.
    """
    for path in files(paths):
        with _reported(path):
            _check_filled(path)
            if kind(path) == ".txt":
                yield _read_txt(path, detected)
            else:
                yield from _READERS[kind(path) or ""](path)


def objects(path: Path, longest: int, form: Words) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of JSON lines in UTF-8, packed or not; empty lines are passed over.

    No more than `longest` bytes of a line are ever held; `form` tells the person how a line should look. Raises InputError
    naming file and line, and where the end of a packed file is missing.
    """
    with _reported(path):
        _check_filled(path)
        with _open(path) as stream:
            number = 0
            while line := stream.readline(longest + 1):
                number += 1
                if len(line) > longest:
                    size = longest >> 20
                    raise _bad(
                        path, Words(f"{number} 行目が {size} MiB を超えています。", f"Line {number} is longer than {size} MiB."), form
                    )
                if line.strip():
                    yield number, _json_object(line, number, path, form)


def kind(path: Path) -> str | None:
    """'.txt' or '.jsonl', whatever it is packed in, or '.parquet'; None for anything else."""
    packed = path.suffix.lower() in PACKED
    found = (path.with_suffix("") if packed else path).suffix.lower()
    return found if found in KINDS and not (packed and found == ".parquet") else None


def decode(data: bytes, path: Path) -> Decoded:
    """The text of a .txt in UTF-8, UTF-16 with a mark, Shift_JIS/CP932, EUC-JP or ISO-2022-JP, and which it was. Raises InputError."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text, encoding = _try(data, "utf-16"), "UTF-16"
    elif b"\x00" in data:
        raise _bad(path, Words("文章ではなく、バイナリです。", "It is binary, not text."), _convert())
    elif b"\x1b$" in data and data.isascii():
        text, encoding = _try(data, "iso2022_jp_ext"), "ISO-2022-JP"  # before UTF-8, which would take the escapes for text
    else:
        text, encoding = _try(data, "utf-8-sig"), "UTF-8"
        if text is None:
            text, encoding = _legacy(data)
    if text is None:
        found = Words("文字コードを判別できません。", "The encoding cannot be told.")
        raise _bad(path, found, _convert())
    if len(CONTROL.findall(text)) > len(text) // 1000:
        raise _bad(path, Words("制御文字が多く、文章ではありません。", "It is full of control characters, not text."), _convert())
    return Decoded(text.rstrip("\x1a"), encoding)


def _legacy(data: bytes) -> tuple[str | None, str]:
    """Shift_JIS or EUC-JP, whichever reads more like Japanese; None when neither does."""
    candidates = [(text, name) for code, name in _LEGACY.items() if (text := _try(data, code)) is not None]
    text, name = max(candidates, key=lambda candidate: _plausibility(candidate[0]), default=("", ""))
    return (text if _plausibility(text) > 0.8 else None), name


def _plausibility(text: str) -> float:
    """Share of what is not ASCII that is everyday Japanese; 0 without kana, which real sentences always have.

    EUC-JP taken for Shift_JIS is mostly half-width katakana; Western text taken for either has kanji without kana.
    """
    foreign = FOREIGN.findall(text)
    if not foreign or len(KANA.findall(text)) < 0.05 * len(foreign):
        return 0.0
    return len(JAPANESE.findall(text)) / len(foreign)


def _try(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


# ── one reader for each kind of file


def _read_txt(path: Path, detected: Detected | None) -> Document:
    with _open(path) as stream:
        data = stream.read(MAX_TEXT + 1)
    if len(data) > MAX_TEXT:
        size = MAX_TEXT >> 20
        raise _bad(
            path,
            Words(f"{size} MiB を超える一つの文章です。", f"It is one text of more than {size} MiB."),
            Words("文書ごとのファイルか .jsonl に分けてください。", "Divide it into files, one a document, or into .jsonl."),
        )
    title = path.with_suffix("").stem if path.suffix.lower() in PACKED else path.stem
    text, encoding = decode(data, path)
    if detected:
        detected(path, encoding)
    return Document(text, title=title, source=path.name)


def _read_jsonl(path: Path) -> Iterator[Document]:
    for number, record in objects(path, MAX_LINE, _json()):
        yield _document(record, f"{number} 行目", f"Line {number}", path)


def _json_object(line: bytes, number: int, path: Path, form: Words) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise _bad(path, Words(f"{number} 行目が UTF-8 ではありません。", f"Line {number} is not UTF-8."), form) from error
    except (ValueError, RecursionError) as error:
        raise _bad(path, Words(f"{number} 行目が JSON として読めません。", f"Line {number} is not JSON."), form) from error
    if not isinstance(value, dict):
        raise _bad(path, Words(f"{number} 行目が {{…}} の形ではありません。", f"Line {number} is not an object."), form)
    return value


def _read_parquet(path: Path) -> Iterator[Document]:
    import pyarrow  # noqa: PLC0415  heavy, and only one kind of file wants it
    import pyarrow.parquet as parquet  # noqa: PLC0415

    with path.open("rb") as stream:
        try:
            table = parquet.ParquetFile(stream)
            there = table.schema_arrow.names
            if "text" not in there:
                _document(dict.fromkeys(there), "ファイル", "The file", path)
            names = [name for name in FIELDS if name in there]
            number = 0
            for batch in table.iter_batches(batch_size=ROWS, columns=names):
                for record in batch.to_pylist():
                    number += 1
                    yield _document(record, f"{number} 件目", f"Row {number}", path)
        except (pyarrow.ArrowException, UnicodeDecodeError, MemoryError) as error:
            raise _bad(path, Words("Parquet として読めません。", "It cannot be read as Parquet."), _remove()) from error


_READERS = {".jsonl": _read_jsonl, ".parquet": _read_parquet}


def _document(record: dict[str, Any], ja: str, en: str, path: Path) -> Document:
    """A record as a document. No text at all is a fault; null is an empty document, which is counted further on."""
    if "text" not in record:
        names = "、".join(list(record)[:8])
        found = Words(f"{ja}に項目 text がありません（あるのは {names}）。", f"{en} has no field text (it has {names}).")
        raise _bad(path, found, _json())
    text = record["text"] if record["text"] is not None else ""
    if not isinstance(text, str) or not _encodable(text):
        raise _bad(path, Words(f"{ja}の text が正しい文字列ではありません。", f"{en}: text is not a valid string."), _json())
    if len(text) > MAX_LINE:
        size = MAX_LINE >> 20
        raise _bad(path, Words(f"{ja}の text が {size} Mi 字を超えています。", f"{en}: text is longer than {size} Mi characters."), _json())
    credits = [part for name in ("author", "credit") if (part := _string(record, name))]
    licence = _string(record, "licence") or _string(record, "license")
    return Document(text, _string(record, "title"), _string(record, "source") or path.name, licence, "、".join(credits))


def _string(record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) and _encodable(value) else ""


def _encodable(text: str) -> bool:
    """False for half a surrogate pair, which JSON can write and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# ── opening


def _check_filled(path: Path) -> None:
    if path.stat().st_size == 0:
        raise _bad(path, Words("空のファイルです。", "The file is empty."), _remove())


class _Zstd(io.RawIOBase):
    """Unpacks as it is read; unlike the library's own reader it notices when the end is missing."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, b""
        self._packer = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        self._frame = self._packer.decompressobj()
        self._begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            bite = self._file.read(BITE)
            if not bite:
                if self._begun:
                    raise EOFError
                return 0
            self._left = self._unpack(bite)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def _unpack(self, bite: bytes) -> bytes:
        parts = []
        while bite:
            parts.append(self._frame.decompress(bite))
            bite, self._begun = b"", True
            if self._frame.eof:  # another frame may follow
                bite, self._begun = self._frame.unused_data, False
                self._frame = self._packer.decompressobj()
        return b"".join(parts)


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    """The unpacked bytes, buffered. Nothing is unpacked before it is read."""
    with path.open("rb") as raw:
        if path.suffix.lower() == ".zst":
            yield io.BufferedReader(_Zstd(raw), 1 << 20)
        elif path.suffix.lower() == ".gz":
            with gzip.open(raw) as stream:
                yield io.BufferedReader(stream, 1 << 20)
        else:
            yield raw


# ── faults


def _inside(directory: Path) -> list[Path]:
    """Supported files below a directory, hidden ones left out."""
    inside = sorted(
        file
        for file in directory.rglob("*")
        if kind(file) and file.is_file() and not any(part.startswith(".") for part in file.relative_to(directory).parts)
    )
    if not inside:
        names = "、".join(KINDS)
        raise InputError(
            Words(f"フォルダ {directory} の文章を読もうとしました。", f"Reading the text in {directory}."),
            found=Words(f"読める種類のファイル（{names}）がありません。", f"There is no file of a kind it can read ({names})."),
            todo=Words("別のフォルダを指定してください。", "Name another directory."),
        )
    return inside


def _supported(path: Path) -> Path:
    if not path.exists():
        raise MissingError(
            Words(f"{path} の文章を読もうとしました。", f"Reading the text in {path}."),
            found=Words("そのファイルもフォルダもありません。", "There is no such file or directory."),
            todo=Words("パスを確かめてください。", "Check the path."),
        )
    if not path.is_file() or kind(path) is None:
        found = Words("読める種類のファイルではありません。", "It is not a kind of file that can be read.")
        todo = Words(
            ".txt か .jsonl（.zst、.gz でも可）、または .parquet を指定してください。",
            "Name a .txt or .jsonl, also as .zst or .gz, or a .parquet.",
        )
        raise _bad(path, found, todo)
    return path


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """What the system and the packers say about a file, in our words."""
    try:
        yield
    except (zstandard.ZstdError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        found = Words("圧縮されたデータが壊れているか、途中で切れています。", "The packed data is damaged or cut off.")
        raise _bad(path, found, Words("取り直すか、入力から外してください。", "Fetch it again, or leave it out.")) from error
    except OSError as error:
        raise _bad(path, Words(f"読めません（{error.strerror}）。", f"It cannot be read ({error.strerror})."), _remove()) from error


def _bad(path: Path, found: Words, todo: Words) -> InputError:
    return InputError(Words(f"{path} の文章を読もうとしました。", f"Reading the text in {path}."), found=found, todo=todo)


def _remove() -> Words:
    return Words("ファイルを確かめるか、入力から外してください。", "Check the file, or leave it out.")


def _convert() -> Words:
    return Words("UTF-8 の文章に直すか、入力から外してください。", "Convert it to text in UTF-8, or leave it out.")


def _json() -> Words:
    return Words('一行に一つ {"text": "…"} の形で書いてください。', 'Write one {"text": "…"} a line.')
