"""Reading: every encoding and packing gives the same text; what cannot be read is refused with its name and line."""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tsuzuri.errors import InputError, MissingError
from tsuzuri.text.corpus import read as module
from tsuzuri.text.corpus.read import Document, decode, files, origin, read

STORY = (Path(__file__).parents[1] / "data" / "ryoriten.txt").read_text(encoding="utf-8")
PLAIN = STORY.replace("\u3000", " ")


def packed(data: bytes, suffix: str) -> bytes:
    return {"": lambda: data, ".gz": lambda: gzip.compress(data), ".zst": lambda: zstandard.compress(data)}[suffix]()


def fault(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        list(read([path]))
    assert path.name in str(caught.value)
    return str(caught.value.found)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp932", "euc_jp", "iso2022_jp"])
@pytest.mark.parametrize("length", [60, None])
def test_every_encoding_gives_the_text(encoding: str, length: int | None) -> None:
    text = STORY[:length]
    assert decode(text.encode(encoding), Path("x.txt")).text == text


def test_utf16_of_either_order_needs_its_mark() -> None:
    assert decode(b"\xfe\xff" + STORY.encode("utf-16-be"), Path("x.txt")) == (STORY, "UTF-16")
    with pytest.raises(InputError):
        decode(STORY.encode("utf-16-be"), Path("x.txt"))


@pytest.mark.parametrize(
    "line", ["吾輩は猫である。", "カタカナ テスト", "東京都の人口は、約1,400万人です。", "ｱｲｳはカナです。そうでした。まことに。"]
)
def test_one_short_line_is_told_apart(line: str) -> None:
    assert decode(line.encode("cp932"), Path("x.txt")) == (line, "Shift_JIS (CP932)")
    assert decode(line.encode("euc_jp"), Path("x.txt")) == (line, "EUC-JP")


def test_characters_beyond_the_first_standard() -> None:
    line = "①と㈱は、機種依存文字と呼ばれました。"
    assert decode(line.encode("cp932"), Path("x.txt")).text == line
    assert decode(line.encode("euc_jis_2004"), Path("x.txt")) == (line, "EUC-JIS-2004")


def test_what_was_detected_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(STORY.encode("cp932"))
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(STORY.encode("iso2022_jp")))
    heard: list[tuple[str, str]] = []
    list(read([tmp_path], lambda path, encoding: heard.append((path.name, encoding))))
    assert heard == [("a.txt", "Shift_JIS (CP932)"), ("b.txt.gz", "ISO-2022-JP")]


def test_western_and_random_bytes_are_not_taken_for_japanese() -> None:
    western = "Où est la bibliothèque ? Là-bas, à côté du café fermé, près de l'église."
    for data in (western.encode("latin-1"), bytes(range(128, 256)) * 4, b"\x89PNG\r\n\x1a\n\x00\x00", "漢字".encode("cp932")):
        with pytest.raises(InputError):
            decode(data, Path("x.txt"))


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_every_kind_and_packing(tmp_path: Path, suffix: str) -> None:
    record = {
        "text": PLAIN,
        "title": "注文の多い料理店",
        "source": "aozorabunko:x",
        "licence": "PD-JP",
        "author": "宮沢賢治",
        "credit": "入力：某",
    }
    pq.write_table(pa.Table.from_pylist([record, record | {"text": None}]), tmp_path / "a.parquet")
    lines = json.dumps(record, ensure_ascii=False) + "\n\n" + json.dumps({"text": "次"}) + "\n"
    for name, data in ((".txt", PLAIN.encode()), (".jsonl", lines.encode())):
        (tmp_path / f"a{name}{suffix}").write_bytes(packed(data, suffix))
    full = Document(PLAIN, "注文の多い料理店", "aozorabunko:x", "PD-JP", "宮沢賢治、入力：某")
    assert list(read([tmp_path / f"a.jsonl{suffix}"])) == [full, Document("次", source=f"a.jsonl{suffix}")]
    assert list(read([tmp_path / "a.parquet"])) == [
        full,
        Document("", full.title, full.source, full.licence, full.credit),
    ]
    assert list(read([tmp_path / f"a.txt{suffix}"])) == [Document(PLAIN, "a", f"a.txt{suffix}")]
    assert len(list(read([tmp_path]))) == 5


def test_zstd_frames_in_a_row_and_unusual_windows(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"{i}" * 50}).encode() + b"\n" for i in range(300)]
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(b"".join(zstandard.compress(line) for line in lines))
    assert len(list(read([path]))) == 300


def test_files_are_sorted_found_once_and_not_hidden(tmp_path: Path) -> None:
    for name in ("b.txt", "a.jsonl", "in/c.jsonl.gz", "d.parquet.gz", ".hidden/x.txt", "manifest.json", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert files([tmp_path, tmp_path / "b.txt"]) == [tmp_path / "a.jsonl", tmp_path / "b.txt", tmp_path / "in" / "c.jsonl.gz"]


def test_missing_unsupported_and_nothing(tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        files([tmp_path / "none.txt"])
    (tmp_path / "a.pdf").write_bytes(b"x")
    (tmp_path / "a.parquet.zst").write_bytes(b"x")
    for paths in ([tmp_path / "a.pdf"], [tmp_path / "a.parquet.zst"], [tmp_path], []):
        with pytest.raises(InputError):
            files(paths)


BAD: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.txt", b"", "空の"),
    "binary": ("a.txt", b"\x7fELF\x00\x01" * 50, "バイナリ"),
    "control": ("a.txt", b"\x01\x02\x03abc" * 50, "制御文字"),
    "encoding": ("a.txt", b"\x81\xff\xfe" * 50, "文字コード"),
    "line": ("a.jsonl", b'{"text": "a"}\n{"text": \n', "2 行目"),
    "deep": ("a.jsonl", b"[" * 100_000, "1 行目"),
    "list": ("a.jsonl", b'["text"]\n', "1 行目"),
    "field": ("a.jsonl", b'{"text": "a"}\n\n{"body": "a"}\n', "3 行目に項目 text がありません（あるのは body）"),
    "number": ("a.jsonl", b'{"text": 3}\n', "1 行目"),
    "surrogate": ("a.jsonl", b'{"text": "\\ud800"}\n', "1 行目"),
    "sjis": ("a.jsonl", '{"text": "日本語"}\n'.encode("cp932"), "UTF-8"),
    "not zstd": ("a.txt.zst", b"plain text", "圧縮"),
    "cut zstd": ("a.txt.zst", zstandard.compress(PLAIN.encode())[:-20], "圧縮"),
    "not gzip": ("a.txt.gz", b"plain text", "圧縮"),
    "cut gzip": ("a.txt.gz", gzip.compress(PLAIN.encode())[:-20], "圧縮"),
    "parquet": ("a.parquet", b"PAR1 not really", "Parquet"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_with_a_reason(case: str, tmp_path: Path) -> None:
    name, data, words = BAD[case]
    (tmp_path / name).write_bytes(data)
    assert words in fault(tmp_path / name)


def test_parquet_without_text_names_its_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["a"], "url": ["b"]}), tmp_path / "a.parquet")
    assert "body、url" in fault(tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "b.parquet")
    assert "1 件目" in fault(tmp_path / "b.parquet")


def test_parquet_keeps_its_order_and_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"text": [str(i) for i in range(50)], "url": ["x"] * 50}), tmp_path / "a.parquet", row_group_size=20)
    assert [d.text for d in read([tmp_path / "a.parquet"])] == [str(i) for i in range(50)]
    pq.write_table(pa.table({"text": ["短い", *["長" * (1 << 21)] * 50]}), tmp_path / "bomb.parquet")  # 300 MB of text
    assert (tmp_path / "bomb.parquet").stat().st_size < 10_000_000
    monkeypatch.setattr(module, "MAX_LINE", 1 << 20)
    assert "2 件目の text が 1 Mi 字" in fault(tmp_path / "bomb.parquet")


@pytest.mark.parametrize(("name", "limit"), [("a.jsonl.zst", "MAX_LINE"), ("a.txt.zst", "MAX_TEXT")])
def test_a_bomb_is_refused_before_it_unpacks(name: str, limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, limit, 1 << 20)
    (tmp_path / name).write_bytes(zstandard.compress(b"a" * (1 << 27)))
    assert "MiB" in fault(tmp_path / name)


def test_zstd_window_is_bounded(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=28, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    (tmp_path / "a.txt.zst").write_bytes(packer.compress(b"a" * 1000) + packer.flush())
    assert "圧縮" in fault(tmp_path / "a.txt.zst")


@pytest.fixture
def nobody() -> Iterator[None]:
    """Root reads everything, so that a test of permissions has to be someone else."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


def test_unreadable(nobody: None) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "a.txt"
        path.write_text("x")
        path.chmod(0)
        assert "読めません" in fault(path)
        path.chmod(0o600)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    assert "種類" in fault(tmp_path / "a.txt")


def test_origin() -> None:
    assert [origin(s) for s in ("github:a/b:c/d.md", "wiki via github:a/b:c.xml", "aozorabunko:cards/1.txt", "猫.txt.gz", "a.jsonl")] == [
        "github:a/b",
        "wiki via github:a/b",
        "aozorabunko",
        "*.txt",
        "a.jsonl",
    ]
