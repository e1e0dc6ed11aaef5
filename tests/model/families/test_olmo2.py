"""OLMo 2 against transformers: norms after each sub-layer and over all heads, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import reference
from transformers import Olmo2Config, Olmo2ForCausalLM

TINY: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 1000.0}
CASES: dict[str, dict[str, Any]] = {
    "grouped heads": {},
    "one head each": {"num_key_value_heads": 4},
    "one key for all": {"num_key_value_heads": 1},
    "biases": {"attention_bias": True},
    "tied": {"tie_word_embeddings": True, "rms_norm_eps": 1e-3},
    "yarn scaling": {"rope_parameters": YARN},
}


@pytest.mark.parametrize("name", CASES)
def test_parity(tmp_path: Path, name: str) -> None:
    model = reference.saved(Olmo2ForCausalLM, Olmo2Config(**{**TINY, **CASES[name]}), tmp_path)
    (tmp_path / "back").mkdir()
    reference.parity(model, tmp_path, tmp_path / "back")


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "gelu"},
        {"clip_qkv": 8.0},
        {"sliding_window": 4},
        {"partial_rotary_factor": 0.5},
        {"layer_types": ["full_attention"] * 2},
    ],
    ids=str,
)
def test_what_it_cannot_compute_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    reference.saved(Olmo2ForCausalLM, Olmo2Config(**{**TINY, **CASES[next(iter(CASES))]}), tmp_path)
    reference.refuses(tmp_path, change)
