"""Scaling before quantisation: the same model before rounding, a smaller error after it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tsuzuri.errors import ConfigError
from tsuzuri.model.adapt import awq, quantize
from tsuzuri.model.past import Causal
from tsuzuri.model.transformer import Shape, Transformer

sys.path.insert(0, str(Path(__file__).parents[2]))
from test_open_folders import of_kind

SIZES = {"vocab_size": 60, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
SAMPLES = [torch.randint(60, (50,), generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]


def built(**choices: object) -> Transformer:
    """Some inputs are much larger than others, as in trained models: that is what scaling is for."""
    model = Transformer(Shape(**{**SIZES, "max_position_embeddings": 64, **choices})).requires_grad_(False)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1, generator=generator)
        if weight.dim() == 1:
            weight.add_(1).mul_(torch.where(torch.arange(len(weight)) % 16 == 3, 20.0, 1.0))
    return model


def logits(model: Transformer) -> torch.Tensor:
    return model(SAMPLES[0], Causal(torch.arange(50)))


@pytest.mark.parametrize(
    "choices", [{}, {"num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True}, {"norm": "layer_norm"}], ids=str
)
def test_before_rounding_nothing_changes(choices: dict[str, object]) -> None:
    model = built(**choices)
    before = logits(model)
    found = awq.scale(model, "q4_0", SAMPLES)
    assert (found == []) == ("norm" in choices), "a norm with a bias is left as it is"
    assert any(place.alpha > 0 for place in found) or "norm" in choices
    torch.testing.assert_close(logits(model), before, rtol=1e-3, atol=1e-4 * float(before.abs().max()))


@pytest.mark.parametrize("qk_norm", ["none", "head", "token"])
@pytest.mark.parametrize("block", of_kind("block"))
def test_in_no_block_does_anything_change_before_rounding(block: str, qk_norm: str) -> None:
    for norm in of_kind("norm"):
        model = built(block=block, qk_norm=qk_norm, norm=norm, head_dim=32, num_key_value_heads=2)
        before = logits(model)
        found = awq.scale(model, "q4_0", SAMPLES)
        assert bool(found) == (block in awq.BEFORE and norm in ("rms_norm", "layer_norm_scale"))
        torch.testing.assert_close(logits(model), before, rtol=1e-3, atol=1e-4 * float(before.abs().max()))


@pytest.mark.parametrize("choices", [{"feedforward": "plain"}, {"feedforward": "experts", "num_experts": 2}, {"layer_types": ("mamba2",)}])
def test_parts_that_it_does_not_know_are_left(choices: dict[str, object]) -> None:
    model = built(**choices)
    before = logits(model)
    names = {place.name.partition(".")[2].partition(".")[2] for place in awq.scale(model, "q4_0", SAMPLES)}
    assert names == ({"gate_up", "down"} if "layer_types" in choices else {"qkv", "output"})
    torch.testing.assert_close(logits(model), before, rtol=1e-3, atol=1e-4 * float(before.abs().max()))


def test_a_model_that_continues_no_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="calibrate"):
        awq.scale(built(causal=False), "q4_0", SAMPLES)


def test_after_rounding_the_error_is_smaller() -> None:
    plain, scaled = built(), built()
    wanted = logits(plain)
    for place in awq.scale(scaled, "q4_0", SAMPLES):
        assert place.error_after <= place.error_before
    errors = []
    for model in (plain, scaled):
        quantize.quantize(model, "q4_0")
        errors.append(float((logits(model) - wanted).square().mean()))
    assert errors[1] < 0.9 * errors[0]
