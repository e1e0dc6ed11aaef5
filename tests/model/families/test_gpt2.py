"""GPT-2 against transformers: every shape in which the family comes, old checkpoints, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import reference
from transformers import GPT2Config, GPT2LMHeadModel

from tsuzuri.model.families import gpt2

TINY = {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
CASES: dict[str, dict[str, Any]] = {
    "feed-forward four times as wide": {},
    "feed-forward of another width": {"n_inner": 48, "layer_norm_epsilon": 1e-3},
    "a head of its own": {"tie_word_embeddings": False},
    "scores not scaled": {"scale_attn_weights": False},
    "scores divided by the layer": {"scale_attn_by_inverse_layer_idx": True, "n_layer": 3},
    "scores divided by the layer alone": {"scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": False, "n_layer": 3},
    "attention in float32": {"reorder_and_upcast_attn": True},
    **{f"activation {name}": {"activation_function": name} for name in ("relu", "silu", "gelu", "tanh", "gelu_fast", "relu2")},
}


@pytest.mark.parametrize("name", CASES)
def test_parity(tmp_path: Path, name: str) -> None:
    model = reference.saved(GPT2LMHeadModel, GPT2Config(**TINY | CASES[name]), tmp_path)
    (tmp_path / "back").mkdir()
    reference.parity(model, tmp_path, tmp_path / "back")


def test_the_plain_config_of_the_class_is_read() -> None:
    reference.reads_its_default(gpt2, GPT2Config())


def test_a_checkpoint_of_the_hub_is_read(tmp_path: Path) -> None:
    """No prefix, the masks of every layer beside the weights, fields of early versions."""
    model = reference.saved(GPT2LMHeadModel, GPT2Config(**TINY), tmp_path)
    reference.as_on_the_hub(tmp_path, "transformer.", ["h.0.attn.bias", "h.1.attn.bias", "h.1.attn.masked_bias"])
    reference.rewrite(
        tmp_path, {"n_ctx": 128, "task_specific_params": {"text-generation": {"max_length": 50}}, "gradient_checkpointing": False}
    )
    reference.same(model, tmp_path)


def test_a_bias_of_a_layer_too_many_is_not_taken_for_a_mask(tmp_path: Path) -> None:
    reference.saved(GPT2LMHeadModel, GPT2Config(**TINY), tmp_path)
    reference.refuses_weight(tmp_path, "transformer.h.2.attn.c_attn.bias")


@pytest.mark.parametrize(
    "change", [{"activation_function": "quick_gelu"}, {"add_cross_attention": True}, {"scale_attn_weights": 0.5}, {"n_experts": 2}]
)
def test_what_it_cannot_compute_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    reference.saved(GPT2LMHeadModel, GPT2Config(**TINY), tmp_path)
    assert next(iter(change)) in reference.refuses(tmp_path, change)


@pytest.mark.parametrize(
    "choices", [{"num_key_value_heads": 1}, {"head_dim": 4}, {"attention_scale": 0.5}, {"block": "post_norm"}, {"position": "rotary"}]
)
def test_a_shape_it_cannot_say_is_not_written(choices: dict[str, Any]) -> None:
    reference.cannot_say(gpt2, choices)


def test_it_learns() -> None:
    reference.learns(gpt2)
