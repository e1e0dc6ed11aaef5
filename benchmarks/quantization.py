"""What quantisation costs a trained model: bits per byte of held-out text, as stored, in 8 and 4 bits, calibrated and not.

In: a model directory and a text it has not seen. Out: `results/quantization.json` and a table. Bits per byte are those of whole documents,
in windows of the context; with the native kernels, whose activations are in 8 bits too, and with PyTorch alone.

    python benchmarks/quantization.py --model runs/tiny/model --text runs/tiny/corpus/text/validation.jsonl.zst
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import _protocol
import torch

from tsuzuri.chat.local import LocalModel
from tsuzuri.model import compiled, weights
from tsuzuri.model.adapt import awq, quantize
from tsuzuri.text.corpus.read import read

FORMS = ("q8_0", "nf4", "q4_0", "q4_0 calibrated")
SAMPLES = 16  # windows of text that calibration reads; none of them is scored


def main() -> None:
    parser = _protocol.arguments(__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, default=Path("runs/tiny/model"))
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=50_000, help="of held-out text that are scored")
    options = parser.parse_args()
    os.environ["TSUZURI_NATIVE"] = "off"
    plain = LocalModel(options.model, dtype="float32")
    ids, count = windows(plain, options.text, options.tokens + SAMPLES * plain.context_length)
    samples, held = [torch.tensor(row) for row in ids[:SAMPLES]], ids[SAMPLES:]
    size = count * sum(map(len, held)) / sum(map(len, ids))  # bytes of what is scored
    rows: dict[str, Any] = {"as stored": {"plain": bits(plain.model, held, size), "bytes": bytes_of(plain.model)}}
    for name in FORMS:
        form = name.split()[0]
        model = weights.load(options.model, dtype=torch.float32)
        if "calibrated" in name:
            awq.scale(model, form, samples)
        quantize.quantize(model, form)
        found = {"plain": bits(model, held, size), "bytes": bytes_of(model)}
        del os.environ["TSUZURI_NATIVE"]
        native = compiled.made(model, 2)
        os.environ["TSUZURI_NATIVE"] = "off"
        rows[name] = found | ({"native": bits(native, held, size)} if native else {})
    for name, row in rows.items():
        more = 100 * (2 ** ((row["plain"] - rows["as stored"]["plain"]) * size / sum(map(len, held))) - 1)
        native_bits = f"  native {row['native']:.4f}" if "native" in row else ""
        print(f"{name:16} {row['bytes'] / 1e6:6.2f} MB  {row['plain']:.4f} bits per byte  perplexity {more:+.2f} %{native_bits}")
    print(_protocol.write("quantization", {"rows": rows, "tokens": sum(map(len, held)), "scored_bytes": size}, options.out))


def windows(model: LocalModel, text: Path, tokens: int) -> tuple[list[list[int]], int]:
    """Ids in windows of the context, each with the boundary before it, and the bytes they stand for."""
    ids: list[int] = []
    size, step = 0, model.context_length - 1
    for document in read([text]):
        ids += model.tokenizer.encode(document.text)
        size += len(document.text.encode())
        if len(ids) >= tokens:
            break
    boundary = model.tokenizer.special["<|endoftext|>"]
    return [[boundary, *ids[at : at + step]] for at in range(0, len(ids), step)], size


@torch.inference_mode()
def bits(model: Any, rows: list[list[int]], size: float) -> float:
    from tsuzuri.engine.engine import LocalEngine

    engine = LocalEngine(model, (), len(rows[0]))
    return -sum(sum(engine.score(row)) for row in rows) / math.log(2) / size


def bytes_of(model: torch.nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))


if __name__ == "__main__":
    main()
