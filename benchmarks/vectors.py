"""Word vectors on Japanese text: how fast they are trained, and what they are worth as a sentence embedder.

In: a folder of data with `pretrain/` (zstd JSONL) and `eval/` (JSTS of JGLUE, passages and questions). Out: `results/vectors.json`:
  speed      words of text a second, skip-gram with five negatives, one thread, against gensim where a Python that has it is named:
             the same ids, the same settings, in seconds of the processor and of the clock, alternating
  quality    Spearman's ρ on JSTS, and how often the right passage is the nearest (R@1), with 95 % intervals (bootstrap over pairs
             and over questions); beside random vectors for the same words, and the cosine of character bigrams

    python benchmarks/vectors.py --data DATA --gensim PYTHON
    python benchmarks/vectors.py --data DATA --parts quality --bytes 3000000 --questions 100 --out /tmp/trial
"""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import _protocol
import numpy as np
import torch
from numpy.typing import NDArray

from tsuzuri.errors import InputError
from tsuzuri.model.vectors import Vectors
from tsuzuri.text import fast
from tsuzuri.text.corpus.read import read
from tsuzuri.text.words import Cut, cutter, folded
from tsuzuri.train.vectors import lines, word2vec
from tsuzuri.train.vectors.fit import VectorSettings, fit
from tsuzuri.train.vectors.lines import Lines

TEXTS = {
    "wikipedia_kyoto": None,
    "wikipedia_jaquad_train": None,
    "gov_ict_whitepaper": 5_000_000,
    "aozora_modern-1of4": 10_000_000,
}  # bytes
VOCABULARY = 16_000
DRAWS = 2000  # of the bootstrap
RUNS: tuple[dict[str, Any], ...] = (  # what is compared: settings of training, by seed
    {"method": "skip-gram", "seed": 1},
    {"method": "skip-gram", "seed": 2},
    {"method": "cbow", "seed": 1},
    {"method": "glove", "seed": 1},
)

Embed = Callable[[str], NDArray[Any]]


def texts(data: Path, limit: int | None) -> Iterator[str]:
    for name, most in TEXTS.items():
        total = 0
        for document in read([data / "pretrain" / f"{name}.jsonl.zst"]):
            yield document.text
            total += len(document.text.encode())
            if total >= min(most or math.inf, limit or math.inf):
                break


# ── quality


def ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """1 … N, equal values sharing the mean of their places."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def interval(score: Callable[[NDArray[np.int64]], float], count: int, seed: int = 0) -> list[float]:
    """The middle 95 % of a score over items drawn with replacement."""
    random = np.random.default_rng(seed)
    found = [score(random.integers(0, count, count)) for _ in range(DRAWS)]
    return [float(value) for value in np.quantile(found, [0.025, 0.975])]


class Task:
    """Pairs of sentences with a human score; questions, each with its passage."""

    def __init__(self, data: Path, questions: int) -> None:
        def rows(path: str) -> list[dict[str, Any]]:
            return [json.loads(line) for line in (data / "eval" / path).read_text(encoding="utf-8").splitlines()]

        self.pairs = rows("jglue/jsts-v1.3/valid-v1.3.json")
        self.human = np.array([row["label"] for row in self.pairs])
        passages = rows("retrieval_ja/corpus.jsonl")
        every = rows("retrieval_ja/queries.jsonl")
        self.questions = every[:: max(1, len(every) // questions)][:questions]
        self.passages = [row["text"] for row in passages]
        places = {row["id"]: number for number, row in enumerate(passages)}
        self.right = np.array([places[row["passage_id"]] for row in self.questions])

    def of_vectors(self, embed: Embed) -> dict[str, Any]:
        cosines = np.array([embed(row["sentence1"]) @ embed(row["sentence2"]) for row in self.pairs])
        passages = np.stack([embed(text) for text in self.passages])  # (P, D)
        asked = np.stack([embed(row["query"]) for row in self.questions])  # (Q, D)
        return self.scored(cosines, (asked @ passages.T).argmax(1))

    def of_bigrams(self) -> dict[str, Any]:
        """No training: the cosine of counts of character bigrams."""
        cosines = np.array([cosine(bigrams(row["sentence1"]), bigrams(row["sentence2"])) for row in self.pairs])
        passages = [bigrams(text) for text in self.passages]
        nearest = [int(np.argmax([cosine(bigrams(row["query"]), other) for other in passages])) for row in self.questions]
        return self.scored(cosines, np.array(nearest))

    def scored(self, cosines: NDArray[np.float64], nearest: NDArray[np.int64]) -> dict[str, Any]:
        hits = (nearest == self.right).astype(float)
        return {
            "jsts": spearman(cosines, self.human),
            "jsts_interval": interval(lambda drawn: spearman(cosines[drawn], self.human[drawn]), len(self.human)),
            "recall_at_1": float(hits.mean()),
            "recall_at_1_interval": interval(lambda drawn: float(hits[drawn].mean()), len(hits)),
            "cosines": [round(float(value), 4) for value in cosines],
            "hits": [int(value) for value in hits],
        }


def bigrams(text: str) -> Counter[str]:
    letters = [c for c in folded(text) if c.isalnum()]
    return Counter(map("".join, pairwise(letters)))


def cosine(one: Counter[str], other: Counter[str]) -> float:
    both = sum(count * other[pair] for pair, count in one.items() if pair in other)
    return both / math.sqrt((sum(c * c for c in one.values()) * sum(c * c for c in other.values())) or 1)


def forgiving(vectors: Vectors) -> Embed:
    """`embed`, and nothing for a text without one known word."""

    def embed(text: str) -> NDArray[Any]:
        try:
            return vectors.embed(text)
        except InputError:
            return np.zeros(vectors.matrix.shape[1])

    return embed


def less(one: dict[str, Any], other: dict[str, Any], human: NDArray[np.float64]) -> dict[str, Any]:
    """The difference of two on the same pairs and questions, with its interval."""
    a, b = np.array(one["cosines"]), np.array(other["cosines"])
    hits = np.array(one["hits"], float) - np.array(other["hits"], float)
    return {
        "jsts": one["jsts"] - other["jsts"],
        "jsts_interval": interval(lambda drawn: spearman(a[drawn], human[drawn]) - spearman(b[drawn], human[drawn]), len(human)),
        "recall_at_1": float(hits.mean()),
        "recall_at_1_interval": interval(lambda drawn: float(hits[drawn].mean()), len(hits)),
    }


def quality(data: Path, place: Path, cut: Cut, text: Lines, asked: Any) -> Iterator[dict[str, Any]]:
    """What is known so far, after each row: a long run that is stopped has shown something."""
    task = Task(data, asked.questions)
    random = np.random.default_rng(0)
    plain = random.standard_normal((len(text.words), asked.vector_size)).astype(np.float32)
    found = {"character bigrams": task.of_bigrams()}
    found["random vectors"] = task.of_vectors(forgiving(Vectors(text.words, plain, text.counts, cut)))
    differences: dict[str, Any] = {}
    for run in RUNS[: asked.runs]:
        name = f"{run['method']}, seed {run['seed']}"
        epochs = asked.epochs if run["method"] != "glove" else None
        settings = VectorSettings(vector_size=asked.vector_size, epochs=epochs, **run)
        begun = time.process_time()
        outcome = fit(text, settings, place / name)
        spent = time.process_time() - begun
        vectors = Vectors(text.words, outcome.vectors.numpy(), text.counts, cut)
        times = {"seconds": outcome.seconds, "processor_seconds": spent, "epochs": settings.epochs, "losses": outcome.losses}
        found[name] = {**task.of_vectors(forgiving(vectors)), **times}
        differences[name] = {other: less(found[name], found[other], task.human) for other in ("random vectors", "character bigrams")}
        rows = {name: {key: value for key, value in row.items() if key not in ("cosines", "hits")} for name, row in found.items()}
        for one in rows:
            tell(one, rows)
        counts = {"pairs": len(task.human), "questions": len(task.questions), "passages": len(task.passages)}
        yield {"rows": rows, "less": differences, **counts}


def tell(name: str, found: dict[str, Any]) -> None:
    row = found[name]
    print(f"{name}: JSTS {row['jsts']:.3f} {row['jsts_interval']}, R@1 {row['recall_at_1']:.3f} {row['recall_at_1_interval']}", flush=True)


# ── speed

PEER = """
import json, sys, time, numpy, gensim
stored = numpy.load(sys.argv[1])
ends = numpy.flatnonzero(numpy.diff(stored["line"])) + 1
rows = [row.tolist() for row in numpy.split(stored["ids"], ends)]
model = gensim.models.Word2Vec(sg=1, hs=0, negative=5, window=5, vector_size=int(sys.argv[2]), sample=1e-4, min_count=1, workers=1, seed=1)
model.build_vocab(rows)
cpu, clock = time.process_time(), time.perf_counter()
model.train(rows, total_examples=len(rows), epochs=1)
print(json.dumps({"processor": time.process_time() - cpu, "clock": time.perf_counter() - clock, "version": gensim.__version__}))
"""


def speed(text: Lines, place: Path, asked: Any) -> dict[str, Any]:
    """The first words of the text, read once by one thread of each."""
    few = text.ids[: asked.speed_words]
    part = Lines(text.words, np.maximum(1, np.bincount(few, minlength=len(text.words))), few, text.line[: len(few)], 0)
    np.savez(place / "ids.npz", ids=part.ids, line=part.line)
    samples: dict[str, list[float]] = {"ours": [], "gensim": [], "ours_clock": [], "gensim_clock": []}

    def ours() -> float:
        torch.set_num_threads(1)
        inner, outer = word2vec.initial(len(part.words), asked.speed_size, 1)
        cpu, clock = time.process_time(), time.perf_counter()
        for number, batch in enumerate(word2vec.Epoch(part, 5, 1e-4, np.random.default_rng(1))):
            word2vec.step("skip-gram", inner, outer, batch, 5, 0.025, measure=number % 100 == 0)
        samples["ours_clock"].append(len(few) / (time.perf_counter() - clock))
        samples["ours"].append(len(few) / (time.process_time() - cpu))
        return samples["ours"][-1]

    def theirs() -> float:
        command = [asked.gensim, "-c", PEER, str(place / "ids.npz"), str(asked.speed_size)]
        done = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        samples["gensim_clock"].append(len(few) / done["clock"])
        samples["gensim"].append(len(few) / done["processor"])
        record["gensim"] = done["version"]
        return samples["gensim"][-1]

    record: dict[str, Any] = {"words": len(few), "vector_size": asked.speed_size, "samples": samples}
    ours()
    for rows in samples.values():
        rows.clear()
    if asked.gensim:
        _protocol.rounds(ours, theirs, asked.rounds)
        record["ratio"] = _protocol.ratio(samples["ours"], samples["gensim"])
    else:
        for _ in range(asked.rounds):
            ours()
    record["words_per_processor_second"] = float(np.median(samples["ours"]))
    print(f"{record['words_per_processor_second']:,.0f} words a second of one processor; against gensim {record.get('ratio')}", flush=True)
    return record


def main() -> None:
    parser = _protocol.arguments(str(__doc__).partition("\n")[0])
    parser.add_argument("--data", type=Path, default=_protocol.ROOT.parent / "shared" / "data", help="with pretrain/ and eval/")
    parser.add_argument("--parts", default="speed,quality")
    parser.add_argument("--bytes", type=int, help="of each source, at most")
    parser.add_argument("--vector-size", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=3, help="of Word2Vec; GloVe has its own")
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=len(RUNS))
    parser.add_argument("--speed-words", type=int, default=1_000_000)
    parser.add_argument("--speed-size", type=int, default=100)
    parser.add_argument("--gensim", help="a Python that has gensim")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        tokenizer = fast.train("bpe", texts(asked.data, asked.bytes), VOCABULARY)
        tokenizer.save(place)
        cut = cutter("token", place)
        text = lines.read(texts(asked.data, asked.bytes), cut)
        print(f"{len(text):,} words, a vocabulary of {len(text.words):,}", flush=True)
        record: dict[str, Any] = {
            "trial": asked.rounds < _protocol.ROUNDS or bool(asked.bytes),
            "words": len(text),
            "vocab_size": len(text.words),
            "vector_size": asked.vector_size,
            "texts": TEXTS,
        }
        if "speed" in asked.parts:
            record["speed"] = speed(text, place, asked)
        for record["quality"] in quality(asked.data, place, cut, text, asked) if "quality" in asked.parts else ():
            _protocol.write("vectors", record, asked.out)
    print(_protocol.write("vectors", record, asked.out))


if __name__ == "__main__":
    main()
