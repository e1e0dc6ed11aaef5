"""LLaMA against transformers: every shape in which the family comes, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tsuzuri.model import weights

TINY = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 128,
}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
CASES: dict[str, dict[str, Any]] = {
    "one head each": {},
    "grouped heads": {"num_key_value_heads": 2},
    "one key for all": {"num_key_value_heads": 1, "head_dim": 6},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "tied": {"tie_word_embeddings": True, "rms_norm_eps": 1e-3},
    "linear scaling": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}},
    "dynamic scaling": {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 500.0}},
    "llama3 scaling": {"rope_parameters": {**LLAMA3, "rope_theta": 5000.0}},
    "yarn scaling": {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 1000.0}},
}


@pytest.mark.parametrize("name", CASES)
def test_parity(tmp_path: Path, name: str) -> None:
    model = reference.saved(LlamaForCausalLM, LlamaConfig(**TINY, **CASES[name]), tmp_path)
    (tmp_path / "back").mkdir()
    reference.parity(model, tmp_path, tmp_path / "back")


def test_a_text_longer_than_that_of_training_under_dynamic_scaling(tmp_path: Path) -> None:
    """Whole texts past the original length; in calls with the length known from the start."""
    config = LlamaConfig(**{**TINY, "max_position_embeddings": 16}, **CASES["dynamic scaling"])
    model = reference.saved(LlamaForCausalLM, config, tmp_path)
    ids, ours = reference.tokens(60, 30), weights.load(tmp_path)
    with torch.inference_mode():
        reference.close(reference.logits(ours, ids), model(ids[None]).logits[0])
        reference.cut_is_whole(ours, ids)
    assert ours.context_length == 32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_narrow_weights_are_loaded_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    reference.saved(LlamaForCausalLM, LlamaConfig(**TINY), tmp_path, dtype=dtype)
    model = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ours, ids = weights.load(tmp_path), reference.tokens(60)
    assert {weight.dtype for weight in ours.parameters()} == {dtype}
    with torch.inference_mode():
        reference.close(reference.logits(ours.float(), ids), model(ids[None]).logits[0])


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "proportional", "factor": 2.0, "rope_theta": 500.0}},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0, "beta_fast": 3}},
        {"rope_parameters": {"rope_type": "linear", "factor": -2.0, "rope_theta": 500.0}},
        {"rope_parameters": {"rope_type": "llama3", "factor": 2.0, "rope_theta": 500.0}},
        {"rope_parameters": ["linear"]},
        {"sliding_window": 4},
    ],
)
def test_what_it_cannot_compute_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    reference.saved(LlamaForCausalLM, LlamaConfig(**TINY), tmp_path)
    message = reference.refuses(tmp_path, change)
    assert next(iter(change)).replace("parameters", "scaling") in message
