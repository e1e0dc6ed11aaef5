"""RoBERTa against transformers: every head, positions from the padding token's number on, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import reference
import transformers
from test_bert import HEADS, TINY, class_of
from transformers import RobertaConfig

from tsuzuri.model import weights

CASES: dict[str, dict[str, Any]] = {name: {} for name in HEADS} | {
    "untied": {"tie_word_embeddings": False},
    "one segment": {"type_vocab_size": 1},
    "another padding token": {"pad_token_id": 0},
    "another activation, but not in the head": {"hidden_act": "relu"},
}


@pytest.mark.parametrize("name", CASES)
def test_parity(tmp_path: Path, name: str) -> None:
    model = reference.saved(class_of("Roberta", name), RobertaConfig(**TINY, **CASES[name]), tmp_path)
    (tmp_path / "back").mkdir()
    reference.encoder_parity(model, tmp_path, tmp_path / "back")
    assert weights.load(tmp_path).shape.position_offset == CASES[name].get("pad_token_id", 1) + 1


@pytest.mark.parametrize(
    "change", [{"pad_token_id": None}, {"pad_token_id": 39}, {"architectures": ["BertForMaskedLM"]}, {"is_decoder": True}], ids=str
)
def test_what_it_cannot_compute_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    reference.saved(transformers.RobertaForMaskedLM, RobertaConfig(**TINY), tmp_path)
    reference.refuses(tmp_path, change)


def test_a_plain_config_of_the_class_is_one_we_know() -> None:
    shape = weights.decoder("roberta").shape(RobertaConfig().to_dict())
    assert (shape.max_position_embeddings, shape.position_offset, shape.head) == (510, 2, "embed")
