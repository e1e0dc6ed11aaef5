"""`tsuzuri tokenizer train | compare | show` through the command line, for a person and for a program."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from place import ROOT

from tsuzuri import directory
from tsuzuri.commands.tokenizer import command
from tsuzuri.errors import ConfigError, FormatError, InputError, MissingError, SpaceError, TsuzuriError
from tsuzuri.text import bpe, fast

STORY = (ROOT / "tests" / "data" / "ryoriten.txt").read_text(encoding="utf-8")


def run(*arguments: object, piped: bytes | None = None) -> Result:
    result = CliRunner().invoke(command, list(map(str, arguments)), input=piped)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """The story in pieces, in every format and encoding that is read."""
    place = tmp_path / "texts"
    place.mkdir()
    pieces = [STORY[start : start + 600] for start in range(0, 4800, 600)]
    (place / "0.txt").write_text(pieces[0], encoding="utf-8")
    (place / "1.txt").write_bytes(pieces[1].encode("cp932"))
    lines = "\n".join(json.dumps({"text": piece}) for piece in pieces[2:])
    (place / "2.jsonl").write_text(lines, encoding="utf-8")
    return place


@pytest.fixture
def made(texts: Path, tmp_path: Path) -> Path:
    run("train", texts, "--vocab-size", 500, "--out", tmp_path / "made")
    return tmp_path / "made"


# ── train


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece", "characters"])
def test_train_writes_a_directory_others_read(texts: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    result = run("train", texts, "--kind", kind, "--vocab-size", 400, "--out", out, "--json")
    found = json.loads(result.stdout)
    tokenizer = fast.load(out)
    directory.verify(out)
    assert found == {
        "kind": kind,
        "vocab_size": 400,
        "fingerprint": tokenizer.fingerprint,
        "documents": 8,
        "characters": 4800,
        "directory": str(out),
    }
    assert tokenizer.decode(tokenizer.encode(STORY)) == STORY
    assert "8 文書をすべて読みました" in result.stderr


def test_train_is_the_plain_twin_on_the_same_texts(made: Path) -> None:
    texts = [STORY[start : start + 600] for start in range(0, 4800, 600)]
    assert bpe.train(texts, 500).encode(STORY) == fast.load(made).encode(STORY)


def test_train_tells_a_person_what_it_made(texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shown = run("train", texts, "--vocab-size", 400, "--out", out).stdout
    assert shown == f"8 文書（4,800 文字）から、語彙 400 の bpe を作りました。\n{out} に書きました。\n"


FAULTS: dict[str, tuple[bytes, list[str], type[TsuzuriError], str]] = {
    "empty.txt": (b"", [], InputError, "空のファイル"),
    "binary.txt": (b"\x00\x01\x02", [], InputError, "バイナリ"),
    "wrong.txt": (b"\x82\xa0\xff\xff\xe3", [], InputError, "文字コード"),
    "wrong.jsonl": (b'{"text": "\xff"}', [], InputError, "UTF-8 ではありません"),
    "blank.jsonl": (b'{"text": ""}\n{"text": null}', [], InputError, "文字が一つもありません"),
    "short.txt": ("今日は".encode(), ["--vocab-size", "5000"], ConfigError, "この文章から作れるのは 267 まで"),
    "small.txt": ("今日は".encode(), ["--vocab-size", "100"], ConfigError, "260 以上"),
    "kind.txt": ("今日は".encode(), ["--kind", "unigrams"], ConfigError, "「unigram」のこと"),
    "picture.png": (b"x", [], InputError, "読める種類"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_train_refuses_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    data, more, error, words = FAULTS[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(error, match=words):
        run("train", tmp_path / name, "--out", tmp_path / "out", *more)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_train_does_not_replace_a_persons_files(texts: Path, made: Path) -> None:
    for out in (texts, texts.parent, texts / "0.txt"):
        with pytest.raises(ConfigError):
            run("train", texts, "--out", out)
    with directory.whole(texts.parent / "corpus") as corpus:
        (corpus / "train.txt").write_text(STORY, encoding="utf-8")
    with pytest.raises(ConfigError, match="入力の"):
        run("train", texts.parent / "corpus" / "train.txt", "--vocab-size", 300, "--out", texts.parent / "corpus")
    before = fast.load(made).fingerprint
    with pytest.raises(ConfigError):
        run("train", texts, "--vocab-size", 60_000, "--out", made)
    assert fast.load(made).fingerprint == before  # a run that failed left the tokenizer that was there
    run("train", texts, "--vocab-size", 300, "--out", made)
    assert fast.load(made).vocab_size == 300


@pytest.mark.parametrize("out", ["/sys/tsuzuri", "/proc/self/tsuzuri/deep"])
def test_a_place_that_cannot_be_written_is_said_before_anything_is_read(texts: Path, out: str) -> None:
    """Both refuse even the administrator."""
    (texts / "0.txt").write_bytes(b"\x00")  # reading it would be another error
    with pytest.raises(SpaceError, match=out):
        run("train", texts, "--out", out)


def test_nothing_heavy_is_loaded_for_help() -> None:
    line = "import sys; from tsuzuri.commands.tokenizer import command; print([m for m in ('torch', 'rich', 'tokenizers') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True, env=os.environ)
    assert shown.stdout.strip() == "[]"


# ── compare


def test_compare_for_a_program(texts: Path, made: Path) -> None:
    result = run("compare", texts, "--kinds", "bpe, characters", "--sizes", "300,60000", "--baseline", made, "--json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["kind"], row["vocab_size"]) for row in rows] == [
        (str(made), 500),
        ("bpe", 300),
        ("bpe", 60_000),
        ("characters", 300),
        ("characters", 60_000),
    ]
    assert [("unsupported" in row) for row in rows] == [False, False, True, False, True]
    assert len({row["characters"] for row in rows if "characters" in row}) == 1  # all on the same text
    assert "語彙 60,000 の characters を学習します" in result.stderr


def test_compare_for_a_person(texts: Path, made: Path) -> None:
    shown = run("compare", texts, "--kinds", "bpe", "--sizes", "300,60000", "--baseline", made).stdout
    assert re.search(r"bpe +300 +\d\.\d\d +\d\.\d\d +\d\.\d\d", shown)
    assert re.search(r"bpe +60,000 +–", shown)
    assert re.search(r"bpe 60,000: この文章から作れるのは \d+ まで", shown)
    assert "1 が最小" in shown
    assert "元に戻りません" not in shown


def test_compare_says_when_a_baseline_changes_the_text(texts: Path, made: Path) -> None:
    state = json.loads((made / fast.FILE).read_text(encoding="utf-8"))
    state["normalizer"] = {"type": "Replace", "pattern": {"String": "西"}, "content": "東"}
    (made / fast.FILE).write_text(json.dumps(state), encoding="utf-8")
    assert "元に戻りません" in run("compare", texts, "--kinds", "bpe", "--sizes", "300", "--baseline", made / fast.FILE).stdout


def test_compare_faults(texts: Path, made: Path, tmp_path: Path) -> None:
    assert run("compare", texts, "--sizes", "4k").exit_code == 2
    assert run("compare", texts, "--validation-fraction", "1").exit_code == 2
    with pytest.raises(ConfigError, match="bqe"):
        run("compare", texts, "--kinds", "bqe")
    with pytest.raises(MissingError):
        run("compare", texts, "--baseline", tmp_path / "none")
    with pytest.raises(InputError, match="1 件しか"):
        run("compare", texts / "0.txt")
    (made / fast.FILE).write_text("{", encoding="utf-8")
    with pytest.raises(FormatError):
        run("compare", texts, "--baseline", made)


# ── show


def test_show_for_a_program(made: Path) -> None:
    text = "料理店 <|im_end|>🍣"
    rows = json.loads(run("show", text, "--tokenizer", made, "--json").stdout)
    tokenizer = fast.load(made)
    assert [row["id"] for row in rows] == tokenizer.encode(text)
    assert b"".join(bytes.fromhex(row["bytes"]) for row in rows).decode() == text
    assert not {row["id"] for row in rows} & set(tokenizer.special.values())  # written in a text it is text
    assert {"kanji", "latin", "punctuation", "spaces"} == {script for row in rows for script in row["scripts"]}
    assert [row["text"] for row in rows[-4:]] == [None] * 4  # 🍣 in four bytes, none of them a character
    assert rows[-1]["pieces"] == ["|>🍣"]


def test_show_for_a_person(made: Path) -> None:
    shown = run("show", "[/]b店\x1b[31m\n", "--tokenizer", made).stdout
    assert "\x1b" not in shown  # the text cannot steer the terminal
    assert "[/]" in shown  # nor the table
    assert re.search(r"│ b +│ 62 +│ 英字", shown)
    assert r"\x1b" in shown
    assert re.search(r"漢字 +│ 店", shown)


def test_show_reads_standard_input(made: Path) -> None:
    piped = json.loads(run("show", "-", "--tokenizer", made, "--json", piped="料理".encode()).stdout)
    assert piped == json.loads(run("show", "料理", "--tokenizer", made, "--json").stdout)
    with pytest.raises(InputError, match="UTF-8"):
        run("show", "-", "--tokenizer", made, piped=b"\x82\xa0\xff")
    with pytest.raises(InputError, match="空"):
        run("show", "-", "--tokenizer", made, piped=b"")


def test_show_faults(made: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        run("show", "あ", "--tokenizer", tmp_path / "none")
    with pytest.raises(InputError, match="片方だけのサロゲート"):
        run("show", "\udcff", "--tokenizer", made)
