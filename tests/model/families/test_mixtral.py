"""Mixtral against transformers: experts, how they are stored, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import reference

from transformers import MixtralConfig, MixtralForCausalLM

TINY: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "two of four experts": {"num_local_experts": 4},
    "one of three experts": {"num_local_experts": 3, "num_experts_per_tok": 1},
    "all of three experts": {"num_local_experts": 3, "num_experts_per_tok": 3},
    "one expert": {"num_local_experts": 1, "num_experts_per_tok": 1},
    "a window shorter than the text": {"num_local_experts": 4, "sliding_window": 5},
    "tied, heads of their own size": {"num_local_experts": 4, "tie_word_embeddings": True, "head_dim": 6},
    "noise and balance of training": {"num_local_experts": 4, "router_jitter_noise": 0.5, "router_aux_loss_coef": 0.0},
    "linear scaling": {"num_local_experts": 4, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}},
}


def saved(directory: Path, **choices: Any) -> Any:
    """The reference, expert by expert: its grouped product does not know float64."""
    config = MixtralConfig(**{**TINY, **choices})
    config._experts_implementation = "eager"
    return reference.saved(MixtralForCausalLM, config, directory)


@pytest.mark.parametrize("name", CASES)
def test_parity(tmp_path: Path, name: str) -> None:
    model = saved(tmp_path, **CASES[name])
    (tmp_path / "back").mkdir()
    reference.parity(model, tmp_path, tmp_path / "back")
