"""Tokenizers on Japanese text: training and encoding against `tokenizers` and `sentencepiece`, in time, memory and tokens.

In: the sample text (government, law, literature, technical). Out: `results/tokenizer.json` and a table: seconds, ratios
round by round (above 1: ours is faster), peak memory of training in a process of its own, characters a token on text
that none was trained on. Before anything is timed the plain twin, ours and the library itself must give the same ids on
the whole text, and text must come back from every tokenizer; otherwise nothing is written.

    python benchmarks/tokenizer.py                                      seven rounds of everything
    python benchmarks/tokenizer.py --rounds 1 --bytes 1000000 --out /tmp/trial     a trial
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import _protocol
import sentencepiece
import tokenizers
from _protocol import ROOT, said
from tokenizers import decoders, models, pre_tokenizers, trainers

from tsuzuri.text import bpe, compare, fast, kinds
from tsuzuri.text.corpus.read import read
from tsuzuri.text.split import split

VOCABULARY = 16_000
BATCH = 1000  # texts handed to the library at once, as its documentation advises


# ── what is trained. Each takes texts and a directory, and leaves a file there


def ours(kind: str, texts: list[str], size: int, out: Path) -> None:
    fast.train(kind, texts, size).save(out)


def library_same_cut(texts: list[str], size: int, out: Path) -> None:
    """The library on its own, as fast as it goes, told to do exactly what ours does."""
    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = kinds.by_script(), decoders.ByteLevel()
    _library(core, texts, size, out)


def library_own_cut(texts: list[str], size: int, out: Path) -> None:
    """Byte-level BPE as its documentation sets it up: cut by GPT-2's pattern."""
    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    _library(core, texts, size, out)


def _library(core: tokenizers.Tokenizer, texts: list[str], size: int, out: Path) -> None:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(fast.SPECIAL), initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator((texts[start : start + BATCH] for start in range(0, len(texts), BATCH)), trainer, length=len(texts))
    core.save(str(out / fast.FILE))


def sentence_pieces(kind: str, texts: list[str], size: int, out: Path) -> None:
    """Lossless, with bytes for rare characters, on all cores; coverage as its documentation advises for Japanese."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in texts for line in text.split("\n") if line),
        model_prefix=str(out / "sp"),
        model_type=kind,
        vocab_size=size,
        character_coverage=0.9995,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        max_sentence_length=1 << 20,
        num_threads=_cores(),
        minloglevel=2,
    )


TRAINERS: dict[str, Callable[[list[str], int, Path], None]] = {
    "tsuzuri bpe": partial(ours, "bpe"),
    "tsuzuri unigram": partial(ours, "unigram"),
    "tokenizers bpe, same cut": library_same_cut,
    "tokenizers bpe, its own cut": library_own_cut,
    "sentencepiece bpe": partial(sentence_pieces, "bpe"),
    "sentencepiece unigram": partial(sentence_pieces, "unigram"),
}
TRAINED = (  # peer, ours
    ("tokenizers bpe, same cut", "tsuzuri bpe"),
    ("tokenizers bpe, its own cut", "tsuzuri bpe"),
    ("sentencepiece bpe", "tsuzuri bpe"),
    ("sentencepiece unigram", "tsuzuri unigram"),
)


# ── what is encoded. Each opens a trained directory and gives a function from texts to ids

Encode = Callable[[Sequence[str]], list[list[int]]]


def one_by_one(place: Path) -> Encode:
    tokenizer = fast.load(place)
    return lambda texts: [tokenizer.encode(text) for text in texts]


def all_at_once(place: Path) -> Encode:
    return fast.load(place).encode_batch


def library_one_by_one(place: Path) -> Encode:
    core = _opened(place)
    return lambda texts: [core.encode(text, add_special_tokens=False).ids for text in texts]


def library_all_at_once(place: Path) -> Encode:
    core = _opened(place)
    return lambda texts: [found.ids for found in core.encode_batch_fast(list(texts), add_special_tokens=False)]


def _opened(place: Path) -> tokenizers.Tokenizer:
    core = tokenizers.Tokenizer.from_file(str(place / fast.FILE))
    core.encode_special_tokens = True
    return core


def pieces_all_at_once(place: Path) -> Encode:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(place / "sp.model"))
    return lambda texts: list(processor.encode(list(texts), out_type=int, num_threads=_cores()))


ENCODED: tuple[tuple[str, tuple[str, Callable[[Path], Encode]], tuple[str, Callable[[Path], Encode]]], ...] = (
    ("one text at a time", ("tokenizers bpe, same cut", library_one_by_one), ("tsuzuri bpe", one_by_one)),
    ("all texts at once", ("tokenizers bpe, same cut", library_all_at_once), ("tsuzuri bpe", all_at_once)),
    ("all texts at once", ("tokenizers bpe, its own cut", library_all_at_once), ("tsuzuri bpe", all_at_once)),
    ("all texts at once", ("sentencepiece bpe", pieces_all_at_once), ("tsuzuri bpe", all_at_once)),
    ("all texts at once", ("sentencepiece unigram", pieces_all_at_once), ("tsuzuri unigram", all_at_once)),
)


# ── equality first


def check(places: dict[str, Path], texts: list[str]) -> dict[str, Any]:
    """Raises AssertionError where ids differ or text does not come back. Returns what was checked."""
    mine, library = fast.load(places["tsuzuri bpe"]), _opened(places["tokenizers bpe, same cut"])
    state = json.loads((places["tsuzuri bpe"] / fast.FILE).read_text(encoding="utf-8"))
    assert state == json.loads((places["tokenizers bpe, same cut"] / fast.FILE).read_text(encoding="utf-8")), "other merges"
    twin = bpe.Bpe.from_state(state)
    known: dict[str, list[int]] = {}
    tokens = 0
    for text, many in zip(texts, mine.encode_batch(texts), strict=True):
        for piece in split(text):
            if piece not in known:
                known[piece] = twin.encode(piece)
        plain = [id for piece in split(text) for id in known[piece]]
        assert plain == many == mine.encode(text) == library.encode(text, add_special_tokens=False).ids, "other ids"
        assert mine.decode(many) == text, "the text does not come back"
        tokens += len(many)
    other = {name: _lossless(name, place, texts) for name, place in places.items()}
    assert all(other[name] for name in places if name.startswith("tsuzuri")), "the text does not come back"
    return {
        "texts": len(texts),
        "tokens": tokens,
        "identical_ids": ["plain twin", "ours", "ours in a batch", "tokenizers"],
        "lossless": other,
    }


def _lossless(name: str, place: Path, texts: list[str]) -> bool:
    if name.startswith("sentencepiece"):
        processor = sentencepiece.SentencePieceProcessor(model_file=str(place / "sp.model"))
        return all(processor.decode(processor.encode(text)) == text for text in texts)
    tokenizer = fast.load(place)
    return all(tokenizer.decode(ids) == text for ids, text in zip(tokenizer.encode_batch(texts), texts, strict=True))


# ── the measurements


def training(data: Path, size: int, count: int) -> list[dict[str, Any]]:
    """Seconds of training alone, and peak memory of its process less what it had before; reading the text is neither."""
    rows = []
    for peer, mine in TRAINED:
        memory: dict[str, list[int]] = {peer: [], mine: []}

        def once(name: str, memory: dict[str, list[int]] = memory) -> float:
            found = _protocol.peak([str(Path(__file__)), "--train", name, "--data", str(data), "--vocab-size", str(size)])
            memory[name].append(found["peak_bytes"] - found["printed"]["before_bytes"])
            return float(found["printed"]["seconds"])

        theirs, us = _protocol.rounds(partial(once, peer), partial(once, mine), count)
        bytes_of = {"peer_bytes": memory[peer], "ours_bytes": memory[mine]}
        rows.append({**_row("train", peer, mine, theirs, us), **bytes_of, "memory": _protocol.ratio(memory[peer], memory[mine])})
        shown = f"{statistics.median(memory[mine]) / 1e6:.0f} MB against {statistics.median(memory[peer]) / 1e6:.0f} MB"
        print(f"{_shown(rows[-1])}; {shown}", flush=True)
    return rows


def encoding(places: dict[str, Path], texts: list[str], count: int) -> list[dict[str, Any]]:
    """Seconds for all texts by a tokenizer freshly opened each time: no memory of words it has seen."""

    def once(place: Path, opened: Callable[[Path], Encode]) -> float:
        encode = opened(place)
        start = time.perf_counter()
        encode(texts)
        return time.perf_counter() - start

    rows = []
    for how, (peer, theirs), (mine, us) in ENCODED:
        samples = _protocol.rounds(partial(once, places[peer], theirs), partial(once, places[mine], us), count)
        rows.append(_row(f"encode, {how}", peer, mine, *samples))
        print(_shown(rows[-1]), flush=True)
    return rows


def _row(work: str, peer: str, mine: str, theirs: list[float], us: list[float]) -> dict[str, Any]:
    return {"work": work, "ours": mine, "peer": peer, "ours_seconds": us, "peer_seconds": theirs, "speed": _protocol.ratio(theirs, us)}


def _shown(row: dict[str, Any]) -> str:
    seconds = f"{statistics.median(row['ours_seconds']):.2f} s against {statistics.median(row['peer_seconds']):.2f} s"
    return f"{row['work']}: {row['ours']} against {row['peer']}: {seconds}, {said(row['speed'])}"


def lengths(places: dict[str, Path], held: list[str]) -> dict[str, float]:
    """Characters a token on held-out text."""
    found = {}
    for name, place in places.items():
        encode = (pieces_all_at_once if name.startswith("sentencepiece") else all_at_once)(place)
        found[name] = sum(map(len, held)) / sum(map(len, encode(held)))
        print(f"{name}: {found[name]:.3f} characters a token", flush=True)
    return found


# ── the run


def main() -> None:
    parser = _protocol.arguments(str(__doc__).partition("\n")[0])
    parser.add_argument("--bytes", type=int, default=8_000_000, help="of each of the two: text to train on, text to encode")
    parser.add_argument("--vocab-size", type=int, default=VOCABULARY)
    parser.add_argument("--train", choices=list(TRAINERS), help="train this one and print the seconds: what each child process does")
    parser.add_argument("--data", type=Path, help="of --train: the texts, one JSON string a line")
    asked = parser.parse_args()
    if asked.train:
        child(asked.train, asked.data, asked.vocab_size)
        return
    documents = list(read([ROOT / "sample" / "pretrain"]))
    train, held = (list(_fair(texts, asked.bytes)) for texts in compare.divide(documents, 0.1))
    whole = list(_fair([document.text for document in documents], asked.bytes))
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "train.jsonl"
        data.write_text("".join(json.dumps(text) + "\n" for text in train), encoding="utf-8")
        places = {name: Path(temporary) / str(number) for number, name in enumerate(TRAINERS)}
        for name, place in places.items():
            place.mkdir()
            TRAINERS[name](train, asked.vocab_size, place)
        record = {
            "trial": asked.rounds < _protocol.ROUNDS,
            "rounds": asked.rounds,
            "vocab_size": asked.vocab_size,
            "bytes": {"train": _size(train), "encode": _size(whole), "held_out": _size(held)},
            "equal": check(places, whole),
            "characters_per_token": lengths(places, held),
            "encode": encoding(places, whole, asked.rounds),
            "train": training(data, asked.vocab_size, asked.rounds),
        }
    print(_protocol.write("tokenizer", record, asked.out))


def child(name: str, data: Path, size: int) -> None:
    """Reads the texts, then trains; prints seconds and the peak memory there was before."""
    texts = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    unit = 1 if sys.platform == "darwin" else 1024
    with tempfile.TemporaryDirectory() as out:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        start = time.perf_counter()
        TRAINERS[name](texts, size, Path(out))
        print(json.dumps({"seconds": time.perf_counter() - start, "before_bytes": before}))


def _fair(texts: Sequence[str], limit: int) -> Iterator[str]:
    """Every n-th text, so that all kinds of text are in it, until there are `limit` bytes."""
    step = max(1, _size(texts) // limit)
    total = 0
    for text in texts[::step]:
        if total >= limit:
            return
        yield text
        total += len(text.encode())


def _size(texts: Sequence[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    main()
