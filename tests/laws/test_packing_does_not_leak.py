"""Documents packed in one row do not see each other: another neighbour changes not one bit, no neighbour changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsuzuri.folder import find, names
from tsuzuri.model.past import Causal
from tsuzuri.model.transformer import PARTS, Shape, Transformer
from tsuzuri.train import loss
from tsuzuri.train.data import IGNORED, Batch, collate

SHAPE = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
}
POSITIONS = [name for name in names(PARTS) if find(PARTS, name).KIND == "position"]
CHOICES = [{"position": name, "sliding_window": window} for name in POSITIONS for window in (None, 3)]
WIDTH = 24
LENGTHS = (9, 8, 5)  # and 2 tokens of padding


def built(choices: dict[str, object], dtype: torch.dtype) -> Transformer:
    model, generator = Transformer(Shape(**{**SHAPE, **choices})), torch.Generator().manual_seed(2)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=generator)
    return model.to(dtype)


def documents(first_seed: int = 0) -> list[NDArray[np.int64]]:
    """Three documents of which only the first depends on the seed."""
    seeds = (first_seed, 101, 102)
    return [np.random.default_rng(seed).integers(0, 300, length) for seed, length in zip(seeds, LENGTHS, strict=True)]


def packed(texts: Sequence[NDArray[np.int64]], trained: Sequence[int], width: int = WIDTH) -> Batch:
    """One row. Targets of the documents that are not `trained` are ignored."""
    row = []
    for number, ids in enumerate(texts):
        targets = np.roll(ids, -1) if number in trained else np.full(len(ids), IGNORED)
        row.append((ids, targets, 0))
    return collate([row], width, 0)


def outcome(model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits of the row, and the gradient of its loss by name."""
    logits = model(batch.tokens, Causal(batch.positions, batch.documents))[0]
    model.zero_grad()
    loss.next_token(model, batch).backward()
    return logits.detach(), {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_another_neighbour_changes_not_one_bit(choices: dict[str, object], dtype: torch.dtype) -> None:
    """The first document changes; logits of the others, and gradients of their loss, are the same to the last bit."""
    model = built(choices, dtype)
    one, other = (outcome(model, packed(documents(seed), trained=(1, 2))) for seed in (0, 1))
    begin = LENGTHS[0]
    assert torch.equal(one[0][begin:], other[0][begin:])
    assert not torch.equal(one[0][:begin], other[0][:begin])
    for name, gradient in one[1].items():
        assert torch.equal(gradient, other[1][name]), name
        assert gradient.any(), name


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_packed_is_each_document_alone(choices: dict[str, object]) -> None:
    model, texts = built(choices, torch.float64), documents()
    logits, gradients = outcome(model, packed(texts, trained=(0, 1, 2)))
    begin = 0
    alone: dict[str, Tensor] = {}
    for ids in texts:
        own, own_gradients = outcome(model, packed([ids], trained=(0,), width=len(ids)))
        torch.testing.assert_close(logits[begin : begin + len(ids)], own, rtol=1e-11, atol=1e-11)
        alone = {name: alone.get(name, 0) + gradient for name, gradient in own_gradients.items()}
        begin += len(ids)
    assert set(alone) == set(gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, alone[name], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_a_document_sees_itself(choices: dict[str, object]) -> None:
    """What would pass above if nothing saw anything: the first token of a document moves its last logits (within the window)."""
    model, texts = built(choices, torch.float64), documents()
    last = LENGTHS[0] + LENGTHS[1] - 1
    before, _ = outcome(model, packed(texts, trained=(1,)))
    texts[1] = texts[1].copy()
    texts[1][-3] = (texts[1][-3] + 1) % 300
    after, _ = outcome(model, packed(texts, trained=(1,)))
    assert (before[last] - after[last]).abs().max() > 1e-3
    assert torch.equal(before[last + 1 :], after[last + 1 :])
