"""GGUF: what is written is read by others as it was meant, what others write is read here, and a damaged file costs nothing."""

from __future__ import annotations

import random
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsuzuri.errors import ConfigError, FormatError, TsuzuriError
from tsuzuri.folder import find, names
from tsuzuri.model import gguf, gguf_models
from tsuzuri.model.parts.rotary import Scaling
from tsuzuri.model.past import Causal
from tsuzuri.model.transformer import Shape, Transformer

SMALL = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 64,
}  # fmt: skip
LLAMA3 = Scaling(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama grouped, tied": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "llama biases": {"attention_bias": True, "mlp_bias": True},
    "llama linear": {"rope_scaling": Scaling(rope_type="linear", factor=2.0)},
    "llama llama3": {"rope_scaling": LLAMA3, "rope_theta": 5000.0},
    "llama yarn": {
        "rope_scaling": Scaling(
            rope_type="yarn", factor=4.0, original_max_position_embeddings=16, attention_factor=0.1 * float(np.log(4.0)) + 1
        ),
    },
    "llama of mistral": {"num_key_value_heads": 2, "sliding_window": 56},
    "qwen2": {"attention_bias": True, "attention_output_bias": False, "num_key_value_heads": 2},
    "qwen3": {"qk_norm": "head", "head_dim": 16, "tie_word_embeddings": True},
    "gpt2": {
        "feedforward": "plain", "hidden_act": "gelu_pytorch_tanh", "norm": "layer_norm", "position": "learned", "attention_bias": True,
        "mlp_bias": True, "tie_word_embeddings": True,
    },
}  # fmt: skip
IDS = torch.randint(64, (20,), generator=torch.Generator().manual_seed(2))


def built(**choices: Any) -> Transformer:
    model, generator = Transformer(Shape(**{**SMALL, **choices})), torch.Generator().manual_seed(3)
    for name, weight in model.named_parameters():
        torch.nn.init.normal_(weight, mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.2, generator=generator)
    return model.requires_grad_(False)


def logits(model: Any) -> torch.Tensor:
    return model(IDS, Causal(torch.arange(len(IDS))))


@pytest.mark.parametrize("name", SHAPES)
def test_written_and_read_is_the_same(tmp_path: Path, name: str) -> None:
    model = built(**SHAPES[name])
    counts = gguf_models.export(model, tmp_path / "m.gguf", name, "f32", {"tokenizer.ggml.model": "none"})
    assert set(counts) == {"f32"}
    file = gguf.File(tmp_path / "m.gguf")
    assert file.metadata["general.architecture"] == name.split()[0]
    again = gguf_models.load(file)
    assert torch.equal(again.embedding.weight, model.embedding.weight)
    torch.testing.assert_close(logits(again), logits(model), rtol=0, atol=1e-5 if "llama3" in name else 0)


def test_a_context_ends_where_a_window_would_begin_to_matter(tmp_path: Path) -> None:
    gguf_models.export(built(sliding_window=40), tmp_path / "m.gguf", "m", "f32", {"tokenizer.ggml.model": "none"})
    again = gguf_models.load(gguf.File(tmp_path / "m.gguf"))
    assert (again.shape.max_position_embeddings, again.shape.sliding_window) == (40, None)
    with pytest.raises(ConfigError, match="layer_types"):
        gguf_models.architecture(built(layer_types=("sliding_attention", "full_attention"), sliding_window=40).shape)


@pytest.mark.parametrize("kind", [*gguf.TYPES])
def test_the_library_of_the_format_reads_what_we_write(tmp_path: Path, kind: str) -> None:
    """Names, metadata, and every number after unpacking, as gguf-py has them."""
    reader = pytest.importorskip("gguf", reason="gguf is not installed: pip install -e '.[dev]'")
    model = built()
    gguf_models.export(model, tmp_path / "m.gguf", "m", kind, {"tokenizer.ggml.tokens": ["あ", "b"], "flag": True, "half": 0.5})
    ours, theirs = gguf.File(tmp_path / "m.gguf"), reader.GGUFReader(tmp_path / "m.gguf")
    assert {tensor.name for tensor in theirs.tensors} == set(ours.entries)
    for tensor in theirs.tensors:
        numbers = reader.dequantize(tensor.data, tensor.tensor_type).reshape(ours.entries[tensor.name].shape)
        assert np.array_equal(numbers, ours.tensor(tensor.name).numpy())
    assert theirs.get_field("tokenizer.ggml.tokens").contents() == ["あ", "b"]
    assert theirs.get_field("flag").contents() is True
    assert ours.metadata["half"] == 0.5


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "bf16", "f16"])
def test_numbers_are_packed_as_the_library_packs_them(kind: str) -> None:
    library = pytest.importorskip("gguf", reason="gguf is not installed: pip install -e '.[dev]'")
    values = np.random.default_rng(1).standard_normal((50, 64)).astype(np.float32) * 3
    values[3], values[7, :32] = 0.0, 1e-30
    theirs = library.quantize(values, getattr(library.GGMLQuantizationType, kind.upper()))
    assert np.array_equal(np.frombuffer(gguf.PACK[kind](values.reshape(-1)).tobytes(), np.uint8), theirs.view(np.uint8).reshape(-1))


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=32, max_size=32))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_rounding_is_bounded(values: list[float]) -> None:
    """8 bits: half a step of largest / 127; 4 bits: a step of largest / 8; and the scale's own rounding to 11 bits."""
    x = np.array(values, np.float32)
    most = float(np.abs(x).max())
    for kind, step in (("q8_0", 0.5 / 127), ("q4_0", 1 / 8)):
        back = gguf.UNPACK[kind](gguf.PACK[kind](x))
        assert np.abs(back - x).max() <= most * (step * 1.01 + 2**-11) + 1e-6


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", ["f32", "q8_0"])
def test_llama_cpp_computes_the_same(tmp_path: Path, name: str, kind: str) -> None:
    """Logits to float32 (8 bits: it also rounds what it multiplies with), and the same 32 greedy tokens from the same ids."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: pip install -e '.[peers]'")
    from tsuzuri.engine.engine import LocalEngine
    from tsuzuri.engine.sampling import Sampling

    path = tmp_path / "m.gguf"
    gguf_models.export(built(**SHAPES[name]), path, name, kind, vocabulary())
    ours = gguf_models.load(gguf.File(path))
    peer = llama_cpp.Llama(str(path), n_ctx=64, logits_all=True, verbose=False, n_threads=1)
    peer.eval(IDS.tolist())
    theirs, expected = torch.tensor(peer.scores[: len(IDS)]), logits(ours)
    # It multiplies q8_0 by activations rounded to 8 bits too, and keeps keys and values as f16.
    bound = 2e-2 if kind == "f32" else 6e-2
    assert float((theirs - expected).abs().max()) <= bound * float(expected.abs().max())
    if kind == "f32":
        peer.reset()
        there = [int(id) for id, _ in zip(peer.generate(IDS.tolist(), temp=0.0, repeat_penalty=1.0, reset=True), range(32), strict=False)]
        here = [token.id for token in LocalEngine(ours, [], 64).stream(IDS.tolist(), Sampling(temperature=0, max_tokens=32))]
        assert here == there
    peer.close()


def vocabulary() -> dict[str, Any]:
    """64 tokens, so that llama.cpp has something to show."""
    from tsuzuri.text.bytelevel import alphabet

    tokens = sorted(alphabet().values())[:64]
    return {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * 64, "tokenizer.ggml.merges": [f"{tokens[0]} {tokens[1]}"],
        "tokenizer.ggml.eos_token_id": 63, "tokenizer.ggml.bos_token_id": 63,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("choices", "named"),
    [
        ({"layer_types": ("sliding_attention", "full_attention"), "sliding_window": 8}, "layer_types"),
        ({"position": "alibi"}, "position"),
        ({"rope_scaling": Scaling(rope_type="dynamic", factor=2.0, original_max_position_embeddings=64)}, "rope_scaling"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"final_logit_softcapping": 5.0}, "final_logit_softcapping"),
    ],
)
def test_a_shape_that_llama_cpp_cannot_compute_is_refused_by_name(tmp_path: Path, choices: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        gguf_models.export(built(**choices), tmp_path / "m.gguf", "m", "f32", {})
    assert not (tmp_path / "m.gguf").exists()


# ── files from anywhere


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    gguf_models.export(built(num_hidden_layers=1), path, "m", "q8_0", vocabulary())
    return path.read_bytes()


def test_damaged_files_are_refused_and_cost_no_memory(file: bytes, tmp_path: Path) -> None:
    """A thousand damaged headers: cut, bytes changed, lengths blown up. Our error or the same model; never more memory than
    the file is large, many times over."""
    draw, path = random.Random(4), tmp_path / "m.gguf"
    header = file.index(b"blk.0.attn_norm") + 200
    refused = 0
    tracemalloc.start()
    for number in range(1000):
        data = bytearray(file)
        if number % 3 == 0:
            del data[draw.randrange(len(data)) :]
        elif number % 3 == 1:
            for _ in range(draw.randint(1, 4)):
                data[draw.randrange(header)] = draw.randrange(256)
        else:
            at = draw.randrange(4, header - 8)
            data[at : at + 8] = struct.pack("<Q", draw.choice([2**63, 2**40, 2**32 - 1, 0, 10**6]))
        path.write_bytes(data)
        try:
            gguf_models.load(gguf.File(path))
        except TsuzuriError:
            refused += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused > 600
    assert peak < 16 << 20  # what is asked for goes up to 2^63


@pytest.mark.parametrize("cut", [0, 3, 4, 20, 100])
def test_a_file_cut_off_is_refused(file: bytes, tmp_path: Path, cut: int) -> None:
    (tmp_path / "m.gguf").write_bytes(file[:cut])
    with pytest.raises(FormatError, match=r"m\.gguf"):
        gguf.File(tmp_path / "m.gguf")


def test_every_architecture_of_the_format_has_a_family() -> None:
    assert {one.name for one in gguf_models.ARCHITECTURES} <= {
        find("tsuzuri.model.families", n).MODEL_TYPE for n in names("tsuzuri.model.families")
    }
