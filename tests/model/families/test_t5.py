"""T5 and mT5 against transformers: both versions, stacks of different depth, texts longer than the last bucket."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import MT5Config, MT5ForConditionalGeneration, T5Config, T5ForConditionalGeneration

from tsuzuri.errors import ConfigError
from tsuzuri.model import weights
from tsuzuri.model.encoder_decoder import EncoderDecoder
from tsuzuri.model.families import t5
from tsuzuri.model.parts import relative
from tsuzuri.model.past import Bidirectional

TINY = {
    "vocab_size": 60, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20,
}  # fmt: skip
UNSCALED = {"tie_word_embeddings": False}  # what says so to transformers, whether or not the head is its own
CASES: dict[str, dict[str, Any]] = {
    "version 1.0: relu, tied and scaled": {},
    "version 1.1: gated gelu, not scaled": {"feed_forward_proj": "gated-gelu", **UNSCALED},
    "a decoder deeper than the encoder": {"num_decoder_layers": 3, "layer_norm_epsilon": 1e-3},
    "heads wider than the state, another start": {"d_kv": 12, "num_heads": 3, "decoder_start_token_id": 7},
    "32 buckets up to 128": {"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128},
    "gated silu": {"feed_forward_proj": "gated-silu", **UNSCALED},
}


def unrounded(model: Any) -> None:
    """The reference's norms round the variance to float32 even in a float64 model, and scores without 1/√E carry that to the fifth
    digit: the float64 comparison is made with norms that do not round."""
    for norm in model.modules():
        if type(norm).__name__ in ("T5LayerNorm", "MT5LayerNorm"):
            norm.forward = functools.partial(F.rms_norm, normalized_shape=norm.weight.shape, weight=norm.weight, eps=norm.variance_epsilon)


@pytest.mark.parametrize("name", CASES)
def test_parity(tmp_path: Path, name: str) -> None:
    model = reference.saved(T5ForConditionalGeneration, T5Config(**{**TINY, **CASES[name]}), tmp_path)
    (tmp_path / "back").mkdir()
    reference.pair_parity(model, tmp_path, tmp_path / "back", length=40, widen=unrounded)


def test_mt5_is_version_1_1_under_its_own_name(tmp_path: Path) -> None:
    model = reference.saved(MT5ForConditionalGeneration, MT5Config(**TINY), tmp_path)
    (tmp_path / "back").mkdir()
    reference.pair_parity(model, tmp_path, tmp_path / "back", widen=unrounded)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("said", [True, False])
def test_a_head_of_its_own_is_found_whatever_the_config_says(tmp_path: Path, said: bool) -> None:
    """Version 1.1 as published says `tie_word_embeddings: false`; saved again by transformers 5 it says true."""
    reference.saved(T5ForConditionalGeneration, T5Config(**TINY, **CASES["version 1.1: gated gelu, not scaled"]), tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    found["lm_head.weight"] = torch.randn(60, 32, generator=torch.Generator().manual_seed(3))
    save_file(found, tmp_path / "model.safetensors", metadata={"format": "pt"})
    if not said:
        config = weights.read_json(tmp_path / "config.json") | {"tie_word_embeddings": False}
        del config["scale_decoder_outputs"]
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model = T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert not torch.equal(model.lm_head.weight, model.shared.weight)
    (tmp_path / "back").mkdir()
    reference.pair_parity(model, tmp_path, tmp_path / "back", widen=unrounded)


def test_a_published_checkpoint_repeats_the_embedding_and_keeps_a_bias_that_nobody_reads(tmp_path: Path) -> None:
    model = reference.saved(T5ForConditionalGeneration, T5Config(**TINY), tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
        found[name] = found["shared.weight"].clone()
    found["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.ones(8, 4)
    save_file(found, tmp_path / "model.safetensors", metadata={"format": "pt"})
    source, target = reference.tokens(60), reference.tokens(60, 9, seed=3)
    with torch.inference_mode():
        expected = model(source[None], decoder_input_ids=target[None]).logits[0]
    reference.close(reference.pair_logits(weights.load(tmp_path), source, target), expected)


@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (8, 20), (4, 3)])
def test_buckets_are_those_of_the_reference(buckets: int, distance: int, both_ways: bool) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    ahead = torch.arange(-300, 301)
    expected = T5Attention._relative_position_bucket(ahead, both_ways, buckets, distance)
    assert torch.equal(relative.bucket(ahead, buckets, distance, both_ways=both_ways), expected)
    assert int(expected.max()) == buckets - 1


@pytest.mark.parametrize(
    "change",
    [
        {"feed_forward_proj": "gated-tanh"},
        {"num_layers": 0},
        {"decoder_start_token_id": 60},
        {"dense_act_fn": "silu"},
        {"d_model": 1 << 40},
        {"a_field_of_tomorrow": 1},
    ],
)
def test_what_it_cannot_compute_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    reference.saved(T5ForConditionalGeneration, T5Config(**TINY), tmp_path)
    reference.refuses(tmp_path, change)


@pytest.mark.parametrize("change", [{"relative_attention_num_buckets": 6}, {"relative_attention_max_distance": 4}])
def test_buckets_that_cannot_be_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="relative_"):
        t5.shape(T5Config(**TINY).to_dict() | change)


# ── how it begins


def begun() -> EncoderDecoder:
    shape = t5.SHAPE(**t5.USUAL, vocab_size=200, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    return t5.MODEL(shape, dtype=torch.float64).initialise(1)


def test_heads_begin_near_sighted_each_less_than_the_one_before() -> None:
    model = begun()
    places = torch.arange(40)
    for side, both in ((model.encoder, True), (model.decoder, False)):
        bias = side.position.bias(places[20:21], places)[:, 0]  # (H, S), of the token in the middle
        behind = bias[:, :21].detach()
        assert (behind[:2, 15:].diff(dim=-1) > 0.05).all(), "nearer is more, where a head looks near"
        spread = behind.amax(-1) - behind.amin(-1)
        assert (spread[:-1] > 2 * spread[1:]).all()
        if both:
            torch.testing.assert_close(bias[:, 21:].detach(), behind[:, :-1].flip(-1)[:, :19], rtol=0, atol=0.2)  # but for what is drawn


def test_a_token_sees_first_the_same_token_of_the_memory() -> None:
    model, ids = begun(), torch.randperm(200, generator=torch.Generator().manual_seed(3))[:50]
    with torch.inference_mode():
        memory = model.encode(ids, Bidirectional(torch.arange(50)))
        for block in model.decoder.blocks:
            seen = block.cross_norm(model.decoder.embedding(ids))
            queries, (keys, _) = block.cross.query(seen).unflatten(-1, (4, -1)), block.cross.project(memory)
            scores = torch.einsum("qhe,khe->hqk", queries, keys)  # T5 divides by nothing
            assert (scores.softmax(-1).diagonal(dim1=-2, dim2=-1) > 0.1).double().mean() > 0.7, "five times its share, nearly always"
            assert (scores.argmax(-1) == torch.arange(50)).double().mean() > 0.8
