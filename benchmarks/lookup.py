"""What guesses from the text itself are worth: the same greedy tokens with and without them, while part of a text is copied.

In: random weights of the 20 M and 110 M shapes of `decode.py`, in 8 bits on our kernels; Japanese of `sample/` as the prompt, 200 tokens
of it to be written again. Random weights copy nothing: a large number is added to the score of the token to be copied at some share of
the places, and of a token drawn by chance at the others, so that the model's own work is done in full. Out: `results/lookup.json` and a
table: seconds without / with, tokens guessed and taken. The tokens of both are compared before anything is timed. A share of 0 shows what
it costs to look where nothing comes again.

    python benchmarks/lookup.py                                       about five minutes on two cores
    python benchmarks/lookup.py --sizes 20m --rounds 1 --out runs     a trial
"""

from __future__ import annotations

import itertools
import json
import random
import sys
from collections.abc import Iterator
from typing import Any

import _protocol
import torch
import zstandard
from decode import SIZES, THREADS
from torch import Tensor

from tsuzuri.engine.engine import Generation, LocalEngine
from tsuzuri.engine.sampling import Sampling
from tsuzuri.model import compiled
from tsuzuri.model.adapt import quantize
from tsuzuri.model.transformer import Transformer
from tsuzuri.text import fast
from tsuzuri.types import Past

MADE, GUESSES = 200, (4, 8, 16)
SHARES = (1.0, 0.9, 0.7, 0.0)  # of the places where the text is copied
TEXT = _protocol.ROOT / "sample" / "pretrain" / "literature.jsonl.zst"
VOCABULARY = 4096
CHARACTERS = 200_000  # of it, for the tokenizer


class Told:
    """A model whose choice is decided beforehand at some places of a text; everywhere it computes what it would."""

    def __init__(self, model: compiled.Compiled, told: dict[int, int]) -> None:
        """`told`: position of a token -> the one that follows it."""
        self._model, self._told = model, told
        self.vocab_size = model.vocab_size

    def __call__(self, tokens: Tensor, past: Past) -> Tensor:
        return self._raised(self._model(tokens, past), past.positions.tolist())

    def read(self, tokens: Tensor, past: Past) -> Tensor:
        return self._raised(self._model.read(tokens, past)[None], past.positions[-1:].tolist())[0]

    def _raised(self, logits: Tensor, positions: list[int]) -> Tensor:
        for row, position in zip(logits, positions, strict=True):
            if position in self._told:
                row[self._told[position]] += 1000
        return logits


def main() -> None:
    parser = _protocol.arguments(__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="20m,110m", help=f"of {', '.join(SIZES)}")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    found: dict[str, Any] = {}
    for size in options.sizes.split(","):
        found[size] = measured(size, options.rounds)
    record = {"rounds": options.rounds, "trial": options.rounds < _protocol.ROUNDS, "threads": THREADS, "made": MADE, "sizes": found}
    print(_protocol.write("lookup", record, options.out))


def measured(size: str, count: int) -> list[dict[str, Any]]:
    shape = SIZES[size]
    model = Transformer(shape).initialise(0)
    quantize.quantize(model, "q8_0")
    native = compiled.made(model, THREADS)
    if native is None:
        sys.exit("the native library is not there: nothing is timed")
    text = sample()
    ids = fast.train("bpe", [text], VOCABULARY).encode(text)[:MADE]
    rows = []
    print(f"\n{size}: {MADE} tokens copied after {len(ids)} of prompt")
    for share in SHARES:
        numbers = random.Random(1)
        told = {len(ids) - 1 + place: id if numbers.random() < share else numbers.randrange(VOCABULARY) for place, id in enumerate(ids)}
        rows += [one(Told(native, told), ids, share, guesses, count) for guesses in GUESSES]
    return rows


def sample() -> str:
    with zstandard.open(TEXT, "rt", encoding="utf-8") as file:
        lines: Iterator[str] = iter(file)
        return "".join(json.loads(line)["text"] for line in itertools.islice(lines, 200))[:CHARACTERS]


def one(model: Told, prompt: list[int], share: float, guesses: int, count: int) -> dict[str, Any]:
    engines = [LocalEngine(model, (), 512, lookup=lookup) for lookup in (0, guesses)]
    sampling = Sampling(temperature=0, max_tokens=MADE)
    runs: list[Generation] = [engine.stream(prompt, sampling) for engine in engines]
    if [token.id for token in runs[0]] != [token.id for token in runs[1]]:
        sys.exit("the tokens with and without guesses differ: nothing is timed")
    without, guessing = _protocol.rounds(*(_protocol.timed(lambda engine=engine: list(engine.stream(prompt, sampling))) for engine in engines), count)  # fmt: skip
    ratio = _protocol.ratio(without, guessing)
    print(
        f"  copied {share:4.0%}, lookup {guesses:2}: {_protocol.said(ratio)} times as fast; {runs[1].accepted} of {runs[1].offered} taken"
    )
    counts = {"offered": runs[1].offered, "accepted": runs[1].accepted}
    return {"share": share, "lookup": guesses, **counts, "without_seconds": without, "with_seconds": guessing, "ratio": ratio}


if __name__ == "__main__":
    main()
