"""Gemma 2 against transformers: soft caps, norms on both sides, layers that slide in turn, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import reference
from transformers import Gemma2Config, Gemma2ForCausalLM

TINY: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SMALL = {"head_dim": 8, "sliding_window": 5}
CASES: dict[str, dict[str, Any]] = {
    "heads of 256": {"sliding_window": 5},
    "caps that bite": {**SMALL, "attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0, "query_pre_attn_scalar": 4},
    "no caps": {**SMALL, "attn_logit_softcapping": None, "final_logit_softcapping": None},
    "scores over the root of 144": {**SMALL, "query_pre_attn_scalar": 144},
    "scores over the root of the head": {**SMALL, "query_pre_attn_scalar": 8},
    "three layers": {**SMALL, "num_hidden_layers": 3},
    "the upper layer slides": {**SMALL, "layer_types": ["full_attention", "sliding_attention"]},
    "no layer slides": {**SMALL, "layer_types": ["full_attention", "full_attention"]},
    "one key for all, biases": {**SMALL, "num_key_value_heads": 1, "attention_bias": True},
    "untied": {**SMALL, "tie_word_embeddings": False, "rms_norm_eps": 1e-3},
    "linear scaling": {**SMALL, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}},
}


@pytest.mark.parametrize("name", CASES)
def test_parity(tmp_path: Path, name: str) -> None:
    model = reference.saved(Gemma2ForCausalLM, Gemma2Config(**{**TINY, **CASES[name]}), tmp_path)
    (tmp_path / "back").mkdir()
    reference.parity(model, tmp_path, tmp_path / "back")


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_activation": "silu"},
        {"use_bidirectional_attention": True},
        {"query_pre_attn_scalar": 0},
        {"attn_logit_softcapping": -1.0},
        {"final_logit_softcapping": "30"},
        {"sliding_window": None},
        {"sliding_window_size": 7},
        {"layer_types": ["sliding_attention"] * 3},
    ],
    ids=str,
)
def test_what_it_cannot_compute_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    reference.saved(Gemma2ForCausalLM, Gemma2Config(**{**TINY, **CASES[next(iter(CASES))]}), tmp_path)
    reference.refuses(tmp_path, change)
