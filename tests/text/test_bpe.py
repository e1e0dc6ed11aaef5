"""Plain BPE and the library's are twins: the same merges, the same ids, the same file. And the examples in the docstrings."""

from __future__ import annotations

import copy
import doctest
import importlib
import json
import pkgutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from place import ROOT

import tsuzuri.text
from tsuzuri.errors import FormatError, InputError
from tsuzuri.text import bpe, fast, kinds
from tsuzuri.text.corpus.read import read

KINDS = ("government", "law", "literature", "technical")
ODD = [
    "🧑🏽‍🚀👨‍👩‍👧‍👦🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "か\u3099は\u309ae\u0301",
    "\ud7ff\ue000\U0010ffff\x00",
    "葛\U000e0100飾区",
    "한국어 Ελληνικά עברית",
    " " * 500,
    "ああ" * 300,
]


def sample(kind: str, start: int, count: int) -> list[str]:
    documents = read([ROOT / "sample" / "pretrain" / f"{kind}.jsonl.zst"])
    return [document.text for document in islice(documents, start, start + count)]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text for kind in KINDS for text in sample(kind, 0, 8)]


@pytest.fixture(scope="module")
def twins(texts: list[str]) -> tuple[bpe.Bpe, fast.FastTokenizer]:
    return bpe.train(texts, 4000), fast.train("bpe", texts, 4000)


Twins = tuple[bpe.Bpe, fast.FastTokenizer]


def state(tokenizer: fast.FastTokenizer, place: Path) -> dict[str, Any]:
    tokenizer.save(place)
    found: dict[str, Any] = json.loads((place / fast.FILE).read_text(encoding="utf-8"))
    return found


def test_training_gives_the_same_file(twins: Twins, texts: list[str], tmp_path: Path) -> None:
    assert sum(len(text.encode()) for text in texts) > 300_000
    plain, library = twins
    assert plain.state() == state(library, tmp_path)
    assert plain.vocab_size == library.vocab_size == 4000
    assert plain.special == library.special


@given(st.lists(st.text("abか", max_size=12), max_size=8), st.integers(0, 30))
def test_training_gives_the_same_merges_of_any_text(texts: list[str], more: int) -> None:
    """Few letters: many ties, pairs that overlap (aaa), and texts that run out before the vocabulary is full."""
    plain = bpe.train(texts, 260 + more)
    library = fast.FastTokenizer(kinds.bpe(texts, 260 + more, fast.SPECIAL))
    assert [plain.token_bytes(id) for id in range(plain.vocab_size)] == [library.token_bytes(id) for id in range(library.vocab_size)]


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_the_same_on_text_they_have_not_seen(twins: Twins, kind: str) -> None:
    plain, library = twins
    held_out = sample(kind, 8, 8)
    ids = [plain.encode(text) for text in held_out]
    assert ids == library.encode_batch(held_out) == [library.encode(text) for text in held_out]
    assert [plain.decode(found) for found in ids] == held_out


@pytest.mark.parametrize("text", ODD)
def test_ids_are_the_same_on_odd_text(twins: Twins, text: str) -> None:
    plain, library = twins
    assert plain.encode(text) == library.encode(text)
    assert plain.decode(plain.encode(text)) == text


@given(st.text() | st.text("今日のハレ word12１。!🍣 \n\u3099<|im_end|>"))
def test_ids_are_the_same_on_any_text(twins: Twins, text: str) -> None:
    plain, library = twins
    assert plain.encode(text) == library.encode(text)
    assert plain.decode(plain.encode(text)) == text


@given(st.lists(st.integers(0, 3999)))
def test_any_ids_are_the_same_text(twins: Twins, ids: list[int]) -> None:
    """Ids from a model may spell bytes that are no text: both say U+FFFD in the same places."""
    plain, library = twins
    assert plain.decode(ids) == library.decode(ids)
    stream = plain.stream()
    assert "".join(map(stream, ids)) + stream.flush() == plain.decode(ids)


@given(st.binary())
def test_any_bytes_come_back(twins: Twins, data: bytes) -> None:
    plain, library = twins
    ids = [bpe.FIRST + bpe.BYTES.index(bytes([byte])) for byte in data]
    assert b"".join(map(plain.token_bytes, ids)) == b"".join(map(library.token_bytes, ids)) == data
    assert plain.decode(ids) == data.decode("utf-8", errors="replace")


def test_a_special_token_in_a_text_is_text(twins: Twins) -> None:
    plain, _ = twins
    for token, id in plain.special.items():
        assert id not in plain.encode(f"前{token}後")
        assert plain.decode([id]) == token


def test_each_reads_the_others_file(twins: Twins, tmp_path: Path) -> None:
    plain, library = twins
    (tmp_path / fast.FILE).write_text(json.dumps(plain.state()), encoding="utf-8")
    assert fast.load(tmp_path).fingerprint == library.fingerprint
    again = bpe.Bpe.from_state(state(library, tmp_path))
    assert again.merges == plain.merges
    assert again.encode("今日は") == library.encode("今日は")


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "another pattern": lambda s: s["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex="."),
    "a normaliser": lambda s: s.update(normalizer={"type": "NFKC"}),
    "a merge less": lambda s: s["model"]["merges"].pop(),
    "merges in another order": lambda s: s["model"]["merges"].reverse(),
    "a merge of what is not there": lambda s: s["model"]["merges"].append(["x", "没"]),
    "merges that are none": lambda s: s["model"].update(merges=3),
    "another kind": lambda s: s.update(model={"type": "Unigram", "vocab": []}),
    "ids exchanged": lambda s: s["model"]["vocab"].update(a=s["model"]["vocab"]["b"], b=s["model"]["vocab"]["a"]),
    "a special token renamed": lambda s: s["added_tokens"][1].update(content="<|start|>"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_is_not_ours_is_refused(change: str) -> None:
    found = copy.deepcopy(bpe.train(["今日は今日も"], 264).state())
    bpe.Bpe.from_state(found)
    CHANGES[change](found)
    with pytest.raises(FormatError):
        bpe.Bpe.from_state(found)


def test_half_a_surrogate_pair_is_refused(twins: Twins) -> None:
    for tokenizer in twins:
        with pytest.raises(InputError, match="3 文字目"):
            tokenizer.encode("今日\ud800は")


@settings(max_examples=20)
@given(st.lists(st.text("abか", max_size=20), max_size=5), st.integers(0, 10), st.integers(0, 10))
def test_a_smaller_vocabulary_is_the_beginning_of_a_larger(texts: list[str], more: int, still_more: int) -> None:
    small, large = bpe.train(texts, 260 + more), bpe.train(texts, 260 + more + still_more)
    assert list(small.merges) == list(large.merges)[: len(small.merges)]


MODULES = [found.name for found in pkgutil.walk_packages(tsuzuri.text.__path__, "tsuzuri.text.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_the_docstrings(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert not failed
    assert tried or name not in {"tsuzuri.text.bpe", "tsuzuri.text.split", "tsuzuri.text.bytelevel", "tsuzuri.text.compare"}
