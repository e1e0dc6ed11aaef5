"""Word vectors at work: neighbours, sums and differences, texts, and a directory that is what it says or is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsuzuri import directory
from tsuzuri.errors import ConfigError, FormatError, InputError, MissingError, TsuzuriError
from tsuzuri.model import safe, vec_format
from tsuzuri.model.vectors import CONFIG, VOCABULARY, WEIGHTS, Vectors
from tsuzuri.text.words import cutter

WORDS = ["王", "女王", "男", "女", "春", "秋", "の", "林檎"]
PLAN = [[3, 1, 0], [3, 0, 1], [0, 1, 0], [0, 0, 1], [-2, 1, 0.7], [-2, 1, 0.8], [0.1, 0.1, 0.1], [-1, 0, -2]]
COUNTS = np.array([5, 5, 20, 20, 8, 7, 900, 3])


def vectors(**choices: Any) -> Vectors:
    found = {"matrix": np.array(PLAN, np.float32), "counts": COUNTS, "cut": cutter("word"), "method": "skip-gram", **choices}
    return Vectors(WORDS, found.pop("matrix"), found.pop("counts"), found.pop("cut"), **found)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vectors") / "model"
    vectors().save(path)
    return path


# ── words


def test_the_nearest_words_are_those_of_the_largest_cosine() -> None:
    matrix = np.array(PLAN)
    cosines = matrix @ matrix[4] / np.linalg.norm(matrix, axis=1) / np.linalg.norm(matrix[4])
    order = [int(i) for i in np.argsort(-cosines) if i != 4]
    assert vectors().nearest("春", 3) == [(WORDS[i], pytest.approx(cosines[i], rel=1e-5)) for i in order[:3]]
    assert vectors().similarity("春", "秋") == pytest.approx(cosines[5], rel=1e-5)
    assert len(vectors().nearest("春", 100)) == len(WORDS) - 1


@pytest.mark.parametrize("rule", ["add", "multiply"])
def test_man_is_to_king_as_woman_is_to_queen(rule: Any) -> None:
    assert vectors().analogy("男", "王", "女", 1, rule)[0][0] == "女王"
    assert vectors().combine(["王", "女"], ["男"], 1, rule)[0][0] == "女王"


def test_sums_and_products_are_those_of_the_papers() -> None:
    """3CosAdd and 3CosMul, one word after the other."""
    unit = np.array(PLAN) / np.linalg.norm(PLAN, axis=1, keepdims=True)
    shift = (1 + unit @ unit.T) / 2
    direction = unit[0] - unit[2] + unit[3]
    for rule, score in (
        ("add", lambda w: unit[w] @ direction / np.linalg.norm(direction)),
        ("multiply", lambda w: shift[w, 0] * shift[w, 3] / (shift[w, 2] + 1e-3)),
    ):
        found = dict(vectors().analogy("男", "王", "女", 8, rule))
        assert set(found) == set(WORDS) - {"男", "王", "女"}
        assert all(value == pytest.approx(score(WORDS.index(word)), rel=1e-4, abs=1e-6) for word, value in found.items())


def test_a_word_is_found_as_text_would_be_cut() -> None:
    assert vectors().number("春。") == 4
    assert Vectors(["abc", "x"], np.eye(2, dtype=np.float32), None, cutter("word")).number("ＡＢＣ") == 0


def test_an_unknown_word_is_answered_with_near_spellings_and_its_pieces() -> None:
    with pytest.raises(InputError, match="女王") as caught:
        vectors().nearest("王女")
    assert "語彙にありません" in str(caught.value)
    with pytest.raises(InputError, match="「春」「の」「王」"):
        vectors().nearest("春の王")
    with pytest.raises(InputError, match="出てくる語"):
        vectors().nearest("電話")


def test_no_word_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 語"):
        vectors().nearest("春", 0)


def test_a_vector_of_nothing_is_near_to_nothing() -> None:
    matrix = np.array(PLAN, np.float32)
    matrix[7] = 0
    assert dict(vectors(matrix=matrix).nearest("春", 8))["林檎"] == 0


# ── texts


def test_a_text_is_the_weighted_mean_of_its_words() -> None:
    found = vectors()
    share = COUNTS / COUNTS.sum()
    wanted = sum(1e-3 / (1e-3 + share[i]) * found.spread[i] for i in (4, 6, 0))
    assert np.abs(found.embed("春の王") - wanted / np.linalg.norm(wanted)).max() < 1e-6
    assert np.linalg.norm(found.embed("春の王")) == pytest.approx(1, rel=1e-6)
    plain = vectors(counts=None)
    wanted = sum(plain.spread[i] for i in (4, 6, 0))
    assert np.abs(plain.embed("春の王") - wanted / np.linalg.norm(wanted)).max() < 1e-6


def test_spread_vectors_are_equally_wide_in_every_direction() -> None:
    """Before each is brought to length 1: checked on lengths that are given back."""
    random = np.random.default_rng(0)
    matrix = (random.standard_normal((400, 6)) * [9, 3, 1, 1, 0.1, 0.0] + 5).astype(np.float32)
    found = Vectors([str(i) for i in range(400)], matrix, None, cutter("word")).spread
    middle = matrix - matrix.mean(0)
    length = np.sqrt(np.einsum("ij,jk,ik->i", middle, np.linalg.pinv(middle.T @ middle / 400, rcond=1e-6), middle))
    wide = found * length[:, None]
    values = np.linalg.eigvalsh(wide.T @ wide / 400)
    assert np.abs(values - [0, 1, 1, 1, 1, 1]).max() < 1e-3, "a direction that holds nothing stays nothing"


def test_a_text_without_a_known_word_is_refused_and_unknown_words_are_told() -> None:
    with pytest.raises(InputError, match="一つもありません"):
        vectors().embed("電話！")
    assert vectors().unknown("春の電話") == ["電話"]


# ── on disk


def test_what_was_saved_is_read_back_to_the_last_bit(saved: Path) -> None:
    found = Vectors.load(saved, cutter)
    assert found.words == WORDS and found.method == "skip-gram" and found.units == "word"
    assert np.array_equal(found.matrix, vectors().matrix) and found.matrix.dtype == np.float32
    assert found.counts is not None and np.array_equal(found.counts, COUNTS)
    directory.verify(saved)


def broken(saved: Path, to: Path) -> Path:
    """A copy without the manifest, so that every other check has to see for itself."""
    shutil.copytree(saved, to)
    (to / directory.MANIFEST).unlink()
    return to


CHANGES: dict[str, Any] = {
    "another model_type": lambda c: {**c, "model_type": "llama"},
    "an unknown field": lambda c: {**c, "window": 5},
    "a field too few": lambda c: {k: v for k, v in c.items() if k != "units"},
    "unknown units": lambda c: {**c, "units": "clause"},
    "one word more": lambda c: {**c, "vocab_size": 9},
    "another size": lambda c: {**c, "vector_size": 4},
    "no size": lambda c: {**c, "vector_size": 0},
    "a billion words": lambda c: {**c, "vocab_size": 10**9},
    "a size that is text": lambda c: {**c, "vector_size": "3"},
    "a list": lambda c: [c],
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_configuration_that_does_not_fit_is_refused(name: str, saved: Path, tmp_path: Path) -> None:
    place = broken(saved, tmp_path / "model")
    (place / CONFIG).write_text(json.dumps(CHANGES[name](json.loads((place / CONFIG).read_text("utf-8")))), encoding="utf-8")
    with pytest.raises((ConfigError, FormatError)):
        Vectors.load(place, cutter)


VOCABULARIES: dict[str, Any] = {
    "a word too few": WORDS[:-1],
    "twice": [*WORDS[:-1], "王"],
    "empty": [*WORDS[:-1], ""],
    "a number": [*WORDS[:-1], 5],
    "an object": dict.fromkeys(WORDS, 1),
}


@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_vocabulary_that_does_not_fit_is_refused(name: str, saved: Path, tmp_path: Path) -> None:
    place = broken(saved, tmp_path / "model")
    (place / VOCABULARY).write_text(json.dumps(VOCABULARIES[name]), encoding="utf-8")
    with pytest.raises(FormatError, match=r"vocabulary\.json"):
        Vectors.load(place, cutter)


TENSORS: dict[str, Any] = {
    "not a number": lambda v, c: {"vectors": v * torch.nan, "counts": c},
    "infinite": lambda v, c: {"vectors": v / 0, "counts": c},
    "another shape": lambda v, c: {"vectors": v.T.contiguous(), "counts": c},
    "another type": lambda v, c: {"vectors": v.double(), "counts": c},
    "no counts": lambda v, c: {"vectors": v},
    "one tensor more": lambda v, c: {"vectors": v, "counts": c, "more": c.clone()},
    "less than never": lambda v, c: {"vectors": v, "counts": c - 100},
    "never": lambda v, c: {"vectors": v, "counts": c * 0},
    "past counting": lambda v, c: {"vectors": v, "counts": c * 0 + 2**62},
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_do_not_fit_are_refused(name: str, saved: Path, tmp_path: Path) -> None:
    place = broken(saved, tmp_path / "model")
    safe.write(place / WEIGHTS, TENSORS[name](torch.tensor(PLAN), torch.from_numpy(COUNTS)))
    with pytest.raises(FormatError, match=r"model\.safetensors"):
        Vectors.load(place, cutter)


@pytest.mark.parametrize("name", [CONFIG, VOCABULARY, WEIGHTS])
def test_a_file_that_is_not_there_is_named(name: str, saved: Path, tmp_path: Path) -> None:
    place = broken(saved, tmp_path / "model")
    (place / name).unlink()
    with pytest.raises(MissingError, match=name):
        Vectors.load(place, cutter)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_files_are_refused_or_still_vectors(data: st.DataObject, saved: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Bytes cut out and put in anywhere: a TsuzuriError or vectors of the same shape, never anything else; and with the manifest
    there, always a refusal."""
    name = data.draw(st.sampled_from([CONFIG, VOCABULARY, WEIGHTS]))
    good = (saved / name).read_bytes()
    at, gone, put = data.draw(st.integers(0, len(good))), data.draw(st.integers(0, 20)), data.draw(st.binary(max_size=20))
    bad = good[:at] + put + good[at + gone :]
    place = broken(saved, tmp_path_factory.mktemp("damaged") / "model")
    (place / name).write_bytes(bad)
    try:
        found = Vectors.load(place, cutter)
        assert found.matrix.shape == (8, 3) and np.isfinite(found.unit).all() and len(set(found.words)) == 8
    except TsuzuriError:
        pass
    shutil.copy(saved / directory.MANIFEST, place)
    if bad != good:
        with pytest.raises(FormatError):
            Vectors.load(place, cutter)


def test_very_large_numbers_have_a_direction_too() -> None:
    matrix = np.full((8, 3), 3e38, np.float32)
    assert np.allclose(vectors(matrix=matrix).unit, 1 / np.sqrt(3))


# ── .vec


def test_the_text_format_gives_the_numbers_back_to_the_last_bit(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    matrix = (random.standard_normal((8, 5)) * 10.0 ** random.integers(-30, 30, (8, 5))).astype(np.float32)
    vec_format.write(vectors(matrix=matrix), tmp_path / "a.vec")
    found = vec_format.read(tmp_path / "a.vec", cutter("word"))
    assert found.words == WORDS and found.counts is None
    assert np.array_equal(found.matrix, matrix)


def test_files_as_others_write_them_are_read(tmp_path: Path) -> None:
    """word2vec.c ends its lines with a space, fastText does not; some systems end them with CR LF, some files with no line end."""
    for text in ("2 3\n春 1 2 3 \n秋 -1.5 2e-1 0.25 \n", "2 3\r\n春 1 2 3\r\n秋 -1.5 2e-1 0.25\r\n", "2 3\n春 1 2 3\n秋 -1.5 2e-1 0.25"):
        (tmp_path / "a.vec").write_bytes(text.encode())
        found = vec_format.read(tmp_path / "a.vec", cutter("word"))
        assert found.words == ["春", "秋"] and found.matrix.tolist() == [[1, 2, 3], [-1.5, pytest.approx(0.2), 0.25]]


LIARS = {
    "nothing": "",
    "no head": "春 1 2 3\n",
    "head of one": "2\n",
    "no words": "0 3\n",
    "negative": "-1 3\n春 1 2 3\n",
    "a billion words": "999999999 300\n春 1 2 3\n",
    "more than the file holds": "1000 3\n春 1 2 3\n",
    "wide": "1 99999\n春 1\n",
    "a word too few": "2 3\n春 1 2 3        \n\n",
    "a word too many": "1 3\n春 1 2 3\n秋 1 2 3\n",
    "a number too few": "1 3\n春 1 2     \n",
    "a number too many": "1 3\n春 1 2 3 4\n",
    "no number": "1 3\n春 1 2 x\n",
    "not a number": "1 3\n春 1 2 nan\n",
    "infinite": "1 3\n春 1 2 1e99\n",
    "twice": "2 3\n春 1 2 3\n春 1 2 3\n",
    "no word": "1 3\n 1 2 3\n",
    "a line without an end": "1 3\n春 1 2 " + "3" * (1 << 17),
    "a long head": "1" * 1000 + " 3\n春 1 2 3\n",
}


@pytest.mark.parametrize("name", LIARS)
def test_a_file_that_does_not_fit_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.vec").write_text(LIARS[name], encoding="utf-8")
    with pytest.raises(FormatError, match=r"a\.vec"):
        vec_format.read(tmp_path / "a.vec", cutter("word"))


def test_a_word_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.vec").write_bytes(b"1 3\n\xff\xfe 1 2 3\n")
    with pytest.raises(FormatError, match="2 行目"):
        vec_format.read(tmp_path / "a.vec", cutter("word"))


def test_a_word_with_a_space_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="new york"):
        vec_format.write(Vectors(["new york"], np.ones((1, 2), np.float32), None, cutter("word")), tmp_path / "a.vec")
    assert not (tmp_path / "a.vec").exists()


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        vec_format.read(tmp_path / "a.vec", cutter("word"))
