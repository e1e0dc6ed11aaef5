"""Marian, the Transformer of 2017, against transformers and against torch.nn.Transformer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from torch import Tensor, nn
from transformers import MarianConfig, MarianMTModel

from tsuzuri.errors import ConfigError
from tsuzuri.model import weights
from tsuzuri.model.encoder_decoder import EncoderDecoder, PairShape
from tsuzuri.model.families import marian
from tsuzuri.model.past import Bidirectional, Causal, Memory

TINY = {
    "vocab_size": 60, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64, "pad_token_id": 40, "decoder_start_token_id": 40,
    "scale_embedding": True,
}  # fmt: skip
APART = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 50}
CASES: dict[str, dict[str, Any]] = {
    "relu, as in 2017": {"activation_function": "relu"},
    "swish, as OPUS-MT": {"activation_function": "swish", "decoder_layers": 3},
    "embeddings not scaled": {"scale_embedding": False},
    "stacks of different heads and widths": {"encoder_attention_heads": 2, "decoder_ffn_dim": 40, "encoder_layers": 1},
    "a vocabulary for each side": APART,
    "and a head of its own": {**APART, "tie_word_embeddings": False},
}


@pytest.mark.parametrize("name", CASES)
def test_parity(tmp_path: Path, name: str) -> None:
    model = reference.saved(MarianMTModel, MarianConfig(**{**TINY, **CASES[name]}), tmp_path)
    (tmp_path / "back").mkdir()
    reference.pair_parity(model, tmp_path, tmp_path / "back")


def test_a_published_checkpoint_repeats_the_embedding_and_the_positions(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = reference.saved(MarianMTModel, MarianConfig(**TINY), tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    for name in ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"):
        found[name] = found["model.shared.weight"].clone()
    for side in ("encoder", "decoder"):
        found[f"model.{side}.embed_positions.weight"] = torch.zeros(64, 32)
    save_file(found, tmp_path / "model.safetensors", metadata={"format": "pt"})
    source, target = reference.tokens(60), reference.tokens(60, 9, seed=3)
    with torch.inference_mode():
        expected = model(source[None], decoder_input_ids=target[None]).logits[0]
    reference.close(reference.pair_logits(weights.load(tmp_path), source, target), expected)


def test_it_is_the_transformer_of_torch(tmp_path: Path) -> None:
    """torch.nn.Transformer, which follows the paper, with our weights: the same states and logits."""
    shape = PairShape(
        **{**marian.USUAL, "vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 3, "encoder_layers": 2, "num_attention_heads": 4},
        intermediate_size=24, max_position_embeddings=32, embedding_multiplier=4.0,
    )  # fmt: skip
    model = EncoderDecoder(shape).double()
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3, generator=generator)
    theirs = nn.Transformer(16, 4, 2, 3, 24, dropout=0.0, activation="relu", batch_first=True, dtype=torch.float64)
    theirs.encoder.norm, theirs.decoder.norm = nn.Identity(), nn.Identity()  # the paper has none after the last layer
    theirs.load_state_dict(_as_torch(model))
    source, target = torch.randint(30, (2, 9), generator=generator), torch.randint(30, (2, 7), generator=generator)
    embedding, bias = model.decoder.embedding.weight, model.decoder.head.bias
    read, written = (embedding[ids] * 4 + _sinusoids(ids.shape[1], 16) for ids in (source, target))
    states = theirs(read, written, tgt_mask=nn.Transformer.generate_square_subsequent_mask(7, dtype=torch.float64))
    memory = Memory(model.encode(source, Bidirectional(torch.arange(9).expand(2, 9))))
    found = model(target, Causal(torch.arange(7).expand(2, 7), memory=memory))
    torch.testing.assert_close(found, states @ embedding.T + bias, rtol=1e-6, atol=1e-6)  # sinusoids are added in float32


def _sinusoids(length: int, size: int) -> Tensor:
    """Section 3.5, number by number."""
    table = torch.zeros(length, size, dtype=torch.float64)
    for position in range(length):
        for i in range(size // 2):
            angle = position / 10000 ** (2 * i / size)
            table[position, i], table[position, size // 2 + i] = math.sin(angle), math.cos(angle)
    return table


def _as_torch(model: EncoderDecoder) -> dict[str, Tensor]:
    """Our weights under torch's names: queries, keys and values stand in one matrix."""
    own, table = dict(model.named_parameters()), {}
    for side, depth in (("encoder", 2), ("decoder", 3)):
        attentions = {"mixer": "self_attn"} | ({"cross": "multihead_attn"} if side == "decoder" else {})
        norms = ["mixer_norm", *(["cross_norm"] if side == "decoder" else []), "feedforward_norm"]
        for layer in range(depth):
            ours, theirs = f"{side}.blocks.{layer}", f"{side}.layers.{layer}"
            for kind in ("weight", "bias"):
                for our, their in attentions.items():
                    parts = [own[f"{ours}.{our}.{name}.{kind}"] for name in ("query", "key", "value")]
                    table[f"{theirs}.{their}.in_proj_{kind}"] = torch.cat(parts)
                    table[f"{theirs}.{their}.out_proj.{kind}"] = own[f"{ours}.{our}.output.{kind}"]
                for number, name in enumerate(norms, 1):
                    table[f"{theirs}.norm{number}.{kind}"] = own[f"{ours}.{name}.{kind}"]
                for name, their in (("up", "linear1"), ("down", "linear2")):
                    table[f"{theirs}.{their}.{kind}"] = own[f"{ours}.feedforward.{name}.{kind}"]
    return table


@pytest.mark.parametrize(
    "change",
    [
        {"normalize_before": True},
        {"static_position_embeddings": False},
        {"tie_word_embeddings": False},
        {"decoder_vocab_size": 50},
        {"decoder_start_token_id": 60},
        {"activation_function": "mish"},
    ],
)
def test_what_it_cannot_compute_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    reference.saved(MarianMTModel, MarianConfig(**TINY), tmp_path)
    reference.refuses(tmp_path, change)


@pytest.mark.parametrize(
    ("change", "named"), [({"encoder_attention_heads": 5}, "num_attention_heads"), ({"decoder_layers": 1 << 20}, "num_hidden")]
)
def test_an_impossible_stack_is_refused_before_anything_is_allocated(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    reference.saved(MarianMTModel, MarianConfig(**TINY), tmp_path)
    config = weights.read_json(tmp_path / "config.json") | change
    with pytest.raises(ConfigError, match=named):
        marian.shape(config)
