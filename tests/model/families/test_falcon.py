"""Falcon against transformers: 7B, 40B, 11B and RW in small, what lies between, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from transformers import FalconConfig, FalconForCausalLM
from transformers.models.falcon.modeling_falcon import build_alibi_tensor

from tsuzuri.model.families import falcon
from tsuzuri.model.parts.alibi_bfloat16 import Part
from tsuzuri.model.transformer import Shape

TINY = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128}
NEW = {"new_decoder_architecture": True, "num_kv_heads": 2}
RW = {"alibi": True, "bias": True, "multi_query": False, "parallel_attn": False}
CASES: dict[str, dict[str, Any]] = {
    "7B: one key, one norm": {},
    "40B: grouped keys, two norms": NEW,
    "11B: grouped keys, one norm": {**NEW, "num_ln_in_parallel_attn": 1, "tie_word_embeddings": False, "ffn_hidden_size": 48},
    "40B with a key for each head": {"new_decoder_architecture": True},
    "40B with one key, biases": {"new_decoder_architecture": True, "num_kv_heads": 1, "bias": True},
    "RW: ALiBi, a key for each head, biases, one after the other": RW,
    "RW with six heads": {**RW, "hidden_size": 48, "num_attention_heads": 6},
    "parallel with a key for each head": {"multi_query": False, "bias": True, "layer_norm_epsilon": 1e-3},
    "one after the other with one key": {"parallel_attn": False},
    "ALiBi in parallel with grouped keys": {**NEW, "alibi": True},
    "linear scaling": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}},
    "activation relu": {"activation": "relu"},
}


@pytest.mark.parametrize("name", CASES)
def test_parity(tmp_path: Path, name: str) -> None:
    model = reference.saved(FalconForCausalLM, FalconConfig(**TINY | CASES[name]), tmp_path)
    (tmp_path / "back").mkdir()
    reference.parity(model, tmp_path, tmp_path / "back")


def test_a_text_so_long_that_bfloat16_no_longer_tells_positions_apart(tmp_path: Path) -> None:
    model = reference.saved(FalconForCausalLM, FalconConfig(**TINY | RW | {"max_position_embeddings": 1024}), tmp_path)
    ids, ours = reference.tokens(60, 600), reference.weights.load(tmp_path)
    with torch.inference_mode():
        reference.close(reference.logits(ours, ids), model(ids[None]).logits[0])


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 8, 12, 32, 71, 112, 128])
def test_the_bias_is_that_of_the_reference_to_the_bit(heads: int) -> None:
    count = 1100
    there = build_alibi_tensor(torch.ones(1, count, dtype=torch.long), heads, torch.float32)  # (H, 1, S), before the scale
    # heads of size 1, so that the scale is 1
    part = Part(Shape(vocab_size=9, hidden_size=heads, num_hidden_layers=1, num_attention_heads=heads, position="none"))
    here = part.bias(torch.arange(1), torch.arange(count))
    assert torch.equal(here, there)


def test_the_plain_config_of_the_class_is_read() -> None:
    reference.reads_its_default(falcon, FalconConfig())


def test_a_checkpoint_of_the_hub_is_read(tmp_path: Path) -> None:
    model = reference.saved(FalconForCausalLM, FalconConfig(**TINY), tmp_path)
    reference.repeat(tmp_path, "transformer.word_embeddings.weight", "lm_head.weight")
    reference.rewrite(tmp_path, {"apply_residual_connection_post_layernorm": False, "ff_factor": 4, "rope_scaling": None, "n_embed": 32})
    reference.same(model, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"num_ln_in_parallel_attn": 2},  # of the old architecture: the reference itself fails
        {"num_ln_in_parallel_attn": 3, "new_decoder_architecture": True},
        {"parallel_attn": False, "new_decoder_architecture": True},
        {"num_kv_heads": 2, "multi_query": False},
        {"multi_query": None},
        {"apply_residual_connection_post_layernorm": True},
        {"activation": "mish"},
        {"partial_rotary_factor": 0.5},
    ],
)
def test_what_it_cannot_compute_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    reference.saved(FalconForCausalLM, FalconConfig(**TINY), tmp_path)
    assert next(iter(change)) in reference.refuses(tmp_path, change)


@pytest.mark.parametrize(
    "choices",
    [
        {"block": "post_norm"},
        {"position": "alibi"},
        {"mlp_bias": True},
        {"attention_output_bias": True},
        {"head_dim": 4},
        {"block": "pre_norm", "num_attention_heads": 4, "num_key_value_heads": 2},
    ],
)
def test_a_shape_it_cannot_say_is_not_written(choices: dict[str, Any]) -> None:
    reference.cannot_say(falcon, choices)


def test_it_learns() -> None:
    reference.learns(falcon)
