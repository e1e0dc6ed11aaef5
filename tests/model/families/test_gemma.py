"""Gemma against transformers: scaled embeddings, norms with an offset, wide heads, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import reference
from transformers import GemmaConfig, GemmaForCausalLM

TINY: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "heads of 256": {},
    "heads of 8": {"head_dim": 8},
    "one head each": {"head_dim": 8, "num_key_value_heads": 4},
    "one key for all": {"head_dim": 8, "num_key_value_heads": 1},
    "biases": {"head_dim": 8, "attention_bias": True},
    "untied": {"head_dim": 8, "tie_word_embeddings": False, "rms_norm_eps": 1e-3},
    "the first word for its activation": {"head_dim": 8, "hidden_act": "gelu"},
    "linear scaling": {"head_dim": 8, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}},
}


@pytest.mark.parametrize("name", CASES)
def test_parity(tmp_path: Path, name: str) -> None:
    model = reference.saved(GemmaForCausalLM, GemmaConfig(**{**TINY, **CASES[name]}), tmp_path)
    (tmp_path / "back").mkdir()
    reference.parity(model, tmp_path, tmp_path / "back")


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "silu"},
        {"hidden_activation": "relu"},
        {"use_bidirectional_attention": True},
        {"attn_logit_softcapping": 50.0},
        {"head_dim": 0},
    ],
    ids=str,
)
def test_what_it_cannot_compute_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    reference.saved(GemmaForCausalLM, GemmaConfig(**{**TINY, **CASES[next(iter(CASES))]}), tmp_path)
    reference.refuses(tmp_path, change)
