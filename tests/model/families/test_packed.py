"""Weights that are stored several in one tensor: whole or in shards, in any precision, read, restored and written to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import FalconConfig, FalconForCausalLM, GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

from tsuzuri.errors import FormatError
from tsuzuri.model import weights

SMALL = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
MODELS: dict[str, tuple[type, Any]] = {
    "gpt2": (GPT2LMHeadModel, GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=64)),
    "gpt_neox": (GPTNeoXForCausalLM, GPTNeoXConfig(**SMALL, intermediate_size=48)),
    "falcon": (FalconForCausalLM, FalconConfig(**SMALL, new_decoder_architecture=True, num_kv_heads=2, bias=True)),
}
FUSED = {"gpt2": "c_attn.weight", "gpt_neox": "query_key_value.weight", "falcon": "query_key_value.weight"}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert {name: (value.dtype, value.tolist()) for name, value in one.items()} == {
        name: (value.dtype, value.tolist()) for name, value in other.items()
    }


def stored(directory: Path) -> dict[str, Tensor]:
    return {name: value for file in directory.glob("*.safetensors") for name, value in load_file(file).items()}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_shards_of_packed_tensors_are_one_model_to_the_bit(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    model = reference.saved(*MODELS[name], tmp_path, dtype=dtype)
    model.save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 3
    assert not (tmp_path / "shards" / weights.WEIGHTS).exists()
    whole, shards = weights.load(tmp_path), weights.load(tmp_path / "shards")
    assert {weight.dtype for weight in whole.parameters()} == {dtype}
    assert all(weight.is_contiguous() for weight in whole.parameters())
    equal(dict(whole.named_parameters()), dict(shards.named_parameters()))
    other = weights.build(weights.decoder(name), whole.shape).to(dtype).initialise(1)
    weights.restore(other, tmp_path / "shards", name)
    equal(dict(other.named_parameters()), dict(whole.named_parameters()))
    (tmp_path / "back").mkdir()
    weights.save(other, tmp_path / "back", name)
    equal(stored(tmp_path / "back"), stored(tmp_path))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(), (2,), (2, 2), (32, 95), (97, 32), (32, 2, 2), (0, 32), (32, 0)], ids=str)
def test_a_packed_tensor_that_cannot_be_taken_apart_is_named(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    reference.saved(*MODELS[name], tmp_path)
    found = {key: value.clone() for key, value in load_file(tmp_path / weights.WEIGHTS).items()}
    fused = next(key for key in found if key.endswith(FUSED[name]))
    save_file({**found, fused: torch.ones(shape)}, tmp_path / weights.WEIGHTS)
    with pytest.raises(FormatError, match="config"):
        weights.load(tmp_path)


def test_what_is_trained_is_the_same_read_again(tmp_path: Path) -> None:
    """Matrices that are stored turned are laid out in memory as those of any model: the same bits, the same speed."""
    model = reference.saved(*MODELS["gpt2"], tmp_path)
    here = weights.load(tmp_path)
    trained = weights.build(weights.decoder("gpt2"), here.shape)
    weights.restore(trained, tmp_path, "gpt2")
    ids = reference.tokens(60)
    assert torch.equal(reference.logits(trained, ids), reference.logits(here, ids))
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["n_embd"] == model.config.n_embd
