"""`tsuzuri similar`: neighbours, sums and differences, texts, files of others; and what it says when it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tsuzuri.commands import cli
from tsuzuri.errors import ConfigError, InputError, MissingError
from tsuzuri.model import vec_format
from tsuzuri.model.vectors import Vectors
from tsuzuri.text.words import cutter

WORDS = ["東京", "日本", "パリ", "フランス", "春", "秋"]
PLAN = [[1, 1, 0], [0, 1, 0], [1, 0, 1], [0, 0, 1], [-2, 1, 1], [-2, 1, 0.8]]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    counts = np.array([9, 8, 7, 6, 5, 4])
    Vectors(WORDS, np.array(PLAN, np.float32), counts, cutter("word"), method="glove").save(tmp_path / "model")
    return tmp_path / "model"


def run(model: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, ["similar", *words, "--model", str(model)])


def answer(model: Path, *words: str) -> Any:
    done = run(model, *words, "--json")
    assert done.exit_code == 0, done.exception
    return json.loads(done.output)


def test_each_word_has_its_neighbours(model: Path) -> None:
    found = answer(model, "春", "パリ", "-k", "2")
    assert [question["asked"] for question in found] == ["春", "パリ"]
    assert [row["word"] for row in found[0]["found"]] == ["秋", "日本"]
    assert all(len(question["found"]) == 2 for question in found)


def test_tokyo_is_to_japan_as_paris_is_to_france(model: Path) -> None:
    (found,) = answer(model, "東京", "--minus", "日本", "--plus", "フランス", "-k", "1")
    assert found["asked"] == "東京 − 日本 ＋ フランス"
    assert found["found"] == [{"word": "パリ", "score": pytest.approx(1, abs=0.1)}]
    (product,) = answer(model, "東京", "--minus", "日本", "--plus", "フランス", "--rule", "multiply")
    assert product["found"][0]["word"] == "パリ"


def test_texts_are_compared_with_the_first(model: Path) -> None:
    found = answer(model, "--text", "春と電話", "秋", "東京")
    assert [row["texts"] for row in found] == [["春と電話", "秋"], ["春と電話", "東京"]]
    assert found[0]["similarity"] > found[1]["similarity"]
    assert found[0]["unknown"] == ["と", "電話"]


def test_a_person_reads_tables_and_lines(model: Path) -> None:
    table = run(model, "春").output
    assert "秋" in table and "█" in table and "近さ" in table
    lines = run(model, "--text", "春と電話", "秋").output
    assert "「春と電話」  「秋」" in lines and "知らない語：と、電話" in lines


def test_the_text_format_goes_out_and_comes_in(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "folder" / "a.vec"
    assert "6 語、3 次元" in run(model, "--export", str(file)).output
    assert vec_format.read(file, cutter("word")).words == WORDS
    assert answer(file, "春", "-k", "3") == answer(model, "春", "-k", "3")
    assert answer(file, "--text", "春", "秋", "--units", "character")[0]["similarity"] > 0


def test_an_unknown_word_is_answered_with_near_spellings(model: Path) -> None:
    error = run(model, "東京都").exception
    assert isinstance(error, InputError) and "東京" in str(error)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "語を指定"),
        (("--text", "春"), "二つ以上"),
        (("--text", "春", "秋", "--plus", "日本"), "同時"),
        (("春", "秋", "--minus", "日本"), "一つだけ"),
        (("--minus", "日本"), "一つだけ"),
        (("春", "--rule", "multiply"), "--rule"),
        (("春", "--export", "a.vec"), "--export"),
        (("春", "--units", "word"), "--units"),
    ],
)
def test_what_does_not_go_together_is_refused(model: Path, words: tuple[str, ...], said: str) -> None:
    done = run(model, *words)
    assert done.exit_code == 2 and said in done.output


def test_a_count_below_one_is_refused(model: Path) -> None:
    assert isinstance(run(model, "春", "-k", "0").exception, ConfigError)


def test_a_model_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(run(tmp_path / "nowhere", "春").exception, MissingError)
    monkeypatch.chdir(tmp_path)
    error = CliRunner().invoke(cli, ["similar", "春"]).exception
    assert isinstance(error, MissingError) and "recipes/vectors.yaml" in str(error)
