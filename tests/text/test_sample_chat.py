"""The chat examples of the repository: whole, free, short and told apart; their selection is the same every time."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import unicodedata
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tsuzuri.text.corpus.read import read

SAMPLE = Path(__file__).parents[2] / "sample"
ROLES = re.compile(r"s?(ua)+")
# Shapes of well-known tests: choices by number or letter, worked sums, similarity scores, passages to answer from.
TESTS = re.compile(
    r"選択肢[：:]|正解を|^質問：|\n[1-5ABCD][.)] |The answer is|#### \d|0（全く異なる）|検索結果：|含意|矛盾|中立|def \w+\(.*\n *\"\"\"",
    re.MULTILINE,
)


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sample_make_chat", SAMPLE / "make_chat.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def selected(make: ModuleType) -> list[dict[str, Any]]:
    return list(make.lines(SAMPLE / "chat" / "selected.jsonl.zst"))


@pytest.fixture(scope="module")
def written(make: ModuleType) -> list[dict[str, Any]]:
    return list(make.lines(SAMPLE / "chat" / "written.jsonl.zst"))


def turns(record: dict[str, Any]) -> str:
    return "".join(message["role"][0] for message in record["messages"])


def said(record: dict[str, Any]) -> list[str]:
    return [message["content"] for message in record["messages"]]


def test_roles_take_turns_and_nothing_is_empty_or_broken(selected: list[dict[str, Any]], written: list[dict[str, Any]]) -> None:
    for record in selected + written:
        assert set(record) <= {"messages", "source", "licence", "credit"}
        assert all(set(message) == {"role", "content"} for message in record["messages"])
        assert {message["role"] for message in record["messages"]} <= {"system", "user", "assistant"}
        assert ROLES.fullmatch(turns(record)), record
        for content in said(record):
            assert content.strip() == content != ""
            assert unicodedata.is_normalized("NFC", content)
            assert "\ufffd" not in content
        assert sum(map(len, said(record))) <= 600


def test_everything_is_free_and_named(make: ModuleType, selected: list[dict[str, Any]], written: list[dict[str, Any]]) -> None:
    licences = {"MIT", "CC BY 3.0", "CC BY 4.0", "PD-JP", "PD (Copyright Act of Japan Art. 13)"}
    assert {record["licence"] for record in selected} == licences
    assert {(record["source"], record["licence"]) for record in written} == {("tsuzuri", "Apache-2.0")}
    for record in selected:
        assert record["source"]
        assert record["licence"].startswith("PD") or record["credit"]
    for licence in ("CC BY-SA 4.0", "CC BY-NC 4.0", "CC BY 4.0 SA", "CC BY-ND 4.0", "GPL-3.0", "unknown", "MIT-like", ""):
        assert not make.FREE.fullmatch(licence)


def test_counts_and_size(selected: list[dict[str, Any]], written: list[dict[str, Any]]) -> None:
    assert 2_700 <= len(selected) <= 3_100
    assert 200 <= len(written) <= 300
    assert sum(path.stat().st_size for path in (SAMPLE / "chat").iterdir()) <= 800_000
    answers = [content for record in selected + written for content, turn in zip(said(record), turns(record), strict=True) if turn == "a"]
    assert sum(len(answer) <= 200 for answer in answers) >= 0.95 * len(answers)
    assert sum("許容できる" in said(record)[0] for record in selected) <= 0.02 * len(selected)  # one-word answers stay few


def test_openings_do_not_repeat(selected: list[dict[str, Any]], written: list[dict[str, Any]]) -> None:
    spoken = Counter(next(content for content, turn in zip(said(r), turns(r), strict=True) if turn == "u") for r in selected)
    assert max(spoken.values()) == 1
    assert max(Counter(tuple(said(record)) for record in written).values()) == 1
    alone = [said(record)[0] for record in written if turns(record) == "ua"]
    assert max(Counter(alone).values()) == 1


def test_written_ones_are_varied_and_agree_on_the_facts(written: list[dict[str, Any]]) -> None:
    assert sum(turns(record).count("a") >= 2 for record in written) >= 35
    assert sum(turns(record)[0] == "s" for record in written) >= 8
    assert sum(record["messages"][-1]["content"].isascii() for record in written) >= 8
    text = "\n".join(content for record in written for content, turn in zip(said(record), turns(record), strict=True) if turn == "a")
    for fact in (
        "綴り",
        "tsuzuri",
        "Apache-2.0",
        "小さな言語モデル",
        "この計算機の上だけ",
        "make tiny",
        "青空文庫",
        "10分ほど",
        "覚えていません",
    ):
        assert fact in text, fact
    assert not re.search(r"[ぁ-んァ-ヶ一-龯][?!,]", text)  # half-width punctuation belongs to code and English
    for record in written:
        japanese = re.search(r"[ぁ-ん]", said(record)[-1])
        assert re.search(r"[。？！]$" if japanese else r"[.?!]$", said(record)[-1]), said(record)[-1]


def test_no_test_is_trained_on(selected: list[dict[str, Any]], written: list[dict[str, Any]]) -> None:
    for record in selected + written:
        assert not any(TESTS.search(content) for content in said(record)), record


def test_written_file_is_what_is_packed(written: list[dict[str, Any]]) -> None:
    text = (SAMPLE / "chat_written.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line) for line in text.splitlines()] == written, "run: python sample/make_chat.py"


@pytest.mark.parametrize("text, wanted", [
    ("はい. 何名様ですか?", "はい. 何名様ですか？"),
    ("行きます。 次です!", "行きます。次です！"),
    ("a?b ? `か?` か?", "a?b ? `か?` か？"),
    ("例(たとえば)です", "例（たとえば）です"),
    ("か\u3099", "が"),
    ("候補です。：\n -  犬\n-猫", "候補です。\n- 犬\n- 猫"),
])  # fmt: skip
def test_tidy(make: ModuleType, text: str, wanted: str) -> None:
    assert make.tidy(text) == wanted
    assert make.tidy(wanted) == wanted


def test_plain_sentences_become_polite_or_are_left_out(make: ModuleType) -> None:
    assert make.polite("`x`は、値を表す型である。先頭の要素を返す") == "`x`は、値を表す型です。先頭の要素を返します。"
    assert make.polite("要素を検索し、見つかれば削除する。") == "要素を検索し、見つかれば削除します。"
    assert make.polite("何かをほにゃららむ。") is None
    assert make.polite("- (1) : 値を返す。\n- (2) : 値を返す。") is None


def hotel(number: int, *contents: str) -> dict[str, Any]:
    roles = ["system", *(("user", "assistant") * 9)[: len(contents)]]
    messages = [{"role": role, "content": content} for role, content in zip(roles, ["応対してください。", *contents], strict=True)]
    return {"messages": messages, "source": f"megagonlabs/asdc:x.{number:05}", "licence": "CC BY 4.0"}


def test_dialogues_are_cut_to_whole_turns(make: ModuleType) -> None:
    spoken = [f"{'長い質問' * 20}{i}番ですか？" if i % 2 == 0 else f"{'長い答え' * 20}{i}番です" for i in range(9)]
    found = make.hotel(hotel(1, *spoken))
    assert turns(found)[-1] == "a"
    assert 2 < len(found["messages"]) < 10
    assert sum(map(len, said(found))) <= make.LONGEST
    assert said(found)[-1].endswith("番です。")
    open_end = make.hotel(hotel(4, "海の近くの宿はありますか？", "はい、お探しします。", "お願いします。"))
    assert turns(open_end) == "sua"
    assert make.hotel(hotel(2, "海の近くの宿はありますか？", "探してみますけど")) is None  # half a sentence
    assert make.hotel(hotel(3, "はい", "海の近くの宿をお探しします。")) is None  # says nothing


def test_what_is_broken_is_not_sound(make: ModuleType) -> None:
    good = hotel(1, "海の近くの宿はありますか？", "はい、お探しします。")
    assert make.sound(good)
    for bad in (
        {**good, "messages": good["messages"][:2]},
        {**good, "messages": good["messages"][:1] + good["messages"][2:]},
        {**good, "messages": good["messages"] + good["messages"][1:2]},
        {**good, "messages": good["messages"][:0:-1]},  # the assistant begins
        hotel(1, "海の近くの宿はありますか？", " "),
        hotel(1, "海の近くの宿はありますか？", "はい、、お探しします。"),
        hotel(1, "海の近くの宿はありますか？", "長い答えです。" * 100),
    ):
        assert not make.sound(bad)


def collection(make: ModuleType, folder: Path) -> Path:
    """A small collection of every kind, with what must not be chosen among it."""
    pairs: dict[str, list[dict[str, Any]]] = {choice.file: [] for choice in make.CHOICES}
    for i in range(60):
        row = hotel(i, f"{i}人で泊まれる宿はありますか?", f"はい、{i}名様のお部屋をお探しします")
        pairs["ja_hotel_dialog_asdc"].append(row if i % 3 else {**row, "licence": "CC BY-SA 4.0"})
        messages = [
            {"role": "user", "content": f"次の行動は、どちらですか。\n\n行動：本を{i}冊借りた"},
            {"role": "assistant", "content": "許容できる"},
        ]
        pairs["ja_moral_jcm"].append({"messages": messages, "source": "m", "licence": "MIT"})
    (folder / "instruct").mkdir(parents=True)
    for name, rows in pairs.items():
        make.write(folder / "instruct" / f"{name}.jsonl.zst", rows)
    tests = folder / "eval" / "commonsense_moral_ja"
    tests.mkdir(parents=True)
    (tests / "data_test.csv").write_text("".join(f"{i},本を{i}冊借りた,0\n" for i in range(50)), encoding="utf-8")
    return folder


def test_the_same_collection_gives_the_same_examples(make: ModuleType, tmp_path: Path) -> None:
    data = collection(make, tmp_path / "data")
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        out.mkdir()
    found = [make.select(data, out) for out in outs]
    assert outs[0].joinpath("selected.jsonl.zst").read_bytes() == outs[1].joinpath("selected.jsonl.zst").read_bytes()
    hotels, morals = found[0]["ja_hotel_dialog_asdc"], found[0]["ja_moral_jcm"]
    assert (hotels.read, hotels.not_free, len(hotels.records)) == (60, 20, 40)
    assert (morals.held_out, len(morals.records)) == (50, 10)
    assert said(hotels.records[0])[1].endswith("？")
    assert str(len(hotels.records)) in make.table(found[0])
    assert [said(r) for r in hotels.records] != sorted(said(r) for r in hotels.records)  # in a seeded order


def test_a_missing_collection_is_named(make: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="ja_instruction_megagon"):
        make.select(tmp_path, tmp_path)


def test_the_corpus_reader_leaves_chats_alone() -> None:
    """What is for talking is not text to continue: the two kinds of sample do not mix by a wrong path."""
    with pytest.raises(Exception, match="text"):
        list(read([SAMPLE / "chat" / "written.jsonl.zst"]))
