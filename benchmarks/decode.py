"""Generation speed on this machine: our whole step in 8 and 4 bits against llama.cpp on the same weights, and transformers.

In: Llama shapes (20 M, 110 M and, when asked for, 0.5 B parameters) with random weights, 64 tokens of prompt, 128 made greedily one by
one, and a prompt of 256; ours through the whole Python engine, one request at a time and nothing known before. Out:
`results/decode-SIZE-KIND.json` and a table: tokens a second, ratios round by round, and the share of the measured read rate (MBU; a sum by
PyTorch, which a cache larger than the weights can beat). KIND is bf16 or fp32, the arithmetic this processor has: where bfloat16 is
emulated, transformers is not timed in it. Each program lives in a process of its own with the settings that suit it, and they take turns;
before anything is timed, every one gives its logits for the same tokens, which are compared with the plain model of the same quantised
weights.

    python benchmarks/decode.py                                       about ten minutes on two cores
    python benchmarks/decode.py --sizes tiny --rounds 1 --peers llama.cpp      a trial
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import _protocol
import numpy as np
import torch
from _protocol import said

from tsuzuri import device
from tsuzuri.engine.engine import LocalEngine
from tsuzuri.engine.sampling import Sampling
from tsuzuri.model import compiled, weights
from tsuzuri.model.adapt import quantize
from tsuzuri.model.past import Causal
from tsuzuri.model.transformer import Shape, Transformer

PROMPT, MADE, LONG = 64, 128, 256
KIND = "bf16" if device.dtype("auto") == torch.bfloat16 else "fp32"  # records of the one do not replace those of the other
FORMS = {"q8_0": 8.5, "q4_0": 4.5}  # bits a weight
THREADS = 2
NOISE = 0.1  # of our logits against the plain model, as a share of their deviation: what 8 bits of activation cost


def llama(vocab_size: int, hidden_size: int, layers: int, intermediate_size: int) -> Shape:
    return Shape(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 64,
        intermediate_size=intermediate_size,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )


SIZES = {
    "tiny": llama(512, 128, 2, 384),
    "20m": llama(16384, 384, 8, 1024),
    "110m": llama(32768, 768, 12, 2048),
    "0.5b": llama(32768, 1152, 24, 4608),
}


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "--worker":
        work(*sys.argv[2:])
        return
    parser = _protocol.arguments(__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="20m,110m", help=f"of {', '.join(SIZES)}")
    parser.add_argument("--forms", default="q8_0,q4_0")
    narrow = ",transformers bfloat16" if KIND == "bf16" else ""  # where it is emulated there is nothing to time
    parser.add_argument("--peers", default=f"llama.cpp{narrow},transformers float32")
    options = parser.parse_args()
    rate = read_rate()
    print(f"read rate: {rate / 1e9:.1f} GB/s with {THREADS} threads")
    for size in options.sizes.split(","):
        found = measure(SIZES[size], options.forms.split(","), options.peers.split(","), options.rounds, rate)
        record = {"rounds": options.rounds, "trial": options.rounds < _protocol.ROUNDS, "threads": THREADS, "read_rate": rate, "size": size}
        print(_protocol.write(f"decode-{size}-{KIND}", {**record, **found}, options.out))


def measure(shape: Shape, forms: list[str], peers: list[str], count: int, rate: float) -> dict[str, Any]:
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        model = random_model(shape, directory)
        parameters = sum(weight.numel() for weight in model.parameters())
        print(f"\n{parameters / 1e6:.1f} M parameters")
        for form in forms:
            write_gguf(model, form, directory / f"{form}.gguf")
            ours = Worker("ours", directory, form)
            truth = plain_logits(model, form, ours.prompt)
            size = parameters * FORMS[form] / 8
            for peer_name in peers:
                peer = Worker(peer_name, directory, form)
                results[f"{form} against {peer_name}"] = pair(ours, peer, truth, count, size, rate)
                peer.close()
            ours.close()
    return {"parameters": parameters, "pairs": results}


def pair(ours: Worker, peer: Worker, truth: torch.Tensor, count: int, size: float, rate: float) -> dict[str, Any]:
    """Equality first; then decode and prefill, alternating."""
    logits = [torch.tensor(worker.ask("logits")) for worker in (ours, peer)]
    equal = {
        "ours: max |Δ logit| to the plain model": float((logits[0] - truth).abs().max()),
        "peer: max |Δ logit| to the plain model": float((logits[1] - truth).abs().max()),
        "ours: share of noise": float((logits[0] - truth).std() / truth.std()),
        "peer: share of noise": float((logits[1] - truth).std() / truth.std()),
        "ours: greedy agreement with the plain model": float((logits[0].argmax(-1) == truth.argmax(-1)).float().mean()),
        "peer: greedy agreement with the plain model": float((logits[1].argmax(-1) == truth.argmax(-1)).float().mean()),
        "greedy agreement of both": float((logits[0].argmax(-1) == logits[1].argmax(-1)).float().mean()),
    }
    print(f"  {ours.form} against {peer.kind}")
    print("    " + "; ".join(f"{name} {value:.4f}" for name, value in equal.items()))
    if not equal["ours: share of noise"] <= NOISE:
        sys.exit("our logits are not those of the plain model: nothing is timed")
    found: dict[str, Any] = {"equality": equal}
    for what, tokens in (("decode", MADE), ("prefill", LONG)):
        ours.ask(what), peer.ask(what)
        samples = _protocol.rounds(lambda: float(ours.ask(what)), lambda: float(peer.ask(what)), count)  # noqa: B023
        ratio = _protocol.ratio(samples[1], samples[0])
        speeds = [tokens / statistics.median(seconds) for seconds in samples]
        found[what] = {"ours_seconds": samples[0], "peer_seconds": samples[1], "tokens_per_second": speeds, "ratio": ratio}
        best = tokens / min(samples[0])
        share = f", MBU {speeds[0] * size / rate:.0%}" if what == "decode" else ""
        found[what] |= {"mbu": speeds[0] * size / rate} if what == "decode" else {}
        print(
            f"    {what}: ours {speeds[0]:,.0f} tok/s (best {best:,.0f}{share}), peer {speeds[1]:,.0f} (best {tokens / min(samples[1]):,.0f}); × {said(ratio)}"
        )
    return found


# ── what is measured against


def random_model(shape: Shape, directory: Path) -> Transformer:
    """Weights that bfloat16 can say, so that everyone starts from the same ones. Saved in Hugging Face's layout."""
    model = Transformer(shape).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        weight.copy_((torch.randn(weight.shape, generator=generator) * 0.05).bfloat16() if weight.dim() > 1 else torch.ones_like(weight))
    weights.save(model.bfloat16(), directory)
    return model.float()


def plain_logits(model: Transformer, form: str, ids: list[int]) -> torch.Tensor:
    """Of the plain model with the matrices quantised and multiplied out again, in float32."""
    twin = Transformer(model.shape).requires_grad_(False)
    for ours, theirs in zip(twin.parameters(), model.parameters(), strict=True):
        ours.copy_(quantize.dequantised(form, *quantize.FORMS[form](theirs)) if theirs.dim() > 1 else theirs)
    return twin(torch.tensor(ids), Causal(torch.arange(len(ids))))


def write_gguf(model: Transformer, form: str, path: Path) -> None:
    """The same weights for llama.cpp, quantised by the gguf package; queries and keys permuted to its pairing of rotations."""
    import gguf

    shape, kind = model.shape, {"q8_0": gguf.GGMLQuantizationType.Q8_0, "q4_0": gguf.GGMLQuantizationType.Q4_0}[form]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_vocab_size(shape.vocab_size)
    writer.add_tokenizer_model("no_vocab")

    def add(name: str, weight: torch.Tensor, heads: int = 0) -> None:
        data = weight.numpy()
        if heads:
            data = data.reshape(heads, 2, data.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(data.shape)
        if data.ndim == 1:
            writer.add_tensor(name, data.astype(np.float32))
            return
        writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(data), kind), raw_dtype=kind)

    add("token_embd.weight", model.embedding.weight)
    add("output_norm.weight", model.norm.weight)
    for i, block in enumerate(model.blocks):
        a, f = block.mixer, block.feedforward
        add(f"blk.{i}.attn_norm.weight", block.mixer_norm.weight)
        add(f"blk.{i}.attn_q.weight", a.query.weight, shape.num_attention_heads)
        add(f"blk.{i}.attn_k.weight", a.key.weight, shape.kv_heads)
        add(f"blk.{i}.attn_v.weight", a.value.weight)
        add(f"blk.{i}.attn_output.weight", a.output.weight)
        add(f"blk.{i}.ffn_norm.weight", block.feedforward_norm.weight)
        add(f"blk.{i}.ffn_gate.weight", f.gate.weight)
        add(f"blk.{i}.ffn_up.weight", f.up.weight)
        add(f"blk.{i}.ffn_down.weight", f.down.weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_rate() -> float:
    """Bytes a second that two threads read from memory: the bound of one token at a time."""
    block = torch.ones(1 << 27)  # 512 MB
    torch.set_num_threads(THREADS)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        block.sum()
        best = min(best, time.perf_counter() - start)
    return block.numel() * 4 / best


# ── the programs, each in its own process


class Worker:
    """A process that answers one question at a time: `logits`, or the seconds of a `decode`, a `prefill` or the `whole` of both."""

    def __init__(self, kind: str, directory: Path, form: str) -> None:
        self.kind, self.form = kind, form
        environment = dict(os.environ)
        if kind != "ours":
            environment.pop("OMP_WAIT_POLICY", None)  # ours sets it for PyTorch; llama.cpp wants the default
        command = [sys.executable, __file__, "--worker", kind, str(directory), form]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.prompt = [int(id) for id in self._answer()]

    def ask(self, what: str) -> Any:
        assert self.process.stdin
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.kind} ended")
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def work(kind: str, directory: str, form: str) -> None:
    """The other side of `Worker`. A program is ids -> the tokens that follow, one by one, and all logits of a prompt."""
    shape = weights.family_of(Path(directory)).shape(weights.read_json(Path(directory) / "config.json"))
    ids = torch.randint(shape.vocab_size, (LONG,), generator=torch.Generator().manual_seed(1)).tolist()
    make = {"ours": ours, "llama.cpp": llama_cpp}.get(kind, transformers)
    following, every = make(Path(directory), form, kind)
    answer(ids[:PROMPT])
    for line in sys.stdin:
        what = line.strip()
        if what == "logits":
            answer(every(ids[:PROMPT]).tolist())
            continue
        start = time.perf_counter()
        tokens = following(ids if what == "prefill" else ids[:PROMPT])
        next(tokens)  # the prompt is read, which gives the first token
        if what == "decode":
            start = time.perf_counter()
        for _ in range({"prefill": 0, "decode": MADE, "whole": MADE - 1}[what]):
            next(tokens)
        answer(time.perf_counter() - start)


def answer(value: Any) -> None:
    print(json.dumps(value), flush=True)


Following = Callable[[list[int]], Iterator[int]]
Every = Callable[[list[int]], Any]


def greedily(read: Callable[[list[int], int], int]) -> Following:
    """Of (ids, where they begin) -> the most probable token after them."""

    def following(ids: list[int]) -> Iterator[int]:
        found = read(ids, 0)
        for place in itertools.count(len(ids)):
            yield found
            found = read([found], place)

    return following


def ours(directory: Path, form: str, kind: str) -> tuple[Following, Every]:
    """The engine of one, as `tsuzuri.load` makes it; a new one for each text, so that it knows nothing of the last."""
    model = weights.load(directory)
    quantize.quantize(model, form)
    native = compiled.made(model, THREADS)
    assert native is not None, "the native library is not there"
    sampling = Sampling(temperature=0, max_tokens=MADE + 1, ignore_eos=True)

    def following(ids: list[int]) -> Iterator[int]:
        return (token.id for token in LocalEngine(native, (), native.context_length).stream(ids, sampling))

    return following, lambda ids: native(torch.tensor(ids), Causal(torch.arange(len(ids))))


def llama_cpp(directory: Path, form: str, kind: str) -> tuple[Following, Every]:
    """Its C functions, called as its own tools do; flash attention left at its default."""
    import llama_cpp as l

    quiet = l.llama_log_callback(lambda *_: None)
    l.llama_log_set(quiet, None)
    model = l.llama_model_load_from_file(str(directory / f"{form}.gguf").encode(), l.llama_model_default_params())
    parameters = l.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 512
    parameters.n_threads = parameters.n_threads_batch = THREADS
    context = l.llama_init_from_model(model, parameters)
    size = l.llama_vocab_n_tokens(l.llama_model_get_vocab(model))
    batch = l.llama_batch_init(512, 0, 1)

    def fill(ids: list[int], start: int, every: bool) -> None:
        if start == 0:
            l.llama_memory_clear(l.llama_get_memory(context), False)
        batch.n_tokens = len(ids)
        for i, id in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = id, start + i, 1, 0
            batch.logits[i] = every or i == len(ids) - 1
        assert l.llama_decode(context, batch) == 0

    def row(index: int) -> np.ndarray[Any, Any]:
        return np.ctypeslib.as_array(l.llama_get_logits_ith(context, index), (size,))

    def read(ids: list[int], start: int) -> int:
        fill(ids, start, False)
        return int(row(len(ids) - 1).argmax())

    def every(ids: list[int]) -> Any:
        fill(ids, 0, True)
        return np.stack([row(i) for i in range(len(ids))])

    every.kept = quiet  # type: ignore[attr-defined]
    return greedily(read), every


def transformers(directory: Path, form: str, kind: str) -> tuple[Following, Every]:
    """Its Llama on the weights before quantisation, with its own cache, a token at a time."""
    from transformers import DynamicCache, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(THREADS)
    model = LlamaForCausalLM.from_pretrained(directory, dtype=getattr(torch, kind.split()[1]))
    state: dict[str, Any] = {}

    @torch.inference_mode()
    def read(ids: list[int], start: int) -> int:
        if start == 0:
            state["cache"] = DynamicCache(config=model.config)
        out = model(torch.tensor([ids]), past_key_values=state["cache"], use_cache=True, logits_to_keep=1)
        return int(out.logits[0, -1].argmax())

    @torch.inference_mode()
    def every(ids: list[int]) -> Any:
        return model(torch.tensor([ids])).logits[0].float()

    return greedily(read), every


if __name__ == "__main__":
    main()
