"""Bits per byte and what a model has to beat."""

import lzma
import math
from pathlib import Path

import numpy as np
import pytest

from tsuzuri.errors import InputError, TrainingError
from tsuzuri.evals.baselines import (
    MAX_XZ_BYTES,
    Units,
    byte_units,
    character_units,
    joined,
    kneser_ney,
    n_grams,
    strongest,
    xz,
)
from tsuzuri.evals.bits import Bits, bits_per_byte, difference, of_documents

TEXT = Path(__file__).parents[1] / "data" / "ryoriten.txt"  # 宮沢賢治「注文の多い料理店」, public domain, from 青空文庫


@pytest.fixture(scope="module")
def paragraphs() -> list[str]:
    return TEXT.read_text(encoding="utf-8").split("\n")


class Scripted:
    """A tokenizer of single characters, enough for the seam."""

    def __init__(self, texts: list[str]) -> None:
        self.ids = {character: i for i, character in enumerate(sorted(set("".join(texts))))}
        self.vocab_size = len(self.ids)
        self.special: dict[str, int] = {}

    def encode(self, text: str) -> list[int]:
        return [self.ids[character] for character in text]

    def decode(self, ids) -> str:
        return "".join(list(self.ids)[id] for id in ids)

    def stream(self):
        return lambda id: self.decode([id])


def test_one_bit_for_each_byte() -> None:
    assert bits_per_byte(math.log(2) * 10, 10) == pytest.approx(1.0)
    assert bits_per_byte(math.log(256) * 10, 10) == pytest.approx(8.0)


def test_uniform_model_costs_the_log_of_its_vocabulary() -> None:
    """あい is 6 bytes; 2 ids of a uniform model with V = 16 cost 8 bits."""
    result = of_documents(lambda ids: np.full(len(ids), -math.log(16)), [np.array([0, 1]), np.array([2])], [6, 3])
    assert result.bits_per_byte == pytest.approx(12 / 9)
    assert result.bits_per_token == pytest.approx(4.0)
    assert (result.bytes, result.tokens, result.documents) == (9, 3, 2)
    assert result.standard_error == pytest.approx(0, abs=1e-12)  # both documents cost 4/3 of a bit per byte


def test_bootstrap_error() -> None:
    """100 documents of 1 byte at 1 or 3 bits: the error of the mean is 1/√100, the interval holds the mean."""
    logs = [-math.log(2) * (1 + 2 * (i % 2)) for i in range(100)]
    documents = [np.array([i]) for i in range(100)]

    def measured(seed: int):
        return of_documents(lambda ids: np.array([logs[ids[0]]]), documents, [1] * 100, seed=seed)

    result = measured(0)
    assert result.bits_per_byte == pytest.approx(2.0)
    assert result.standard_error == pytest.approx(0.1, rel=0.1)
    low, high = result.interval
    assert low == pytest.approx(2 - 1.96 * 0.1, abs=0.04)
    assert high == pytest.approx(2 + 1.96 * 0.1, abs=0.04)
    assert measured(0) == result
    assert measured(1).interval != result.interval


def test_one_document_has_no_error() -> None:
    result = of_documents(lambda ids: np.full(len(ids), -1.0), [np.array([1]), np.array([], np.int64)], [3, 0])
    assert result.standard_error is None
    assert result.interval is None


@pytest.mark.parametrize("log", [-math.inf, math.nan, 0.5])
def test_what_is_no_probability(log: float) -> None:
    with pytest.raises(TrainingError, match="2"):
        of_documents(lambda ids: np.array([log if ids[0] else -1.0]), [np.array([0]), np.array([1])], [1, 1])


def test_no_text() -> None:
    with pytest.raises(InputError):
        of_documents(lambda ids: np.zeros(0), [], [])
    with pytest.raises(InputError):
        xz(b"")


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    of_documents(lambda ids: np.zeros(len(ids)), [np.array([0])] * 3, [1] * 3, progress=lambda *step: told.append(step))
    assert told == [("score", 1, 3), ("score", 2, 3), ("score", 3, 3)]


def test_xz_alone_is_the_file(paragraphs: list[str]) -> None:
    """The size of a real .xz file that gives the text back."""
    text = joined(paragraphs)
    chain = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    result = xz(text).bits
    assert result.bits_per_byte == pytest.approx(8 * len(lzma.compress(text, lzma.FORMAT_XZ, filters=chain)) / len(text), rel=0.01)
    assert 2 < result.bits_per_byte < 4
    assert (result.bytes, result.tokens) == (len(text), len(text))


def test_xz_with_what_was_read(paragraphs: list[str]) -> None:
    """What was read helps, and text read before costs next to nothing, however far back (past the smallest dictionary)."""
    text, prior = joined(paragraphs[100:]), joined(paragraphs[:100])
    assert xz(text, prior).bits.bits_per_byte < xz(text).bits.bits_per_byte
    noise = np.random.default_rng(0).bytes(200_000)
    assert xz(text, text + noise).bits.bits_per_byte < 0.2 * xz(text).bits.bits_per_byte


def test_xz_refuses_what_it_cannot_see_whole() -> None:
    with pytest.raises(InputError, match="64 MiB"):
        xz(b"a", bytes(MAX_XZ_BYTES))


def test_characters_never_read_are_spelt() -> None:
    units = character_units(["ああ", "い"])
    assert units.vocab_size == 257
    assert units.encode("あい") == [256, *"い".encode()]
    assert list(byte_units().encode("い")) == list("い".encode())


def test_kneser_ney_counts_bytes_of_text(paragraphs: list[str]) -> None:
    train, held = paragraphs[:150], paragraphs[150:]
    told: list[str] = []
    result = kneser_ney(train, held, character_units(train), order=3, progress=lambda what, done, total: told.append(what))
    assert result.bits.bytes == sum(len(text.encode()) for text in held)
    assert result.name == "3-gram character"
    assert 1 < result.bits.bits_per_byte < 3.5
    assert set(told) == {"3-gram character: read", "3-gram character: count", "3-gram character: score"}
    assert kneser_ney(train, held, character_units(train), order=1).bits.bits_per_byte > result.bits.bits_per_byte


def test_the_strongest_is_reported(paragraphs: list[str]) -> None:
    train, held = paragraphs[:150], paragraphs[150:]
    every = n_grams(train, held, Scripted(paragraphs), order=3)
    assert set(every) == {"token", "character", "byte"}
    values = {name: baseline.bits.bits_per_byte for name, baseline in every.items()}
    assert len(set(values.values())) == 3
    assert strongest(every).bits.bits_per_byte == min(values.values())


def test_documents_are_not_joined() -> None:
    """b follows a only across documents: that is not to be learnt."""
    units = Units("letter", 2, lambda text: ["ab".index(letter) for letter in text])
    apart, together = (kneser_ney(train, ["ab"], units, order=2).bits.bits_per_byte for train in (["a", "b"] * 50, ["ab"] * 50))
    assert apart > together + 0.3


def test_a_paired_difference_is_sharper_than_two_intervals() -> None:
    """Documents that are hard for both make each figure uncertain, not their difference."""
    hard = np.random.default_rng(0).uniform(0.5, 2.5, 40)
    documents = [np.zeros(100, np.int64) for _ in hard]

    def scored(extra: np.ndarray | float) -> Bits:
        each = iter(hard + extra)
        return of_documents(lambda ids: np.full(len(ids), -next(each)), documents, [100] * 40)

    margins = np.random.default_rng(1).normal(0.01, 0.002, 40)
    one, other = scored(0.0), scored(margins)
    found = difference(one, other)
    assert found.interval and one.interval
    assert found.bits_per_byte == pytest.approx(-margins.mean() / math.log(2))
    assert found.interval[0] < found.bits_per_byte < found.interval[1] < 0
    assert one.interval[1] - one.interval[0] > 50 * (found.interval[1] - found.interval[0])
