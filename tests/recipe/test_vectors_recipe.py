"""recipes/vectors.yaml through the real command: near words are near, and the report says what was made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from place import ROOT, SMALL_VECTORS

from tsuzuri import directory
from tsuzuri.errors import ConfigError
from tsuzuri.model.vectors import Vectors
from tsuzuri.recipe import recipe as recipes
from tsuzuri.recipe.stages.vectors import RELATED
from tsuzuri.text.words import cutter


@pytest.fixture(scope="module")
def vectors(word_vectors: Path) -> Vectors:
    return Vectors.load(word_vectors / "runs/vectors/model", cutter)


def test_related_words_are_nearer_than_random_ones(vectors: Vectors) -> None:
    """The law of the sample: cosines of pairs that a person would call related, and of as many random pairs a hundred times over."""
    pairs = [(vectors.number(a), vectors.number(b)) for a, b in RELATED if {a, b} <= set(vectors.numbers)]
    assert len(pairs) >= 8
    related = np.mean([vectors.unit[a] @ vectors.unit[b] for a, b in pairs])
    random = np.random.default_rng(0)
    left, right = random.integers(0, len(vectors.words), (2, 100, len(pairs)))
    chance = (vectors.unit[left] * vectors.unit[right]).sum(-1).mean(1)  # (100,)
    assert related > chance.max() + 0.1


def test_texts_of_one_subject_are_nearer_than_of_two(vectors: Vectors) -> None:
    law, rain = vectors.embed("法律の規定により大臣が命令を定める。"), vectors.embed("雨の夜、彼は黙って歩いた。")
    assert vectors.embed("この政令は、省令で定める。") @ law > vectors.embed("この政令は、省令で定める。") @ rain
    assert vectors.embed("女は窓から顔を出した。") @ rain > vectors.embed("女は窓から顔を出した。") @ law


def test_the_directory_is_whole_and_the_report_tells_of_it(word_vectors: Path) -> None:
    out = word_vectors / "runs/vectors"
    directory.verify(out / "model")
    text = (out / "report.md").read_text(encoding="utf-8")
    found = json.loads((out / "report.json").read_text(encoding="utf-8"))["results"]["vectors"]
    assert "## 単語ベクトル" in text and "近い語" in text and f"{found['vocab_size']:,}" in text
    assert found["losses"][-1] < found["losses"][0]
    assert found["partners"] and found["neighbours"]


def test_what_is_finished_is_skipped(word_vectors: Path) -> None:
    command = [sys.executable, "-m", "tsuzuri", "run", "recipes/vectors.yaml", *SMALL_VECTORS]
    done = subprocess.run(command, cwd=word_vectors, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr.count("済んでいます") == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stages": ["corpus", "vectors"]}, "tokenizer"),
        ({"vectors": {"units": "words"}}, "word"),
        ({"vectors": {"method": "word2vec"}}, "skip-gram"),
        ({"vectors": {"method": "glove", "negative": 5}}, "negative"),
        ({"vectors": {"sie": 100}}, "vectors.sie"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(change: dict[str, Any], said: str) -> None:
    values = yaml.safe_load((ROOT / "recipes/vectors.yaml").read_text(encoding="utf-8"))
    if "stages" in change:
        del values["tokenizer"]
    with pytest.raises(ConfigError, match=said):
        recipes.resolve({**values, **change})


def test_words_need_no_tokenizer_and_the_seed_reaches_the_vectors() -> None:
    values = yaml.safe_load((ROOT / "recipes/vectors.yaml").read_text(encoding="utf-8"))
    del values["tokenizer"]
    recipe = recipes.resolve({**values, "seed": 4, "stages": ["corpus", "vectors"], "vectors": {"units": "character"}})
    assert recipe.sections["vectors"].seed == 4
    assert recipe.values["vectors"]["negative"] == 5, "what the method filled in is written down"
