"""GPT-NeoX against transformers: every shape in which the family comes, old checkpoints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import reference
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from tsuzuri.model import weights
from tsuzuri.model.families import gpt_neox

TINY = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 128,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "parallel, a quarter of a head turns": {},
    "one after the other": {"use_parallel_residual": False},
    "the whole head turns": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0}},
    "half a head turns": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}},
    "no biases of attention": {"attention_bias": False, "layer_norm_eps": 1e-3},
    "tied": {"tie_word_embeddings": True},
    "linear scaling": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0, "partial_rotary_factor": 0.5}},
    "dynamic scaling": {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 500.0, "partial_rotary_factor": 0.5}},
    "activation of GPT-2": {"hidden_act": "gelu_new"},
}


@pytest.mark.parametrize("name", CASES)
def test_parity(tmp_path: Path, name: str) -> None:
    model = reference.saved(GPTNeoXForCausalLM, GPTNeoXConfig(**TINY | CASES[name]), tmp_path)
    (tmp_path / "back").mkdir()
    reference.parity(model, tmp_path, tmp_path / "back")


def test_the_plain_config_of_the_class_is_read() -> None:
    reference.reads_its_default(gpt_neox, GPTNeoXConfig())


def test_a_checkpoint_of_the_hub_is_read(tmp_path: Path) -> None:
    """Version 4: rotary_pct and rotary_emb_base, masks and frequencies of every layer beside the weights."""
    rope = {"rope_type": "default", "rope_theta": 700.0, "partial_rotary_factor": 0.5}
    model = reference.saved(GPTNeoXForCausalLM, GPTNeoXConfig(**TINY, rope_parameters=rope), tmp_path)
    extra = ["attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq"]
    reference.as_on_the_hub(tmp_path, "", [f"gpt_neox.layers.1.{name}" for name in extra])
    path = tmp_path / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    del config["rope_parameters"]
    path.write_text(json.dumps(config | {"rotary_pct": 0.5, "rotary_emb_base": 700}), encoding="utf-8")
    reference.same(model, tmp_path)
    assert weights.load(tmp_path).shape.rope_theta == 700


def test_a_head_that_only_repeats_the_embedding_is_passed_over(tmp_path: Path) -> None:
    model = reference.saved(GPTNeoXForCausalLM, GPTNeoXConfig(**TINY, tie_word_embeddings=True), tmp_path)
    reference.repeat(tmp_path, "gpt_neox.embed_in.weight", "embed_out.weight")
    reference.same(model, tmp_path)
    reference.refuses_weight(tmp_path, "embed_out.weight")


@pytest.mark.parametrize("change", [{"hidden_act": "mish"}, {"rotary_pct": 0}, {"use_parallel_residual": 1}, {"num_key_value_heads": 2}])
def test_what_it_cannot_compute_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    reference.saved(GPTNeoXForCausalLM, GPTNeoXConfig(**TINY), tmp_path)
    assert next(iter(change)) in reference.refuses(tmp_path, change)


@pytest.mark.parametrize("choices", [{"block": "post_norm"}, {"num_key_value_heads": 1}, {"head_dim": 16}, {"mlp_bias": False}])
def test_a_shape_it_cannot_say_is_not_written(choices: dict[str, Any]) -> None:
    reference.cannot_say(gpt_neox, choices)


def test_it_learns() -> None:
    reference.learns(gpt_neox)
