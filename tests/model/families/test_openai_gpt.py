"""GPT-1 against transformers: every shape in which the family comes, old checkpoints, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import reference
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

from tsuzuri.model.families import openai_gpt

TINY = {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
CASES: dict[str, dict[str, Any]] = {
    "tied": {},
    "a head of its own": {"tie_word_embeddings": False, "layer_norm_epsilon": 1e-3},
    "one head, one layer": {"n_head": 1, "n_layer": 1},
    "activation relu": {"afn": "relu"},
    "activation silu": {"afn": "silu"},
}


@pytest.mark.parametrize("name", CASES)
def test_parity(tmp_path: Path, name: str) -> None:
    model = reference.saved(OpenAIGPTLMHeadModel, OpenAIGPTConfig(**TINY | CASES[name]), tmp_path)
    (tmp_path / "back").mkdir()
    reference.parity(model, tmp_path, tmp_path / "back")


def test_the_plain_config_of_the_class_is_read() -> None:
    reference.reads_its_default(openai_gpt, OpenAIGPTConfig())


def test_a_checkpoint_of_the_hub_is_read(tmp_path: Path) -> None:
    model = reference.saved(OpenAIGPTLMHeadModel, OpenAIGPTConfig(**TINY), tmp_path)
    reference.as_on_the_hub(tmp_path, "transformer.", ["h.0.attn.bias", "h.1.attn.bias", "position_ids"])
    reference.rewrite(tmp_path, {"n_ctx": 64, "n_special": 0, "predict_special_tokens": True, "task_specific_params": {}})
    reference.same(model, tmp_path)


@pytest.mark.parametrize("change", [{"afn": "gelu_new"}, {"n_special": 3}, {"n_inner": 48}, {"afn": ["gelu"]}])
def test_what_it_cannot_compute_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    reference.saved(OpenAIGPTLMHeadModel, OpenAIGPTConfig(**TINY), tmp_path)
    assert next(iter(change)) in reference.refuses(tmp_path, change)


@pytest.mark.parametrize("choices", [{"intermediate_size": 48}, {"hidden_act": "gelu"}, {"hidden_act": "tanh"}, {"mlp_bias": False}])
def test_a_shape_it_cannot_say_is_not_written(choices: dict[str, Any]) -> None:
    reference.cannot_say(openai_gpt, choices)


def test_it_learns() -> None:
    reference.learns(openai_gpt)
