"""LoRA: nothing at first, merged = unmerged, and PEFT reads what we write and the other way round."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tsuzuri.errors import ConfigError, FormatError, TsuzuriError
from tsuzuri.model import weights
from tsuzuri.model.adapt import lora, quantize
from tsuzuri.model.past import Causal
from tsuzuri.model.transformer import Shape, Transformer

TINY = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
IDS = torch.arange(3, 20)


def built(**choices: Any) -> Transformer:
    model, generator = Transformer(Shape(**TINY, max_position_embeddings=64, **choices)), torch.Generator().manual_seed(7)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=generator)
    return model.requires_grad_(False)


def logits(model: Any) -> Tensor:
    with torch.inference_mode():
        return model(IDS, Causal(torch.arange(len(IDS))))


def with_adapter(settings: lora.LoraSettings | None = None) -> Transformer:
    model = built()
    lora.attach(model, settings or lora.LoraSettings(rank=4))
    generator = torch.Generator().manual_seed(1)
    for layer in lora.adapted(model).values():
        torch.nn.init.normal_(layer.lora_up.data, std=0.1, generator=generator)
    return model


def test_at_first_nothing_changes() -> None:
    model = built()
    before = logits(model)
    lora.attach(model, lora.LoraSettings(rank=4))
    assert torch.equal(logits(model), before)
    assert len(lora.adapted(model)) == 14


def test_merged_is_unmerged() -> None:
    model = with_adapter()
    before = logits(model)
    assert float((before - logits(built())).abs().max()) > 0.1
    lora.merge(model)
    assert lora.adapted(model) == {}
    assert not any(lora.is_adapter(name) for name, _ in model.named_parameters())
    torch.testing.assert_close(logits(model), before, rtol=1e-5, atol=1e-5)


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    model = with_adapter(lora.LoraSettings(rank=3, alpha=5.0, targets=("query", "down")))
    lora.save(model, tmp_path, "llama", "base")
    again = built()
    lora.load(again, tmp_path, "llama")
    assert torch.equal(logits(again), logits(model))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's own
def test_peft_reads_what_we_write_and_we_what_it_writes(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed: pip install -e '.[dev]'")
    from transformers import AutoModelForCausalLM

    base = tmp_path / "base"
    base.mkdir()
    weights.save(built(), base)
    model = with_adapter()
    (tmp_path / "ours").mkdir()
    lora.save(model, tmp_path / "ours", "llama", str(base))
    theirs = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "ours").eval()
    with torch.inference_mode():
        torch.testing.assert_close(theirs(IDS[None]).logits[0], logits(model), rtol=1e-5, atol=1e-5)
    for name, weight in theirs.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.1)
    theirs.save_pretrained(tmp_path / "theirs")
    again = built()
    lora.load(again, tmp_path / "theirs", "llama")
    with torch.inference_mode():
        torch.testing.assert_close(logits(again), theirs(IDS[None]).logits[0], rtol=1e-5, atol=1e-5)


def test_what_distinguishes_two_models_becomes_an_adapter() -> None:
    """A difference of rank 4 is found whole; with rank 2 it is the best of that rank, and not the same."""
    tuned = with_adapter()
    lora.merge(tuned)
    base = built()
    lora.between(tuned, base, 4)
    torch.testing.assert_close(logits(base), logits(tuned), rtol=1e-4, atol=1e-4)
    less = built()
    lora.between(tuned, less, 2)
    layer, name = less.blocks[0].mixer.query, "blocks.0.mixer.query.weight"
    change = (dict(tuned.named_parameters())[name] - layer.weight).detach()
    kept = torch.linalg.svdvals(change)
    left = torch.linalg.matrix_norm(change - (layer.lora_up @ layer.lora_down).detach())
    assert float(left) == pytest.approx(float(kept[2:].square().sum().sqrt()), rel=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        {"use_dora": True},
        {"bias": "all"},
        {"peft_type": "IA3"},
        {"r": 0},
        {"r": "4"},
        {"lora_alpha": -1},
        {"rank_pattern": {"q": 1}},
        {"new": 1},
    ],
)
def test_what_is_not_computed_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    lora.save(with_adapter(), tmp_path, "llama", "base")
    path = tmp_path / lora.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=next(iter(change))):
        lora.load(built(), tmp_path, "llama")


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    lora.save(with_adapter(), tmp_path, "llama", "base")
    with pytest.raises(FormatError, match=r"lora|layers"):
        lora.load(Transformer(Shape(**{**TINY, "hidden_size": 16}, max_position_embeddings=8)).initialise(1), tmp_path, "llama")
    data, draw = (tmp_path / lora.WEIGHTS).read_bytes(), random.Random(1)
    for _ in range(100):
        (tmp_path / lora.WEIGHTS).write_bytes(data[: draw.randrange(len(data))])
        with pytest.raises(TsuzuriError):
            lora.load(built(), tmp_path, "llama")


def test_unknown_targets_are_refused() -> None:
    with pytest.raises(ConfigError, match="qkv"):
        lora.attach(built(), lora.LoraSettings(targets=("qkv",)))


# ── over quantised matrices


@pytest.mark.parametrize("form", list(quantize.BITS))
def test_over_narrow_matrices_an_adapter_trains_and_merges(form: str, tmp_path: Path) -> None:
    """QLoRA: nothing changes at first, only the adapter learns, the narrow matrices stay to the bit, merged = unmerged, and what is
    saved makes the same of the narrow base."""
    model, twin = built(), built()
    for each in (model, twin):
        quantize.quantize(each, form)
    before, kept = logits(model), {name: value.clone() for name, value in model.state_dict().items()}
    lora.attach(model, lora.LoraSettings(rank=4))
    assert torch.equal(logits(model), before)
    narrow = [layer for layer in lora.adapted(model).values() if isinstance(layer, quantize.Quantised)]
    assert len(narrow) == 12 and quantize.form_of(model) == form, "all but `down`, whose 48 inputs are no multiple of 32"
    assert not any("weight" in layer._parameters for layer in narrow), "no wide copy is kept"
    learned = [weight for name, weight in model.named_parameters() if lora.is_adapter(name)]
    assert [weight for weight in model.parameters() if weight.requires_grad] == learned
    optimizer, losses = torch.optim.Adam(learned, 0.02), []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(model(IDS[:-1], Causal(torch.arange(len(IDS) - 1))), IDS[1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in kept.items())
    lora.save(model, tmp_path, "llama", "base")
    lora.load(twin, tmp_path, "llama")
    assert torch.equal(logits(twin), logits(model))
    unmerged = logits(model)
    lora.merge(model)
    assert lora.adapted(model) == {} and quantize.form_of(model) == form, "embedding and head are narrow still"
    assert type(model.blocks[0].mixer.query) is torch.nn.Linear
    torch.testing.assert_close(logits(model), unmerged, rtol=1e-5, atol=1e-5)
    (tmp_path / "merged").mkdir()
    weights.save(model, tmp_path / "merged")
    assert torch.equal(logits(weights.load(tmp_path / "merged", quantised=True)), logits(model))
