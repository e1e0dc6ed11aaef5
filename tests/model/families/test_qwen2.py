"""Qwen 2 against transformers: biases, layers that slide, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import reference
from transformers import Qwen2Config, Qwen2ForCausalLM

TINY: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SLIDES = {"use_sliding_window": True, "sliding_window": 5}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 1000.0}
CASES: dict[str, dict[str, Any]] = {
    "grouped heads": {},
    "one head each": {"num_key_value_heads": 4},
    "one key for all": {"num_key_value_heads": 1},
    "tied": {"tie_word_embeddings": True, "rms_norm_eps": 1e-3},
    "a window that is not used": {"sliding_window": 5},
    "upper layers slide": {**SLIDES, "max_window_layers": 1},
    "all layers slide": {**SLIDES, "max_window_layers": 0},
    "no layer reaches the window": {**SLIDES, "max_window_layers": 2},
    "the lower layer slides": {**SLIDES, "layer_types": ["sliding_attention", "full_attention"]},
    "yarn scaling": {"rope_parameters": YARN},
    "dynamic scaling": {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 500.0}},
}


@pytest.mark.parametrize("name", CASES)
def test_parity(tmp_path: Path, name: str) -> None:
    model = reference.saved(Qwen2ForCausalLM, Qwen2Config(**{**TINY, **CASES[name]}), tmp_path)
    (tmp_path / "back").mkdir()
    reference.parity(model, tmp_path, tmp_path / "back")


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "gelu"},
        {"use_mrope": True},
        {"layer_types": ["full_attention"]},
        {"layer_types": ["full_attention", "mamba"]},
        {"layer_types": ["full_attention", 3]},
        {"max_window_layers": -1, "use_sliding_window": True, "sliding_window": 4, "layer_types": None},
        {"attention_bias": False},
    ],
    ids=str,
)
def test_what_it_cannot_compute_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    reference.saved(Qwen2ForCausalLM, Qwen2Config(**{**TINY, **CASES[next(iter(CASES))]}), tmp_path)
    reference.refuses(tmp_path, change)
