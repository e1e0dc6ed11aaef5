"""BERT against transformers: every head, every shape in which the family comes, old checkpoints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import BertConfig

from tsuzuri.errors import ConfigError, FormatError
from tsuzuri.model import weights

TINY = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 40,
}  # fmt: skip
HEADS = {
    "hidden tokens": "MaskedLM", "a label for a text": "SequenceClassification", "a label for each token": "TokenClassification",
    "an answer in a text": "QuestionAnswering", "a body alone": "",
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {name: {} for name in HEADS} | {
    "untied": {"tie_word_embeddings": False},
    "the other gelu": {"hidden_act": "gelu_new"},
    "one segment": {"type_vocab_size": 1},
    "named labels": {"id2label": {0: "許容できる", 1: "許容できない", 2: "わからない"}, "label2id": {"許容できる": 0, "許容できない": 1, "わからない": 2}},
}  # fmt: skip


def class_of(stem: str, name: str) -> Any:
    ending = HEADS.get(name, "SequenceClassification" if name == "named labels" else "MaskedLM")
    return getattr(transformers, f"{stem}For{ending}" if ending else f"{stem}Model")


@pytest.mark.parametrize("name", CASES)
def test_parity(tmp_path: Path, name: str) -> None:
    model = reference.saved(class_of("Bert", name), BertConfig(**TINY, **CASES[name]), tmp_path)
    (tmp_path / "back").mkdir()
    reference.encoder_parity(model, tmp_path, tmp_path / "back")


def test_labels_keep_their_names(tmp_path: Path) -> None:
    reference.saved(class_of("Bert", "named labels"), BertConfig(**TINY, **CASES["named labels"]), tmp_path)
    model = weights.load(tmp_path)
    assert model.shape.labels == ("許容できる", "許容できない", "わからない")
    config = weights.family_of(tmp_path).config(model.shape)
    assert config["label2id"]["許容できない"] == 1 and config["id2label"]["2"] == "わからない"


def test_a_checkpoint_of_the_first_years_is_read(tmp_path: Path) -> None:
    """gamma and beta, counted positions, the pooler and the second task of pre-training, a head written out."""
    model = reference.saved(transformers.BertForPreTraining, BertConfig(**TINY), tmp_path)
    path = tmp_path / "model.safetensors"
    found = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in load_file(path).items()
    }
    found["bert.embeddings.position_ids"] = torch.arange(40)[None]
    found["cls.predictions.decoder.weight"] = found["bert.embeddings.word_embeddings.weight"].clone()
    save_file(found, path)
    assert any(name.endswith("gamma") for name in found) and "cls.seq_relationship.weight" in found
    ids = reference.tokens(60)
    with torch.inference_mode():
        reference.close(reference.encoded(weights.load(tmp_path), ids), model(ids[None]).prediction_logits[0])
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))
    with pytest.raises(FormatError, match=r"cls\.predictions"):
        weights.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"position_embedding_type": "relative_key"}, {"is_decoder": True}, {"hidden_act": "mish"}, {"architectures": ["BertForMultipleChoice"]},
        {"architectures": ["BertLMHeadModel"]}, {"problem_type": "regression"}, {"a_field_of_tomorrow": 1}, {"id2label": {"1": "a"}},
        {"label2id": {"a": 3}, "id2label": {"0": "a"}},
    ],
    ids=str,
)  # fmt: skip
def test_what_it_cannot_compute_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    reference.saved(transformers.BertForSequenceClassification, BertConfig(**TINY), tmp_path)
    reference.refuses(tmp_path, change)


def test_a_plain_config_of_the_class_is_one_we_know() -> None:
    shape = weights.decoder("bert").shape(BertConfig().to_dict())
    assert (shape.hidden_size, shape.head, shape.causal) == (768, "embed", False)


# ── another head


def test_another_head_on_a_trained_body(tmp_path: Path) -> None:
    """The body is what it was; what is new and what was left aside is said by name."""
    old = reference.saved(transformers.BertForMaskedLM, BertConfig(**TINY), tmp_path)
    body = weights.load_body(tmp_path, head="classify", labels=("a", "b", "c"))
    assert body.new == ("head.dense.weight", "head.dense.bias", "head.output.weight", "head.output.bias")
    assert body.left == (
        "cls.predictions.bias", "cls.predictions.transform.LayerNorm.bias", "cls.predictions.transform.LayerNorm.weight",
        "cls.predictions.transform.dense.bias", "cls.predictions.transform.dense.weight",
    )  # fmt: skip
    ids = reference.tokens(60)
    with torch.inference_mode():
        past = reference._alone(len(ids), None)
        reference.close(body.model.hidden(ids[None], past)[0], old.bert(ids[None]).last_hidden_state[0])
        again = weights.load_body(tmp_path, head="classify", labels=("a", "b", "c"))
        assert torch.equal(reference.read(again.model, ids[None], past), reference.read(body.model, ids[None], past))


def test_a_head_that_is_there_is_taken(tmp_path: Path) -> None:
    """The pooler of a body, for a classifier; another number of labels is another head."""
    old = reference.saved(transformers.BertModel, BertConfig(**TINY), tmp_path)
    body = weights.load_body(tmp_path, head="classify", labels=("a", "b"))
    assert body.new == ("head.output.weight", "head.output.bias") and body.left == ()
    assert torch.equal(body.model.head.dense.weight, old.pooler.dense.weight)
    weights.save(body.model, tmp_path, "bert")
    three = weights.load_body(tmp_path, head="classify", labels=("a", "b", "c"))
    assert three.new == ("head.output.weight", "head.output.bias") and three.left == ("classifier.bias", "classifier.weight")


def test_a_body_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    reference.saved(transformers.BertModel, BertConfig(**TINY), tmp_path)
    path = tmp_path / "model.safetensors"
    found = load_file(path)
    del found["encoder.layer.1.output.dense.bias"]
    save_file(found, path)
    with pytest.raises(FormatError, match=r"blocks\.1\.feedforward\.down\.bias"):
        weights.load_body(tmp_path, head="tag", labels=("O", "B"))


@pytest.mark.parametrize(("head", "labels"), [("classify", ()), ("tag", ()), ("extract", ("a", "b", "c")), ("tag", ("a", "a"))], ids=str)
def test_a_head_without_the_labels_it_needs_is_refused(tmp_path: Path, head: str, labels: tuple[str, ...]) -> None:
    reference.saved(transformers.BertModel, BertConfig(**TINY), tmp_path)
    with pytest.raises(ConfigError, match="labels"):
        weights.load_body(tmp_path, head=head, labels=labels)
