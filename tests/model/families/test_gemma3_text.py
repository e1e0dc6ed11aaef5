"""Gemma 3 against transformers: two rotary speeds, five layers that slide for one that does not, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import reference
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

TINY: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SMALL = {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 8}
LOCAL = {"rope_type": "default", "rope_theta": 50.0}
BOTH = ["sliding_attention", "full_attention"]
LINEAR = {"rope_type": "linear", "factor": 8.0, "rope_theta": 700.0}
CASES: dict[str, dict[str, Any]] = {
    "six layers": {**SMALL, "num_hidden_layers": 6},
    "heads of 256": {"sliding_window": 5},
    "all layers slide": {**SMALL},
    "no layer slides": {**SMALL, "layer_types": ["full_attention", "full_attention"]},
    "every second layer sees everything": {**SMALL, "num_hidden_layers": 3, "sliding_window_pattern": 2},
    "two speeds": {
        **SMALL,
        "layer_types": BOTH,
        "rope_parameters": {"full_attention": {**LOCAL, "rope_theta": 900.0}, "sliding_attention": LOCAL},
    },
    "scaling where everything is seen": {
        **SMALL,
        "layer_types": BOTH,
        "rope_parameters": {"full_attention": LINEAR, "sliding_attention": LOCAL},
    },
    "scores over the root of 168": {**SMALL, "layer_types": BOTH, "query_pre_attn_scalar": 168},
    "a cap on the logits": {**SMALL, "layer_types": BOTH, "final_logit_softcapping": 2.0},
    "one key for all, biases": {**SMALL, "layer_types": BOTH, "num_key_value_heads": 1, "attention_bias": True},
    "untied": {**SMALL, "layer_types": BOTH, "tie_word_embeddings": False, "rms_norm_eps": 1e-3},
}


@pytest.mark.parametrize("name", CASES)
def test_parity(tmp_path: Path, name: str) -> None:
    model = reference.saved(Gemma3ForCausalLM, Gemma3TextConfig(**{**TINY, **CASES[name]}), tmp_path)
    (tmp_path / "back").mkdir()
    reference.parity(model, tmp_path, tmp_path / "back")


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_activation": "silu"},
        {"use_bidirectional_attention": True},
        {"attn_logit_softcapping": 50.0},
        {"rope_parameters": {"full_attention": LINEAR, "sliding_attention": LINEAR}},
        {"rope_parameters": {"full_attention": LINEAR, "sliding_attention": [1]}},
        {"rope_parameters": {"full_attention": LINEAR, "mamba": LOCAL}},
        {"rope_local_base_freq": 0},
        {"vision_config": {}},
    ],
    ids=str,
)
def test_what_it_cannot_compute_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    reference.saved(Gemma3ForCausalLM, Gemma3TextConfig(**{**TINY, **CASES[next(iter(CASES))]}), tmp_path)
    reference.refuses(tmp_path, change)
