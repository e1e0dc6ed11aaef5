"""The four kinds: lossless on any text, the same each time, loaded by others as they are, and damage is found."""

from __future__ import annotations

import errno
import json
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from place import ROOT

from tsuzuri.errors import ConfigError, FormatError, InputError, MissingError
from tsuzuri.text import fast, kinds
from tsuzuri.text.bytelevel import visible
from tsuzuri.text.split import split

STORY = (ROOT / "tests" / "data" / "ryoriten.txt").read_text(encoding="utf-8")
TEXTS = [line for line in STORY.splitlines() if line]
ODD = [
    "🧑🏽‍🚀👨‍👩‍👧‍👦",
    "か\u3099は\u309ae\u0301",
    "\ud7ff\ue000\U0010ffff\x00",
    "한국어 עברית",
    " \n\t\u3000\r\n ",
    "▁Ġ<0xE3>",
    "あ" * 3000,
]
SIZE = 400


@pytest.fixture(scope="module", params=list(kinds.KINDS))
def tokenizer(request: pytest.FixtureRequest) -> fast.FastTokenizer:
    return fast.train(request.param, TEXTS, SIZE)


@pytest.fixture
def saved(tokenizer: fast.FastTokenizer, tmp_path: Path) -> Path:
    tokenizer.save(tmp_path)
    return tmp_path


# ── text to ids and back


@settings(deadline=None)
@given(text=st.text() | st.text("今日のハレ word12１。!🍣 \n\u3099<|im_end|>"))
def test_any_text_comes_back(tokenizer: fast.FastTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    assert not set(ids) & set(tokenizer.special.values())


@pytest.mark.parametrize("text", ODD)
def test_odd_text_comes_back(tokenizer: fast.FastTokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_every_byte_is_an_id(tokenizer: fast.FastTokenizer) -> None:
    known = [tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size)]
    assert {bytes([byte]) for byte in range(256)} <= set(known)
    assert len(set(known)) == tokenizer.vocab_size == SIZE


def test_many_at_once_are_as_one_by_one(tokenizer: fast.FastTokenizer) -> None:
    assert tokenizer.encode_batch(TEXTS + ODD) == [tokenizer.encode(text) for text in TEXTS + ODD]
    assert tokenizer.encode_batch([]) == []


def test_special_tokens_are_the_first_ids_and_in_a_text_they_are_text(tokenizer: fast.FastTokenizer) -> None:
    assert dict(tokenizer.special) == {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "<|pad|>": 3}
    for token, id in tokenizer.special.items():
        assert id not in tokenizer.encode(f"前{token}後") + tokenizer.encode_batch([token])[0]
        assert tokenizer.decode([id]) == token


@pytest.mark.parametrize("id", [-1, SIZE])
def test_an_id_that_is_not_there(tokenizer: fast.FastTokenizer, id: int) -> None:
    with pytest.raises(ConfigError, match=f"0 から {SIZE - 1} まで"):
        tokenizer.decode([id])


def test_half_a_surrogate_pair_is_refused(tokenizer: fast.FastTokenizer) -> None:
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_batch(["よい", text])):
        with pytest.raises(InputError, match="2 文字目"):
            encode("あ\udc80")


# ── training


def test_the_same_texts_give_the_same_tokenizer(tokenizer: fast.FastTokenizer, saved: Path) -> None:
    assert {fast.train(tokenizer.kind, iter(TEXTS), SIZE).fingerprint for _ in range(3)} == {tokenizer.fingerprint}
    assert fast.load(saved).fingerprint == tokenizer.fingerprint
    assert fast.train(tokenizer.kind, TEXTS[:-20], SIZE).fingerprint != tokenizer.fingerprint


def test_its_kind_is_known_from_the_file(saved: Path, tokenizer: fast.FastTokenizer, request: pytest.FixtureRequest) -> None:
    assert fast.load(saved).kind == tokenizer.kind == request.node.callspec.params["tokenizer"]


@pytest.mark.parametrize(("size", "words"), [(259, "260 要ります"), (60_000, "この文章から作れるのは"), (10**12, "1,048,576 まで")])
def test_a_vocabulary_that_cannot_be(tokenizer: fast.FastTokenizer, size: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        fast.train(tokenizer.kind, TEXTS, size)


def test_the_smallest_is_bytes_alone_and_needs_no_text(tokenizer: fast.FastTokenizer) -> None:
    found = fast.train(tokenizer.kind, [], 260)
    assert found.decode(found.encode("綴り")) == "綴り"
    assert len(found.encode("綴り")) == 6


def test_an_unknown_kind() -> None:
    with pytest.raises(ConfigError, match="「wordpiece」のこと"):
        fast.train("word_piece", TEXTS, SIZE)


# ── what others read


def test_others_load_it_and_give_the_same_ids(saved: Path, tokenizer: fast.FastTokenizer) -> None:
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(saved)
    library = tokenizers.Tokenizer.from_file(str(saved / fast.FILE))
    for text in [*TEXTS, *ODD]:
        ids = tokenizer.encode(text)
        assert theirs.encode(text, add_special_tokens=False) == theirs.encode(text) == library.encode(text).ids == ids
        assert theirs.decode(ids) == text
    named = (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id, theirs.vocab_size)
    assert named == (0, 2, 3, SIZE)


def test_sentencepiece_style_of_another(tmp_path: Path) -> None:
    """Pieces are text, unknown characters fall back to <0xE7>; a space is put in front, which token by token must stay."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "今", "日", "今日"]
    vocabulary = {piece: id for id, piece in enumerate(pieces)}
    core = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [("今", "日")], unk_token="<unk>", byte_fallback=True))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    core.decoder = tokenizers.decoders.Sequence([tokenizers.decoders.ByteFallback(), tokenizers.decoders.Metaspace()])
    core.save(str(tmp_path / fast.FILE))
    found = fast.load(tmp_path)
    assert found.decode(found.encode("今日綴")) == " 今日綴"
    assert found.token_bytes(vocabulary["今日"]) == "今日".encode()


# ── files that cannot be used


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none", tmp_path / "none.json"):
        with pytest.raises(MissingError):
            fast.load(place)


def test_a_file_that_may_not_be_read_is_not_called_damaged(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(self: Path, **_: object) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "read_text", forbidden)  # root is refused nothing, so it has to be said here
    with pytest.raises(MissingError, match=r"Permission denied[\s\S]*権限"):
        fast.load(saved)


def test_a_file_too_large(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "MAX_FILE", (saved / fast.FILE).stat().st_size)
    fast.load(saved)
    monkeypatch.setattr(fast, "MAX_FILE", fast.MAX_FILE - 1)
    with pytest.raises(FormatError):
        fast.load(saved)


def test_a_prefix_the_library_does_not_survive(tmp_path: Path) -> None:
    """It cuts the merges through their characters, and the process ends."""
    fast.train("bpe", TEXTS, SIZE).save(tmp_path)
    state = json.loads((tmp_path / fast.FILE).read_text(encoding="utf-8"))
    state["model"]["continuing_subword_prefix"] = "x"
    (tmp_path / fast.FILE).write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(FormatError):
        fast.load(tmp_path)


def test_a_byte_that_lost_its_piece(saved: Path) -> None:
    """Of no text we would try, but of some text: it would be left out of the ids without a word."""
    state = json.loads((saved / fast.FILE).read_text(encoding="utf-8"))
    vocabulary, lost = state["model"]["vocab"], visible("\0")
    if isinstance(vocabulary, dict):
        vocabulary[lost * 2] = vocabulary.pop(lost)
    else:
        vocabulary[:] = [[lost * 2, score] if piece == lost else [piece, score] for piece, score in vocabulary]
    (saved / fast.FILE).write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(FormatError):
        fast.load(saved)


def refused_or_lossless(place: Path) -> bool:
    """Whether it was refused. What is read in spite of the damage must still give the text back."""
    try:
        found = fast.load(place)
    except FormatError:
        return True
    except ConfigError:  # the decoder, named
        return True
    text = "今日は word 12 <|pad|>\n" + STORY[:200]
    assert found.decode(found.encode(text)) == text
    return False


def test_bytes_changed_or_cut_off(saved: Path) -> None:
    whole = (saved / fast.FILE).read_bytes()
    refused = 0
    for seed in range(60):
        choice = random.Random(seed)
        data = bytearray(whole)
        if seed % 3:
            data[choice.randrange(len(data))] = choice.randrange(256)
        else:
            del data[choice.randrange(len(data)) :]
        (saved / fast.FILE).write_bytes(data)
        refused += refused_or_lossless(saved)
    assert refused > 30


VALUES: list[Any] = [None, -1, 0, 1 << 40, 1.5, "", "x", [], {}, True, [["a", "b"]], {"type": "x"}, "\ud800"]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value but the whole."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield (*path, key)
        yield from places(part, (*path, key))


def test_values_changed_or_gone(saved: Path) -> None:
    whole = (saved / fast.FILE).read_text(encoding="utf-8")
    everywhere = list(places(json.loads(whole)))
    shallow = [path for path in everywhere if len(path) < 3] * 3
    refused = 0
    for seed in range(150):
        choice = random.Random(seed)
        state = json.loads(whole)
        *path, last = choice.choice(shallow if seed % 2 else everywhere)
        inside = state
        for key in path:
            inside = inside[key]
        if seed % 5:
            inside[last] = choice.choice(VALUES)
        else:
            del inside[last]
        (saved / fast.FILE).write_text(json.dumps(state), encoding="utf-8")
        refused += refused_or_lossless(saved)
    assert refused > 75


def test_remembered_pieces_change_nothing_and_stay_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same ids as the library's whole way, from four threads at once, while the memory is thrown away again and again."""
    monkeypatch.setattr(fast, "PIECES", 20)
    tokenizer = fast.train("bpe", TEXTS, 600)
    library = tokenizers.Tokenizer.from_str(tokenizer._canonical())
    texts = [*TEXTS, "あ" * 5000, "縁" * 100 + "GPT-4 <|im_end|>"]
    expected = [library.encode(text, add_special_tokens=False).ids for text in texts[:-1]]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: [tokenizer.encode(text) for text in texts], range(4)):
            assert found[:-1] == expected
            assert tokenizer.decode(found[-1]) == texts[-1]
    tokenizer.encode("一")
    assert len(tokenizer._known) <= 20 + max(len(set(split(text))) for text in texts)
    assert max(map(len, tokenizer._known)) <= fast.LONG
