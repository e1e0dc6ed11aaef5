"""Bamba against transformers: every shape in which the family comes, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from transformers import BambaConfig, BambaForCausalLM

from tsuzuri.model import weights
from tsuzuri.model.families import bamba

TINY = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128, "mamba_n_heads": 4, "mamba_d_state": 8, "mamba_n_groups": 1, "attn_layer_indices": [1],
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "attention in the middle": {},
    "attention at both ends": {"attn_layer_indices": [0, 2]},
    "only attention": {"attn_layer_indices": [0, 1, 2]},
    "groups of heads": {"mamba_n_groups": 2, "mamba_chunk_size": 4},
    "biases": {"attention_bias": True, "mlp_bias": True, "mamba_proj_bias": True},
    "no bias of the convolution": {"mamba_conv_bias": False, "mamba_d_conv": 3},
    "tied": {"tie_word_embeddings": True, "rms_norm_eps": 1e-3},
    "all of a head turns": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0}},
    "linear scaling": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}},
    "bounded steps": {"time_step_limit": (0.3, 0.6)},
}


@pytest.mark.parametrize("name", CASES)
def test_parity(tmp_path: Path, name: str) -> None:
    """Bounded steps: as in test_mamba2.py, transformers forgets the bounds when it writes with what it kept."""
    model = reference.saved(BambaForCausalLM, BambaConfig(**{**TINY, **CASES[name]}), tmp_path)
    (tmp_path / "back").mkdir()
    reference.parity(model, tmp_path, tmp_path / "back", cached=name != "bounded steps")


def test_a_plain_config_is_that_of_the_reference() -> None:
    assert bamba.shape(BambaConfig().to_dict()) == bamba.shape({"model_type": "bamba"})


@pytest.mark.parametrize(
    "change",
    [{"hidden_act": "gelu"}, {"mamba_d_head": 8}, {"attn_layer_indices": [3]}, {"attn_layer_indices": "all"}, {"sliding_window": 4}],
    ids=str,
)
def test_what_it_cannot_compute_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    reference.saved(BambaForCausalLM, BambaConfig(**TINY), tmp_path)
    reference.refuses(tmp_path, change)


def test_it_begins_as_the_identity_and_learns() -> None:
    from tsuzuri.model.past import Causal

    shape = bamba.Settings(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48).shape(60, 64)
    model = weights.build(bamba, shape).initialise(1)
    ids, past = reference.tokens(60), Causal(torch.arange(23))
    torch.testing.assert_close(model.hidden(ids, past), model.norm(model.embedding(ids)))
    first = None
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(model(ids[:-1], Causal(torch.arange(22))), ids[1:])
        first = first or float(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5 * first
