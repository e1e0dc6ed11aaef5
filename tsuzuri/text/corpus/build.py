"""A corpus from files: read, clean, drop duplicates, divide, write down what came from where and what was left out.

In: `CorpusSettings`. Out: a directory with train.jsonl.zst, validation.jsonl.zst, manifest.json (sources, licences, hashes)
and report.json, written whole or not at all. The same input gives the same bytes: the order is that of hashes. Of two
duplicates the first stays. It makes no tokens: `text/shards.py`. Kept texts wait on disk, not in memory.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, TypeAlias

import zstandard

from tsuzuri import __version__, directory
from tsuzuri.errors import ConfigError, InputError, Words
from tsuzuri.text.corpus import clean, output
from tsuzuri.text.corpus.dedup import Near, digest
from tsuzuri.text.corpus.read import Document, files, origin, read

Notice: TypeAlias = Callable[[Words | str], None]

NOTICE_SECONDS = 5.0
EXAMPLE = 80  # characters of an example in the report
LEVEL = 9  # of zstd: 4 % larger than 19, ten times faster


@dataclass(frozen=True, slots=True)
class CorpusSettings:
    """What to build from, and how strictly.

    `normalise`: `nfc` joins が written as two code points and changes almost nothing else (compatibility kanji such as U+FA19 神 become
    the usual one). `nfkc` also turns Ａ１ into A1, ｶﾅ into カナ, ㈱ into (株) and ① into 1: good for search, but a model trained on it
    can neither write full-width text nor tell ２ from ², and what a person types would have to be changed before the model may read
    it. So it is not the default. `none` leaves every code point.
    """

    inputs: list[str]  # files or directories
    normalise: Literal["none", "nfc", "nfkc"] = "nfc"
    min_characters: int = 50  # a shorter document is left out
    validation_fraction: float = 0.02  # of the works; 0: no validation
    near_duplicate_threshold: float = (
        0.8  # resemblance (Jaccard, of 6-character stretches) from which the later one goes; 0: only exact ones
    )
    max_bytes: int | None = None  # of kept text: a fair sample, lowest document hashes first
    seed: int = 0  # other documents are sampled and held out

    def __post_init__(self) -> None:
        _check("inputs", bool(self.inputs), "ファイルかフォルダを一つ以上指定してください。", "Name at least one file or directory.")
        _check("min_characters", self.min_characters >= 0, "0 以上にしてください。", "It must be at least 0.")
        _check("validation_fraction", 0 <= self.validation_fraction <= 0.5, "0 から 0.5 にしてください。", "It must be from 0 to 0.5.")
        _check(
            "near_duplicate_threshold",
            self.near_duplicate_threshold == 0 or 0.3 <= self.near_duplicate_threshold <= 1,
            "0 か、0.3 から 1 にしてください。",
            "It must be 0, or from 0.3 to 1.",
        )
        _check("max_bytes", self.max_bytes is None or self.max_bytes > 0, "1 以上にしてください。", "It must be at least 1.")
        _check("seed", abs(self.seed) < 1 << 63, "64 ビットの整数にしてください。", "It must fit into 64 bits.")


@dataclass(slots=True)
class Report:
    """What happened. Every document read is kept or stands under one reason in `dropped`."""

    documents_read: int = 0
    documents_kept: int = 0
    bytes_read: int = 0
    documents_changed: int = 0  # by cleaning
    encodings: dict[str, int] = field(default_factory=dict)  # of .txt files, as detected -> files
    dropped: dict[str, int] = field(default_factory=dict)  # reason -> documents
    examples: dict[str, dict[str, str]] = field(default_factory=dict)  # reason -> the first such document
    train_documents: int = 0
    validation_documents: int = 0
    train_bytes: int = 0
    validation_bytes: int = 0
    sources: dict[str, dict[str, int]] = field(default_factory=dict)  # -> read, kept, bytes, train, validation


class Kept(NamedTuple):
    """A document that waits on disk."""

    digest: bytes
    work: bytes  # digest of the work it is part of: all parts go the same way
    offset: int
    length: int  # of the line
    size: int  # UTF-8 bytes of the text
    source: str


def build(settings: CorpusSettings, out: Path, notice: Notice) -> Report:
    """Builds the corpus into `out`, in place of one that stood there.

    Raises InputError and MissingError (input), ConfigError and SpaceError (output); then `out` is as it was.
    """
    paths = files([Path(name) for name in settings.inputs])
    output.check(out, paths)
    report = Report()
    with directory.whole(out) as temporary, tempfile.TemporaryFile(dir=temporary) as spool:
        kept = _sampled(_select(settings, paths, spool, report, notice), settings, spool, report)
        _refuse_nothing(kept, settings, report)
        held = _held_out({entry.work for entry in kept}, settings)
        sources: dict[tuple[str, str], Source] = {}
        written = {
            part: _write(temporary / f"{part}.jsonl.zst", [e for e in kept if (e.work in held) == (part == "validation")], spool, sources)
            for part in ("train", "validation")
        }
        _count(report, kept, held)
        _write_json(temporary / "manifest.json", _manifest(settings, sources, written, report))
        _write_json(temporary / "report.json", asdict(report))
    return report


# ── what is kept


def _select(settings: CorpusSettings, paths: list[Path], spool: IO[bytes], report: Report, notice: Notice) -> list[Kept]:
    """Cleans and filters every document; those that pass go to `spool`, the others into the report."""
    kept: list[Kept] = []
    sieve = _Sieve(settings)
    told, offset = time.monotonic(), 0
    for document in read(paths, lambda path, encoding: _add(report.encodings, encoding)):
        text = clean.clean(document.text, settings.normalise)
        report.documents_read += 1
        report.bytes_read += len(document.text.encode())
        report.documents_changed += text != document.text
        _row(report, document.source)["read"] += 1
        reason = sieve.reason(text)
        if reason:
            _drop(report, reason, document.title, document.source, text)
        else:
            line = json.dumps(_record(document, text), ensure_ascii=False).encode() + b"\n"
            spool.write(line)
            name = digest(text, settings.seed)
            kept.append(Kept(name, _work(document, name, settings.seed), offset, len(line), len(text.encode()), origin(document.source)))
            offset += len(line)
        if time.monotonic() - told > NOTICE_SECONDS:
            told = time.monotonic()
            size = report.bytes_read / 1e6
            notice(
                Words(
                    f"{report.documents_read:,} 文書（{size:.0f} MB）を読みました。",
                    f"{report.documents_read:,} documents ({size:.0f} MB) read.",
                )
            )
    return kept


class _Sieve:
    """Why a text is left out, if it is: faults first, then what was there before."""

    def __init__(self, settings: CorpusSettings) -> None:
        self._shortest = settings.min_characters
        self._seen: set[bytes] = set()
        self._near = Near(settings.near_duplicate_threshold) if settings.near_duplicate_threshold else None

    def reason(self, text: str) -> str | None:
        found = clean.fault(text, self._shortest)
        if found:
            return found
        name = digest(text)
        if name in self._seen:
            return "duplicate"
        self._seen.add(name)
        if self._near and self._near.seen(text, len(self._seen)) is not None:
            return "near_duplicate"
        return None


def _sampled(kept: list[Kept], settings: CorpusSettings, spool: IO[bytes], report: Report) -> list[Kept]:
    """In the order of their hashes, which is random and stable; only as many as `max_bytes` has room for."""
    kept = sorted(kept)
    if settings.max_bytes is None:
        return kept
    total = count = 0
    while count < len(kept) and total + kept[count].size <= settings.max_bytes:
        total += kept[count].size
        count += 1
    for entry, line in _lines(kept[count : count + 1], spool):
        record = json.loads(line)
        _drop(report, "over_limit", record.get("title", ""), entry.source, record["text"])
        report.dropped["over_limit"] = len(kept) - count
    return kept[:count]


def _refuse_nothing(kept: list[Kept], settings: CorpusSettings, report: Report) -> None:
    """Raises InputError when nothing is left, or nothing that could be held out."""
    asked = Words("文章からコーパスを作ろうとしました。", "Building a corpus.")
    if not kept:
        ja = "、".join(f"{clean.REASONS[reason].ja} {count}" for reason, count in report.dropped.items()) or "なし"
        en = ", ".join(f"{clean.REASONS[reason].en} {count}" for reason, count in report.dropped.items()) or "none"
        raise InputError(
            asked,
            found=Words(
                f"{report.documents_read} 文書のうち、残ったものがありません（{ja}）。",
                f"Of {report.documents_read} documents none is left ({en}).",
            ),
            todo=Words("入力と min_characters、max_bytes を確かめてください。", "Check the input, min_characters and max_bytes."),
        )
    if settings.validation_fraction and len({entry.work for entry in kept}) == 1:
        raise InputError(
            asked,
            found=Words("作品が一つだけで、検証用に分けられません。", "There is only one work, so none can be held out for validation."),
            todo=Words("文章を増やすか、validation_fraction=0 にしてください。", "Add text, or set validation_fraction=0."),
        )


def _held_out(works: set[bytes], settings: CorpusSettings) -> set[bytes]:
    """The works for validation: those whose hash is in the lowest fraction, so that more input moves none; at least one, never all."""
    if not settings.validation_fraction:
        return set()
    ordered = sorted(works)
    count = sum(int.from_bytes(work[:8], "big") < settings.validation_fraction * 2**64 for work in ordered)
    return set(ordered[: min(max(count, 1), len(ordered) - 1)])


def _work(document: Document, name: bytes, seed: int) -> bytes:
    """Documents of one title from one source are parts of one work; a document without a title is a work by itself."""
    return digest(f"{document.source}\0{document.title}", seed) if document.title else digest(name.hex(), seed)


# ── what is written


class Written(NamedTuple):
    documents: int
    text_bytes: int
    bytes: int  # of the file
    sha256: str


@dataclass(slots=True)
class Source:
    documents: int = 0
    bytes: int = 0
    credits: set[str] = field(default_factory=set)


def _write(path: Path, entries: list[Kept], spool: IO[bytes], sources: dict[tuple[str, str], Source]) -> Written:
    """The documents in the order given. Counts each under its source and licence."""
    with path.open("wb") as raw, zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).stream_writer(raw, closefd=False) as packed:
        for entry, line in _lines(entries, spool):
            packed.write(line)
            record = json.loads(line)
            source = sources.setdefault((entry.source, record.get("licence", "")), Source())
            source.documents += 1
            source.bytes += entry.size
            source.credits |= {record["credit"]} if "credit" in record else set()
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Written(len(entries), sum(entry.size for entry in entries), path.stat().st_size, sha256)


def _lines(entries: list[Kept], spool: IO[bytes]) -> Iterator[tuple[Kept, bytes]]:
    for entry in entries:
        spool.seek(entry.offset)
        yield entry, spool.read(entry.length)


def _record(document: Document, text: str) -> dict[str, str]:
    return {name: value for name, value in (asdict(document) | {"text": text}).items() if value}


def _manifest(
    settings: CorpusSettings, sources: dict[tuple[str, str], Source], written: dict[str, Written], report: Report
) -> dict[str, Any]:
    """What the corpus is made of, for model cards and for whoever must answer for it."""
    hashes = "".join(part.sha256 for part in written.values())
    return {
        "made_by": f"tsuzuri {__version__}",
        "settings": {name: value for name, value in asdict(settings).items() if name != "inputs"},
        "hash": hashlib.sha256(hashes.encode()).hexdigest(),
        "files": {f"{part}.jsonl.zst": found._asdict() for part, found in written.items()},
        "sources": [
            {"source": source, "licence": licence, "documents": found.documents, "bytes": found.bytes, "credit": sorted(found.credits)}
            for (source, licence), found in sorted(sources.items())
        ],
        "dropped": report.dropped,
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


# ── what is reported


def _row(report: Report, source: str) -> dict[str, int]:
    return report.sources.setdefault(origin(source), {"read": 0, "kept": 0, "bytes": 0, "train": 0, "validation": 0})


def _drop(report: Report, reason: str, title: str, source: str, text: str) -> None:
    _add(report.dropped, reason)
    report.examples.setdefault(reason, {"title": title, "source": source, "text": text[:EXAMPLE]})


def _add(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def _count(report: Report, kept: list[Kept], held: set[bytes]) -> None:
    documents: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for entry in kept:
        part = "validation" if entry.work in held else "train"
        documents[part] += 1
        sizes[part] += entry.size
        row = report.sources[entry.source]
        row["kept"] += 1
        row["bytes"] += entry.size
        row[part] += 1
    report.documents_kept = len(kept)
    report.train_documents, report.validation_documents = documents["train"], documents["validation"]
    report.train_bytes, report.validation_bytes = sizes["train"], sizes["validation"]


def _check(name: str, holds: bool, ja: str, en: str) -> None:
    if not holds:
        raise ConfigError(
            Words(f"コーパスの設定「{name}」が指定されました。", f"The corpus setting '{name}' was given."),
            found=Words("使える範囲にありません。", "It is out of range."),
            todo=Words(ja, en),
        )
