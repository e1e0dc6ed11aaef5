"""Mixtral against transformers: experts, how they are stored, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from transformers import MixtralConfig, MixtralForCausalLM

from tsuzuri.errors import FormatError
from tsuzuri.model import safe, weights

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


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "gelu"},
        {"num_experts_per_tok": 5},
        {"num_local_experts": 0},
        {"router_aux_loss_coef": -0.1},
        {"router_aux_loss_coef": False},
        {"n_shared_experts": 1},
    ],
    ids=str,
)
def test_what_it_cannot_compute_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    saved(tmp_path, num_local_experts=4)
    reference.refuses(tmp_path, change)


def test_all_experts_of_a_layer_in_one_tensor_are_the_same_model(tmp_path: Path) -> None:
    """As version 5 of transformers holds them in memory, and writes them where it is told to."""
    model = saved(tmp_path / "apart", num_local_experts=3)
    model.save_pretrained(tmp_path / "together", save_original_format=False)
    stored = safe.read(tmp_path / "together" / "model.safetensors")
    assert stored["model.layers.1.mlp.experts.gate_up_proj"].shape == (3, 96, 32)
    one, other = (weights.load(tmp_path / name) for name in ("apart", "together"))
    assert all(torch.equal(weight, other.state_dict()[name]) for name, weight in one.state_dict().items())


@pytest.mark.parametrize("experts", [2, 4])
def test_one_tensor_of_another_number_of_experts_is_refused(tmp_path: Path, experts: int) -> None:
    saved(tmp_path, num_local_experts=3).save_pretrained(tmp_path, save_original_format=False)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"num_local_experts": experts}), encoding="utf-8")
    with pytest.raises(FormatError):
        weights.load(tmp_path)
