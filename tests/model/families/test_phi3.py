"""Phi-3 against transformers: fused projections, factors for short and long texts, part of a head turning, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import reference
from transformers import Phi3Config, Phi3ForCausalLM

TINY: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LONG = {"rope_type": "longrope", "rope_theta": 500.0, "short_factor": [1.0, 1.1, 1.3, 1.6], "long_factor": [1.2, 2.0, 3.5, 5.0]}
HALF = {"partial_rotary_factor": 0.5, "short_factor": [1.0, 1.3], "long_factor": [1.5, 4.0]}
CASES: dict[str, dict[str, Any]] = {
    "grouped heads": {},
    "one head each": {"num_key_value_heads": 4},
    "one key for all": {"num_key_value_heads": 1},
    "a window shorter than the text": {"sliding_window": 5},
    "tied": {"tie_word_embeddings": True, "rms_norm_eps": 1e-3},
    "half of a head turns": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}},
    "longrope, text within the first length": {"rope_parameters": LONG, "original_max_position_embeddings": 64},
    "longrope, text beyond the first length": {"rope_parameters": LONG, "original_max_position_embeddings": 8},
    "longrope, half of a head turns": {"rope_parameters": {**LONG, **HALF}, "original_max_position_embeddings": 8},
    "longrope with its growth written": {"rope_parameters": {**LONG, "attention_factor": 1.25}, "original_max_position_embeddings": 8},
    "longrope, not longer than at first": {"rope_parameters": LONG, "original_max_position_embeddings": 128},
}


@pytest.mark.parametrize("name", CASES)
def test_parity(tmp_path: Path, name: str) -> None:
    model = reference.saved(Phi3ForCausalLM, Phi3Config(**{**TINY, **CASES[name]}), tmp_path)
    (tmp_path / "back").mkdir()
    reference.parity(model, tmp_path, tmp_path / "back")


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "gelu"},
        {"attention_bias": True},
        {"lm_head_bias": True},
        {"full_attn_mod": 2},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0] * 4}},
        {"rope_parameters": {**LONG, "short_factor": [1.0] * 3}},
        {"rope_parameters": {**LONG, "long_factor": [0.0] * 4}},
        {"original_max_position_embeddings": 1, "rope_parameters": LONG},
    ],
    ids=str,
)
def test_what_it_cannot_compute_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    reference.saved(Phi3ForCausalLM, Phi3Config(**{**TINY, **CASES[next(iter(CASES))]}), tmp_path)
    reference.refuses(tmp_path, change)
