"""One recipe, any family: made, tuned on conversations, exported, read back and talked to by the same stages."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from place import ROOT

import tsuzuri
from tsuzuri.errors import ConfigError
from tsuzuri.evals.bits import of_documents
from tsuzuri.evals.windows import bits_per_byte
from tsuzuri.model import weights
from tsuzuri.model.families import ngram
from tsuzuri.model.transformer import Shape
from tsuzuri.recipe import recipe as recipes
from tsuzuri.recipe.plan import plan, trains
from tsuzuri.recipe.run import run
from tsuzuri.recipe.stages.pretrain import from_pairs
from tsuzuri.text import fast, shards
from tsuzuri.text.corpus.read import read
from tsuzuri.train.watch import Watch

FAMILIES = {
    "ngram": {"order": 3}, "hmm": {"num_states": 8}, "rnn": {}, "gru": {}, "lstm": {"tie_word_embeddings": True},
    "mamba2": {"state_space": {"state_size": 8}}, "bamba": {"num_hidden_layers": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("families")
    texts = [json.dumps({"text": document.text[:1200]}, ensure_ascii=False) for document in islice(read([ROOT / "sample/pretrain"]), 30)]
    (found / "run").mkdir()
    (found / "texts.jsonl").write_text("\n".join(texts), encoding="utf-8")
    told = [[("user", f"元気？{number}"), ("assistant", "はい、元気です。")] for number in range(8)]
    talk = [{"source": "test", "messages": [{"role": role, "content": text} for role, text in each]} for each in told]
    lines = [json.dumps(each, ensure_ascii=False) for each in talk]
    (found / "talk.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return found


def recipe(place: Path, family: str) -> recipes.Recipe:
    """Corpus and tokenizer are made once: only what is behind them changes with the family."""
    training = {"batch": 2, "length": 48}
    return recipes.resolve(
        {
            "name": "families", "out": str(place / "run"), "size": 1, "stages": ["corpus", "tokenizer", "pretrain", "sft", "export"],
            "corpus": {"inputs": [str(place / "texts.jsonl")], "validation_fraction": 0.1}, "tokenizer": {"vocab_size": 400},
            "pretrain": {
                **training, "start": "auto", "steps": 4, "train_tokens": 6000, "validation_bytes": 300, "evaluate_every": 2,
                "model": {"family": family, **FAMILIES[family]},
            },
            "sft": {**training, "inputs": [str(place / "talk.jsonl")], "steps": 2, "validation_fraction": 0.25},
        }
    )  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_stages_make_a_model_of_every_family(family: str, place: Path) -> None:
    results = run(recipe(place, family), Watch())
    assert 0 < results["pretrain"]["bits"]["bits_per_byte"] < 12 and results["pretrain"]["parameters"] > 0
    assert results["export"]["logits_difference"] == 0
    model = tsuzuri.load(place / "run/model")
    assert json.loads((place / "run/model/config.json").read_text(encoding="utf-8"))["model_type"] == family
    text = "この法律は、"
    assert model.generate(text, temperature=0, max_tokens=4) == model.generate(text, temperature=0, max_tokens=4) != ""
    assert model.chat("元気？", temperature=0, max_tokens=4) is not None
    assert sum(row.probability for row in model.next(text, 400)) == pytest.approx(1, abs=1e-4)
    assert family in repr(model) or "parameters" in repr(model) or "counted" in repr(model)
    logits = model.logits(model.tokenizer.encode(text))
    assert torch.equal(logits, model.logits(model.tokenizer.encode(text))) and logits.isfinite().all()


def test_bits_of_an_n_gram_by_windows_are_those_of_its_own_score(place: Path) -> None:
    run(recipe(place, "ngram"), Watch(), until="pretrain")
    tokenizer = fast.load(place / "run/tokenizer/files")
    parts = [shards.Shards(place / f"run/pretrain/shards/{part}") for part in ("train", "validation")]
    texts, held = ([part.document(i) for i in range(len(part))] for part in parts)
    boundary = tokenizer.special["<|endoftext|>"]
    model = ngram.fit(ngram.Settings(order=3), texts, tokenizer.vocab_size, boundary)
    alone = of_documents(model.score, [np.asarray(each) for each in held], [int(n) for n in parts[1].byte_lengths])
    found = bits_per_byte(model, parts[1], boundary)
    assert found.bits_per_byte == pytest.approx(alone.bits_per_byte, rel=1e-6)


def test_conversations_are_added_to_what_was_counted(place: Path) -> None:
    results = run(recipe(place, "ngram"), Watch())
    assert results["sft"]["conversations"] + results["sft"]["held_out"] == 8
    assert results["sft"]["tokens"] > results["pretrain"]["tokens"]
    model = tsuzuri.load(place / "run/model")
    assert model.chat("元気？", temperature=0, max_tokens=30).startswith("はい、元気です。")


def test_a_plan_knows_every_family_that_is_trained_and_says_so_of_one_that_is_not(place: Path) -> None:
    found = plan(recipe(place, "hmm"))
    assert found.parameters == 8 + 8 * 8 + 8 * 400 and found.seconds > 0
    assert not trains(recipe(place, "ngram"))
    with pytest.raises(ConfigError, match="数えて作る"):
        plan(recipe(place, "ngram"))


@pytest.mark.parametrize(
    ("family", "wrong", "named"),
    [("ngram", {"hidden_size": 8}, "order"), ("lstm", {"num_attention_heads": 2}, "hidden_size"), ("ngram", {"order": 0}, "order")],
)
def test_a_choice_that_means_nothing_to_a_family_is_refused_by_name(family: str, wrong: dict[str, Any], named: str, place: Path) -> None:
    values = recipe(place, family).values
    values["pretrain"]["model"] |= wrong
    with pytest.raises(ConfigError, match=named):
        recipes.resolve(values)


def test_only_a_model_that_is_a_table_of_pairs_starts_from_pairs(place: Path) -> None:
    def starts(family: str, **more: Any) -> bool:
        settings = recipe(place, family).sections["pretrain"]
        return from_pairs(settings, settings.model.shape(400, 48))

    assert starts("mamba2") and starts("bamba")
    assert not starts("lstm") and not starts("gru")
    values = recipe(place, "rnn").values
    values["pretrain"]["start"] = "bigram"
    with pytest.raises(ConfigError, match="恒等写像"):
        recipes.resolve(values)


def test_a_number_type_is_no_choice_for_counts(place: Path) -> None:
    run(recipe(place, "ngram"), Watch())
    with pytest.raises(ConfigError, match="dtype"):
        tsuzuri.load(place / "run/model", dtype="bfloat16")
    assert isinstance(weights.family("ngram").Settings(), ngram.Settings)
    with pytest.raises(ConfigError, match="state_space"):
        Shape(
            vocab_size=5,
            hidden_size=50,
            num_hidden_layers=1,
            attention="mamba2",
            state_space=weights.family("mamba2").StateSpace(num_heads=3),
        )
