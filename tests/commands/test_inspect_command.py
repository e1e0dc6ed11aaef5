"""`tsuzuri inspect`: every token of a conversation, its id, and whether it is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from place import ROOT

from tsuzuri.chat import template
from tsuzuri.commands import cli
from tsuzuri.errors import InputError, MissingError, TrainingError
from tsuzuri.text import fast


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    fast.train("bpe", [(ROOT / "tests/data/ryoriten.txt").read_text(encoding="utf-8")], 500).save(path)
    template.save(path)
    return path


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    turns = [("system", "短く答えます。"), ("user", "山は？"), ("assistant", "高いです。"), ("user", "海は？"), ("assistant", "広いです。")]
    path = tmp_path / "talk.jsonl"
    path.write_text(json.dumps({"messages": [{"role": r, "content": c} for r, c in turns]}, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def test_only_the_answers_and_their_ends_are_trained(talk: Path, tokenizer: Path) -> None:
    done = CliRunner().invoke(cli, ["inspect", str(talk), "--tokenizer", str(tokenizer), "--json"], catch_exceptions=False)
    rows = json.loads(done.output)
    loaded = fast.load(tokenizer)
    trained = [row["id"] for row in rows if row["trained"]]
    assert loaded.decode(trained) == "高いです。<|im_end|>広いです。<|im_end|>"
    assert "<|im_start|>user\n山は？<|im_end|>" in loaded.decode([row["id"] for row in rows])


def test_the_table_shows_text_and_count(talk: Path, tokenizer: Path) -> None:
    done = CliRunner().invoke(cli, ["inspect", str(talk), "--tokenizer", str(tokenizer)], catch_exceptions=False)
    assert "<|im_end|>" in done.output and "●" in done.output
    assert "が学習されます" in done.output


@pytest.mark.parametrize("row", ["0", "2", "-1"])
def test_a_row_that_is_not_there_is_refused(talk: Path, tokenizer: Path, row: str) -> None:
    with pytest.raises(InputError, match=f"{row} 件目はありません"):
        CliRunner().invoke(cli, ["inspect", str(talk), "--tokenizer", str(tokenizer), "--row", row], catch_exceptions=False)


def test_an_answer_whose_end_would_not_be_trained_is_refused_after_it_was_shown(talk: Path, tokenizer: Path, tmp_path: Path) -> None:
    """A tokenizer with a special token that swallows the end of a turn: the template then makes that one instead."""
    state = json.loads((tokenizer / fast.FILE).read_text(encoding="utf-8"))
    one = state["added_tokens"][2]
    state["added_tokens"].append({**one, "id": 500, "content": f"高いです。{one['content']}"})
    (tmp_path / fast.FILE).write_text(json.dumps(state), encoding="utf-8")
    done = CliRunner().invoke(cli, ["inspect", str(talk), "--tokenizer", str(tmp_path)])
    assert isinstance(done.exception, TrainingError)
    assert "答えの終わり" in str(done.exception)
    assert "高いです。<|im_end|>" in done.output


def test_a_directory_without_tokenizer_is_refused(talk: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"tokenizer\.json"):
        CliRunner().invoke(cli, ["inspect", str(talk), "--tokenizer", str(tmp_path)], catch_exceptions=False)
