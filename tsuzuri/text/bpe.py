"""Byte pair encoding, plainly: the twin of `fast.train("bpe", …)`, written to be read. Same merges, same ids, slower.

In: texts and a size; then text or ids. Out: merges; then ids or text. It reads no other tokenizer.json than ours.
Training starts from single bytes and joins the pair that stands side by side most often, again and again (Gage 1994;
Sennrich et al. 2016, section 3.2). Encoding replays the joins in the order they were learned. も is the bytes e3 82 82:

>>> tokenizer = train(["すもももももももものうち", "ももたろう"], vocab_size=265)
>>> for (left, right), id in tokenizer.merges.items():
...     print(left, "+", right, "=", id, tokenizer.token_bytes(id).hex(" "), tokenizer.decode([id]))
163 + 228 = 260 e3 82 �
260 + 228 = 261 e3 82 82 も
261 + 261 = 262 e3 82 82 e3 82 82 もも
163 + 227 = 263 e3 81 �
262 + 262 = 264 e3 82 82 e3 82 82 e3 82 82 e3 82 82 もももも
>>> tokenizer.encode("もものき")
[262, 263, 110, 263, 239]
>>> tokenizer.decode([262, 263, 110, 263, 239])
'もものき'

Ids 0 … 3 are the special tokens, 4 … 259 the bytes.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

from tsuzuri.errors import FormatError, Words
from tsuzuri.text.bytelevel import alphabet, utf8
from tsuzuri.text.fast import SPECIAL
from tsuzuri.text.split import PATTERN, split
from tsuzuri.text.stream import Stream

Pair: TypeAlias = tuple[int, int]  # two ids that stand side by side

# Ids: the special tokens, the 256 bytes in the order of their visible characters, then one for each merge.
BYTES = [bytes([byte]) for byte, _ in sorted(alphabet().items(), key=lambda item: item[1])]
FIRST = len(SPECIAL)


class Bpe:
    """`tsuzuri.types.Tokenizer` from a list of pairs, in the order they are merged. A special token in a text is text."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self.special: Mapping[str, int] = {token: id for id, token in enumerate(SPECIAL)}
        self.merges: dict[Pair, int] = {}  # pair -> the id it becomes; a lower id was learned earlier
        self._bytes = [token.encode() for token in SPECIAL] + BYTES
        for left, right in pairs:
            self.merges[left, right] = len(self._bytes)
            self._bytes.append(self._bytes[left] + self._bytes[right])
        self._ids = {piece: id for id, piece in enumerate(BYTES, start=FIRST)}

    @property
    def vocab_size(self) -> int:
        return len(self._bytes)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, nothing added, nothing lost. Raises InputError for half a surrogate pair."""
        utf8(text)
        return [id for piece in split(text) for id in self._merged(piece)]

    def _merged(self, piece: str) -> list[int]:
        """The earliest merge that applies, everywhere it does, until none applies.

        A pair with a merged id in it was learned after that merge, so no earlier one turns up later. Time: the length
        of the piece times the number of different merges in it, which only a long run of one script feels.
        """
        ids = [self._ids[bytes([byte])] for byte in piece.encode()]
        while found := [pair for pair in pairwise(ids) if pair in self.merges]:
            first = min(found, key=self.merges.__getitem__)
            ids = joined(ids, first, self.merges[first])
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special ones as they are written. Bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self.token_bytes(id) for id in ids).decode("utf-8", errors="replace")

    def stream(self) -> Stream:
        """A decoder for ids that arrive one at a time."""
        return Stream(self.token_bytes)

    def token_bytes(self, id: int) -> bytes:
        """The bytes one id stands for."""
        assert 0 <= id < len(self._bytes), f"{id} is not in the vocabulary"
        return self._bytes[id]

    def state(self) -> dict[str, Any]:
        """The content of a tokenizer.json, as `fast` writes it: how to cut, the vocabulary, the merges, how to go back."""
        names = [*SPECIAL, *(_visible(piece) for piece in self._bytes[FIRST:])]
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        level = {"type": "ByteLevel", "trim_offsets": True}
        cut = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}
        to_bytes = {**level, "add_prefix_space": False, "use_regex": False}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": id, "content": token, **flags} for token, id in self.special.items()],
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [cut, to_bytes]},
            "post_processor": None,
            "decoder": {**level, "add_prefix_space": True, "use_regex": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": {name: id for id, name in enumerate(names)},
                "merges": [[names[left], names[right]] for left, right in self.merges],
            },
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Bpe:
        """The twin of a tokenizer.json that `fast.train("bpe", …)` made. Raises FormatError for any other."""
        try:
            merges = [(left, right) for left, right in state["model"]["merges"]]
            names = [*SPECIAL, *map(_visible, BYTES), *(left + right for left, right in merges)]
            ids = {name: id for id, name in enumerate(names)}
            found = cls((ids[left], ids[right]) for left, right in merges)
        except (KeyError, TypeError, ValueError, IndexError):
            found = None
        if found is None or found.state() != state:
            raise FormatError(
                Words("tokenizer.json を BPE として読もうとしました。", "Reading a tokenizer.json as BPE."),
                found=Words("tsuzuri が作った BPE の形ではありません。", "It is not a BPE that tsuzuri made."),
                todo=Words("tsuzuri.text.fast.load で読んでください。", "Read it with tsuzuri.text.fast.load."),
            )
        return found


def train(texts: Iterable[str], vocab_size: int) -> Bpe:
    """Joins the pair that is most frequent, ties to the lower ids, until there are `vocab_size` ids or nothing is left to join."""
    counted = Counter(piece for text in texts for piece in split(text))
    plain = Bpe([])
    pieces = [plain.encode(piece) for piece in counted]
    return Bpe(merges(pieces, list(counted.values()), plain.vocab_size, vocab_size))


def merges(pieces: list[list[int]], times: Sequence[int], first: int, vocab_size: int) -> list[Pair]:
    """The pairs to join, in order; joined ids begin at `first`. `pieces`: ids of each different piece; `times`: how often it
    stands in the text. The pieces are joined in place."""
    counts: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)  # pair -> the pieces it was seen in
    for index, ids in enumerate(pieces):
        for pair in pairwise(ids):
            counts[pair] += times[index]
            where[pair].add(index)
    queue = [(-count, pair) for pair, count in counts.items()]  # a count here may be too high by now, never too low
    heapq.heapify(queue)
    found: list[Pair] = []
    while queue and (id := first + len(found)) < vocab_size:
        negative, pair = heapq.heappop(queue)
        if -negative != counts[pair]:
            if counts[pair]:
                heapq.heappush(queue, (-counts[pair], pair))
            continue
        found.append(pair)
        fresh = set()
        for index in where.pop(pair):
            before, after = pieces[index], joined(pieces[index], pair, id)
            pieces[index] = after
            for old in pairwise(before):
                counts[old] -= times[index]
            for new in pairwise(after):
                counts[new] += times[index]
                if id in new:  # only these are new, or stand in a piece for the first time
                    where[new].add(index)
                    fresh.add(new)
        for new in fresh:
            heapq.heappush(queue, (-counts[new], new))
    return found


def joined(ids: list[int], pair: Pair, id: int) -> list[int]:
    """`id` wherever `pair` stands, from the left.

    >>> joined([7, 7, 7, 1, 7, 7], (7, 7), 9)
    [9, 7, 1, 9]
    """
    found, place = [], 0
    while place < len(ids):
        both = (ids[place], ids[place + 1]) == pair if place + 1 < len(ids) else False
        found.append(id if both else ids[place])
        place += 2 if both else 1
    return found


def _visible(piece: bytes) -> str:
    table = alphabet()
    return "".join(table[byte] for byte in piece)
