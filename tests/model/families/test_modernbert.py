"""ModernBERT against transformers: every head, windows shorter than the text, both ways to sum a text up, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
import transformers
from test_bert import HEADS, class_of
from transformers import ModernBertConfig

from tsuzuri.model import weights

TINY = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2,
    "local_attention": 6,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {name: {} for name in HEADS} | {
    "a window longer than the text": {"local_attention": 100},
    "untied": {"tie_word_embeddings": False},
    "no bias of the vocabulary": {"decoder_bias": False},
    "biases everywhere": {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True},
    "a label from the mean": {"classifier_pooling": "mean"},
    "other activations": {"hidden_activation": "silu", "classifier_activation": "relu"},
    "other layers with a window": {"layer_types": ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]},
    "other thetas": {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 700.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 90.0}
        }
    },
    "a scaling of layers that see all": {
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 3.0, "rope_theta": 700.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 90.0},
        }
    },
}  # fmt: skip


def saved(directory: Path, name: str) -> Any:
    kind = "a label for a text" if name == "a label from the mean" else name
    return reference.saved(class_of("ModernBert", kind), ModernBertConfig(**{**TINY, **CASES[name]}), directory)


@pytest.mark.parametrize("name", CASES)
def test_parity(tmp_path: Path, name: str) -> None:
    model = saved(tmp_path, name)
    (tmp_path / "back").mkdir()
    reference.encoder_parity(model, tmp_path, tmp_path / "back")


def test_the_fields_of_version_4_say_the_same(tmp_path: Path) -> None:
    """One layer in so many, thetas by name; a local theta that is null is the global one."""
    model = saved(tmp_path, "hidden tokens")
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for name in ("layer_types", "rope_parameters"):
        del config[name]
    config |= {"global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0, "reference_compile": None}
    path.write_text(json.dumps(config | {"position_embedding_type": "absolute", "layer_norm_eps": 1e-5}))
    ids = reference.tokens(60)
    with torch.inference_mode():
        reference.close(reference.encoded(weights.load(tmp_path), ids), model(ids[None]).logits[0])
    path.write_text(json.dumps(config | {"local_rope_theta": None}))
    assert weights.load(tmp_path).shape.rope_local_theta == 160000.0
    again = weights.decoder("modernbert").config(weights.load(tmp_path).shape)
    assert again["global_attn_every_n_layers"] == 3 and again["local_attention"] == 6


@pytest.mark.parametrize(
    "change",
    [
        {"classifier_pooling": "max"}, {"hidden_activation": "mish"}, {"layer_types": ["recurrent"] * 4}, {"is_decoder": True},
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, {"rope_parameters": {"rope_theta": 3.0}},
        {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}}, {"num_hidden_layers": 1 << 30},
    ],
    ids=str,
)  # fmt: skip
def test_what_it_cannot_compute_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    reference.saved(transformers.ModernBertForMaskedLM, ModernBertConfig(**TINY), tmp_path)
    reference.refuses(tmp_path, change)


def test_a_plain_config_of_the_class_is_one_we_know() -> None:
    shape = weights.decoder("modernbert").shape(ModernBertConfig().to_dict())
    assert (shape.num_hidden_layers, shape.sliding_window, shape.pooling, shape.head) == (22, 65, "first", "embed")
