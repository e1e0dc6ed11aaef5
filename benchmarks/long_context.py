"""A text of 100,000 tokens through the engine's past: time for the next tokens and memory of what is kept, as the text grows.

In: small models with random weights, one for each way to go far (rotary scalings, windows, a recurrent state), and one without.
Out: `results/long_context.json`; `docs/pictures.py` draws it. At each mark the next block of 128 tokens is read and 16 tokens are
decoded one by one; the way of a text does not depend on what it says, so the ids are random. Bytes are those of the past.

    python benchmarks/long_context.py                    about ten minutes on two cores
    python benchmarks/long_context.py --tokens 10000 --out …  a trial
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import _protocol
import torch

from tsuzuri.engine.cache import Cached
from tsuzuri.engine.engine import BLOCK
from tsuzuri.model.families import mamba2
from tsuzuri.model.parts.mamba2 import StateSpace
from tsuzuri.model.parts.rotary import Scaling
from tsuzuri.model.transformer import Shape, Transformer

TOKENS, MARKS, ONE_BY_ONE = 100_000, 20, 16
SMALL: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 131_072,
}
ORIGINAL = 4096
MODELS: dict[str, dict[str, Any]] = {
    "full": {},
    "linear": {"rope_scaling": Scaling(rope_type="linear", factor=32.0)},
    "dynamic": {"rope_scaling": Scaling(rope_type="dynamic", factor=2.0, original_max_position_embeddings=ORIGINAL)},
    "llama3": {
        "rope_scaling": Scaling(
            rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=ORIGINAL
        )
    },
    "yarn": {"rope_scaling": Scaling(rope_type="yarn", factor=32.0, original_max_position_embeddings=ORIGINAL, attention_factor=1.35)},
    "window": {"sliding_window": 1024},
    "window and full": {"layer_types": ("sliding_attention", "full_attention"), "sliding_window": 1024},
    "mamba2": {},
}


def main() -> None:
    parser = _protocol.arguments(__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=TOKENS)
    given = parser.parse_args()
    rows = []
    for name in MODELS:
        row = {"model": name, "marks": measured(built(name), given.tokens)}
        last = row["marks"][-1]
        print(f"{name:16} {last['tokens']:7,d} tokens  {last['bytes'] / 2**20:7.2f} MiB  {last['decode_ms']:7.2f} ms a token", flush=True)
        rows.append(row)
    print(_protocol.write("long_context", {"tokens": given.tokens, "shape": SMALL, "rows": rows}, given.out))


def built(name: str) -> Transformer:
    if name == "mamba2":
        space = StateSpace()
        shape = mamba2.Settings(hidden_size=SMALL["hidden_size"], num_hidden_layers=2, state_space=space).shape(SMALL["vocab_size"], 0)
    else:
        shape = Shape(**SMALL, **MODELS[name])
    return Transformer(shape).initialise(1).eval().requires_grad_(False)


@torch.inference_mode()
def measured(model: Transformer, tokens: int) -> list[dict[str, float]]:
    """A mark every `tokens` / MARKS: how long the text is, what is kept, and how long a block and a token took there."""
    past, marks = Cached(bound=tokens + ONE_BY_ONE), []
    ids = torch.randint(SMALL["vocab_size"], (tokens + BLOCK,), generator=torch.Generator().manual_seed(1))
    for number in range(1, MARKS + 1):
        stop = tokens * number // MARKS - ONE_BY_ONE
        block = 0.0
        while past.length < stop:
            part = ids[past.length : min(past.length + BLOCK, stop)]
            block = read(model, past, part)
        each = [read(model, past, ids[past.length : past.length + 1]) for _ in range(ONE_BY_ONE)]
        mark = {"tokens": past.length, "bytes": past.nbytes, "block_ms": 1e3 * block, "decode_ms": 1e3 * statistics.median(each)}
        marks.append(mark)
    return marks


def read(model: Transformer, past: Cached, ids: torch.Tensor) -> float:
    """Seconds of one call; the logits of the last token must be numbers."""
    start = time.perf_counter()
    past.begin(len(ids))
    logits = model.logits(model.hidden(ids, past)[-1:])
    seconds = time.perf_counter() - start
    assert bool(logits.isfinite().all())
    return seconds


if __name__ == "__main__":
    main()
