"""Mamba-2 against transformers: every shape in which the family comes, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from transformers import Mamba2Config, Mamba2ForCausalLM

from tsuzuri.model import weights
from tsuzuri.model.families import mamba2

TINY = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1}
CASES: dict[str, dict[str, Any]] = {
    "one group": {},
    "groups of heads": {"n_groups": 2, "chunk_size": 4},
    "one head": {"num_heads": 1, "head_dim": 64},
    "biases": {"use_bias": True, "use_conv_bias": True},
    "no bias of the convolution": {"use_conv_bias": False, "conv_kernel": 3},
    "tied": {"tie_word_embeddings": True, "layer_norm_epsilon": 1e-3},
    "wider inside": {"expand": 3, "num_heads": 6},
    "bounded steps": {"time_step_limit": (0.3, 0.6)},
}


@pytest.mark.parametrize("name", CASES)
def test_parity(tmp_path: Path, name: str) -> None:
    """With bounded steps transformers bounds them while it reads a prompt and no longer when it writes token by token: what it
    writes with what it kept differs from its own logits of the whole text. Those are what both are held to."""
    model = reference.saved(Mamba2ForCausalLM, Mamba2Config(**{**TINY, **CASES[name]}), tmp_path)
    (tmp_path / "back").mkdir()
    reference.parity(model, tmp_path, tmp_path / "back", cached=name != "bounded steps")


def test_a_text_of_several_chunks(tmp_path: Path) -> None:
    model = reference.saved(Mamba2ForCausalLM, Mamba2Config(**{**TINY, "chunk_size": 16}), tmp_path)
    ids = reference.tokens(60, 150)
    with torch.inference_mode():
        reference.close(reference.logits(weights.load(tmp_path), ids), model(ids[None]).logits[0])


def test_a_plain_config_is_that_of_the_reference() -> None:
    assert mamba2.shape(Mamba2Config().to_dict()) == mamba2.shape({"model_type": "mamba2"})


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "gelu"},
        {"head_dim": 8},
        {"time_step_limit": [0.5]},
        {"time_step_limit": [-1.0, 2.0]},
        {"use_bias": 1},
        {"norm_before_gate": True},
    ],
    ids=str,
)
def test_what_it_cannot_compute_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    reference.saved(Mamba2ForCausalLM, Mamba2Config(**TINY), tmp_path)
    reference.refuses(tmp_path, change)
