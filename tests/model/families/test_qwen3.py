"""Qwen 3 against transformers: normed queries and keys, biases, layers that slide, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import reference
from transformers import Qwen3Config, Qwen3ForCausalLM

TINY: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SLIDES = {"use_sliding_window": True, "sliding_window": 5}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 1000.0}
CASES: dict[str, dict[str, Any]] = {
    "heads of 128": {},
    "heads of 8": {"head_dim": 8},
    "one head each": {"head_dim": 8, "num_key_value_heads": 4},
    "one key for all": {"head_dim": 6, "num_key_value_heads": 1},
    "biases": {"head_dim": 8, "attention_bias": True},
    "tied": {"head_dim": 8, "tie_word_embeddings": True, "rms_norm_eps": 1e-3},
    "upper layers slide": {"head_dim": 8, **SLIDES, "max_window_layers": 1},
    "the lower layer slides": {"head_dim": 8, **SLIDES, "layer_types": ["sliding_attention", "full_attention"]},
    "yarn scaling": {"head_dim": 8, "rope_parameters": YARN},
}


@pytest.mark.parametrize("name", CASES)
def test_parity(tmp_path: Path, name: str) -> None:
    model = reference.saved(Qwen3ForCausalLM, Qwen3Config(**{**TINY, **CASES[name]}), tmp_path)
    (tmp_path / "back").mkdir()
    reference.parity(model, tmp_path, tmp_path / "back")


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "gelu"},
        {"layer_types": "full_attention"},
        {"attention_bias": 1},
        {"use_qk_norm": False},
        {"partial_rotary_factor": 0.5},
    ],
    ids=str,
)
def test_what_it_cannot_compute_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    reference.saved(Qwen3ForCausalLM, Qwen3Config(**{**TINY, **CASES[next(iter(CASES))]}), tmp_path)
    reference.refuses(tmp_path, change)
