"""On an accelerator: many requests at once against transformers, and how near a step of training comes to the matrix rate.

In: the Llama shape of decode.py with 110 M parameters and random weights, and for training the shape of recipes/starter.yaml. Out:
`results/accelerator-*.json` and a table. What is compared, in turns within one run:

    serving     64 requests (128 tokens read, 256 written, greedy), in bfloat16: our engine, its steps recorded, against transformers'
                `generate_batch` (continuous batching) and `generate` (one padded batch)
    training    tokens a second, compiled and not, as a share of the measured matrix rate (MFU)

Before anything is timed, both sides must write the same tokens in float32. In bfloat16 random weights often tie, so there the share of
requests with the same first 16 tokens is only told.

    python benchmarks/accelerator.py               about five minutes
    python benchmarks/accelerator.py --rounds 2    a trial
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _protocol
import decode
import numpy as np
import torch
from _protocol import said
from numpy.typing import NDArray
from transformers import GenerationConfig, LlamaForCausalLM
from transformers.utils import logging

from tsuzuri.config import override, read_yaml
from tsuzuri.engine.batch import BatchEngine
from tsuzuri.engine.engine import LocalEngine
from tsuzuri.engine.sampling import Sampling
from tsuzuri.model import weights
from tsuzuri.recipe import recipe
from tsuzuri.recipe.measure import matrix_rate
from tsuzuri.train import loop
from tsuzuri.train.objectives import pretrain
from tsuzuri.train.watch import Metrics, Watch

REQUESTS, READ, WRITTEN, SAME = 64, 128, 256, 16
CUDA = torch.device("cuda")


def main() -> None:
    parser = _protocol.arguments(__doc__.partition("\n")[0])
    parser.add_argument("--what", default="serving,training")
    parser.add_argument("--size", default="110m", help=f"of {', '.join(decode.SIZES)}")
    parser.add_argument(
        "--compiled", action="store_true", help="our steps through torch.compile too: half a minute for each of their sizes"
    )
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no accelerator is here: nothing is measured")
        return
    logging.set_verbosity_error()
    record: dict[str, Any] = {"rounds": options.rounds, "trial": options.rounds < _protocol.ROUNDS}
    for what in options.what.split(","):
        with tempfile.TemporaryDirectory() as place:
            found = training() if what == "training" else serving(options.size, Path(place), options.rounds, options.compiled)
        print(_protocol.write(f"accelerator-{what}", {**record, **found}, options.out))


def prompts(vocabulary: int, seed: int, count: int = REQUESTS) -> list[list[int]]:
    return torch.randint(vocabulary, (count, READ), generator=torch.Generator().manual_seed(seed)).tolist()


def written(batch: BatchEngine, asked: list[list[int]], count: int) -> list[list[int]]:
    sampling = Sampling(temperature=0, max_tokens=count, ignore_eos=True)
    waiting = [batch.stream(ids, sampling) for ids in asked]
    while batch.step():
        pass
    return [[token.id for token in stream] for stream in waiting]


def greedy(count: int) -> GenerationConfig:
    return GenerationConfig(max_new_tokens=count, min_new_tokens=count, do_sample=False, use_cache=True, pad_token_id=0)


def padded(model: Any, asked: list[list[int]], count: int) -> list[list[int]]:
    ids = torch.tensor(asked, device=CUDA)
    found = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=greedy(count))
    return [row[READ:] for row in found.tolist()]


def continuous(model: Any, asked: list[list[int]], count: int) -> list[list[int]]:
    found = model.generate_batch(asked, generation_config=GenerationConfig(max_new_tokens=count, do_sample=False, eos_token_id=-1))
    return [answer.generated_tokens for answer in found.values()]


def serving(size: str, place: Path, count: int, compiled: bool) -> dict[str, Any]:
    shape = decode.SIZES[size]
    decode.random_model(shape, place)
    pages = REQUESTS * -(-(READ + WRITTEN) // 32) + 1

    def ours(kind: torch.dtype, **how: Any) -> BatchEngine:
        model = weights.load(place, dtype=kind).to(CUDA)
        return BatchEngine(LocalEngine(model, (), shape.max_position_embeddings, CUDA), pages, **how)

    def theirs(kind: torch.dtype) -> Any:
        return LlamaForCausalLM.from_pretrained(place, dtype=kind, attn_implementation="sdpa").to(CUDA).eval()

    asked = prompts(shape.vocab_size, 0, 4)
    if written(ours(torch.float32), asked, SAME) != padded(theirs(torch.float32), asked, SAME):
        sys.exit("the tokens differ in float32: nothing is timed")
    engines = {"recorded": ours(torch.bfloat16)}
    if compiled:
        engines["compiled"] = ours(torch.bfloat16, compiled=True)
    peer, seeds = theirs(torch.bfloat16), iter(range(1, 100_000))
    peers = {"generate": padded, "generate_batch": continuous}

    def seconds(work: Any) -> float:
        fresh = prompts(shape.vocab_size, next(seeds))
        torch.cuda.synchronize()
        begun = time.perf_counter()
        found = work(fresh)
        torch.cuda.synchronize()
        if sorted(map(len, found)) != [WRITTEN] * REQUESTS:
            raise RuntimeError(f"not every request was answered in full: {sorted(set(map(len, found)))} of {len(found)}")
        return time.perf_counter() - begun

    rows: dict[str, Any] = {}
    for name, engine in engines.items():
        for peer_name, write in peers.items():

            def mine(engine: BatchEngine = engine) -> float:
                return seconds(lambda fresh: written(engine, fresh, WRITTEN))

            def other(write: Any = write) -> float:
                return seconds(lambda fresh: write(peer, fresh, WRITTEN))

            try:
                mine(), other()
                asked = prompts(shape.vocab_size, 0)
                pairs = zip(written(engine, asked, SAME), write(peer, asked, SAME), strict=True)
                agreement = sum(a == b[:SAME] for a, b in pairs) / REQUESTS
                samples = _protocol.rounds(mine, other, count)
            except Exception as error:  # one of the peers may not run here: that is said, and the other still counts
                rows[f"{name} against {peer_name}"] = {"failed": f"{type(error).__name__}: {error}"[:300]}
                print(f"  {name} against {peer_name}: {type(error).__name__}: {error}"[:300])
                continue
            ratio = _protocol.ratio(samples[1], samples[0])
            speeds = [REQUESTS * WRITTEN / float(np.median(each)) for each in samples]
            rows[f"{name} against {peer_name}"] = {
                "ours_seconds": samples[0], "peer_seconds": samples[1], "tokens_per_second": speeds, "ratio": ratio, "agreement": agreement,
            }  # fmt: skip
            print(f"  {name}: {speeds[0]:,.0f} tok/s, {peer_name} {speeds[1]:,.0f}; × {said(ratio)}; same {SAME} tokens {agreement:.0%}")
    return {"size": size, "requests": REQUESTS, "read": READ, "written": WRITTEN, "pairs": rows}


class Documents:
    """As long as documents are, of random ids."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary
        self.lengths = np.random.default_rng(0).integers(300, 6000, 4000)

    def document(self, index: int) -> NDArray[np.int64]:
        return np.random.default_rng(index).integers(2, self.vocabulary, self.lengths[index])


class Seen(Watch):
    def __init__(self) -> None:
        self.metrics: list[Metrics] = []

    def step(self, metrics: Metrics, steps: int) -> None:
        self.metrics.append(metrics)


def training(steps: int = 12, first: int = 4) -> dict[str, Any]:
    """The middle step of those after `first`; the seconds of the first one, which compiles."""
    made = recipe.resolve(override(read_yaml(_protocol.ROOT / "recipes/starter.yaml"), []))
    vocabulary, told = made.sections["tokenizer"].vocab_size, made.sections["pretrain"]
    rate = matrix_rate(CUDA, "bfloat16")
    objective = pretrain.Objective(pretrain.Settings(told.length), Documents(vocabulary), 1)
    rows: dict[str, Any] = {}
    for compiled in (True, False):
        shape = told.model.shape(vocabulary, told.length)
        model = weights.build(weights.decoder(told.model.family), shape).initialise(1).to(CUDA)
        settings = loop.LoopSettings(
            steps=steps, batch=told.batch, micro_batch=told.micro_batch, compiled=compiled, precision="bfloat16", checkpoint_every=0,
            learning_rate=told.learning_rate,
        )  # fmt: skip
        seen = Seen()
        with tempfile.TemporaryDirectory() as place:
            loop.train(model, objective, settings, Path(place), recipe={}, family=told.model.family, matrix_rate=rate, watch=seen)
        each = [metrics.tokens_per_second for metrics in seen.metrics[first:]]
        mfu = float(np.median([metrics.mfu or 0 for metrics in seen.metrics[first:]]))
        kind = "compiled" if compiled else "plain"
        parameters = sum(weight.numel() for weight in model.parameters())
        rows[kind] = {
            "tokens_per_second": each,
            "mfu": mfu,
            "first_seconds": seen.metrics[0].seconds,
            "losses": [m.loss for m in seen.metrics],
        }
        print(
            f"  training {parameters / 1e6:.1f} M, {kind}: {np.median(each):,.0f} tok/s, MFU {mfu:.1%}; first step {seen.metrics[0].seconds:.1f} s"
        )
        del model
        gc.collect()
        torch.cuda.empty_cache()
    return {"parameters": parameters, "batch": told.batch, "length": told.length, "matrix_rate": rate, "rows": rows}


if __name__ == "__main__":
    main()
