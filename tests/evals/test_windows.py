"""Bits per byte through windows: every token once, as probable as the model itself says, however many windows at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tsuzuri.evals import windows
from tsuzuri.model.past import Causal
from tsuzuri.model.transformer import Shape, Transformer

CONTEXT = 16
SHAPE = Shape(
    vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, max_position_embeddings=CONTEXT
)
BOUNDARY = 0


def built(dtype: torch.dtype = torch.float64) -> Transformer:
    model, generator = Transformer(SHAPE), torch.Generator().manual_seed(6)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.2, generator=generator)
    return model.to(dtype)


def text(length: int) -> np.ndarray:
    return np.random.default_rng(length).integers(1, 300, length)


def direct(model: Transformer, context: list[int], id: int) -> float:
    """log p(id | context), from one call on exactly that context."""
    tokens = torch.tensor(context)
    with torch.no_grad():
        logits = model(tokens, Causal(torch.arange(len(tokens))))[-1]
    return float(F.log_softmax(logits.double(), -1)[id])


@pytest.mark.parametrize("length", [1, 7, CONTEXT])
def test_a_document_within_the_context_is_scored_directly(length: int) -> None:
    model, ids = built(), text(length)
    framed = [BOUNDARY, *ids.tolist()]
    wanted = [direct(model, framed[: i + 1], id) for i, id in enumerate(ids)]
    np.testing.assert_allclose(windows.logprobs(model, ids, BOUNDARY), wanted, atol=1e-12)


@pytest.mark.parametrize("length", [17, 24, 25, 100])
def test_a_longer_document_is_scored_with_half_a_window_before_each_token(length: int) -> None:
    """Direct log-probabilities, given what the window of each token shows: from its start on."""
    model, ids = built(), text(length)
    framed = [BOUNDARY, *ids.tolist()]
    wanted = np.full(length, np.nan)
    for start, first, stop in windows.windows(length, CONTEXT):
        for i in range(first, stop):
            assert i - start >= CONTEXT // 2 or start == 0
            wanted[i] = direct(model, framed[start : i + 1], ids[i])
    np.testing.assert_allclose(windows.logprobs(model, ids, BOUNDARY), wanted, atol=1e-12)


@given(st.integers(0, 300), st.integers(1, 40))
def test_windows_cover_every_target_once(length: int, size: int) -> None:
    found = list(windows.windows(length, size))
    assert [i for _, first, stop in found for i in range(first, stop)] == list(range(length))
    assert all(0 <= start <= first < stop <= start + size for start, first, stop in found)


@pytest.mark.parametrize("rows", [1, 2, 5, 1000])
def test_the_number_of_windows_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    model, ids = built(), text(100)
    wanted = windows.logprobs(model, ids, BOUNDARY)
    monkeypatch.setattr(windows, "ROWS", rows)
    np.testing.assert_allclose(windows.logprobs(model, ids, BOUNDARY), wanted, atol=1e-12)


class Texts:
    def __init__(self, *texts: np.ndarray) -> None:
        self.texts, self.byte_lengths = texts, np.array([3 * len(ids) for ids in texts])

    def __len__(self) -> int:
        return len(self.texts)

    def document(self, index: int) -> np.ndarray:
        return self.texts[index].astype(np.uint16)


def test_bits_per_byte_is_the_sum_over_the_bytes() -> None:
    """An empty document has no bytes and adds nothing."""
    model, texts = built(), Texts(text(5), text(0), text(100))
    bits = windows.bits_per_byte(model, texts, BOUNDARY)
    nats = -sum(float(windows.logprobs(model, ids, BOUNDARY).sum()) for ids in texts.texts)
    assert bits.bits_per_byte == pytest.approx(nats / math.log(2) / 315, rel=1e-12)
    assert (bits.tokens, bits.bytes, bits.documents) == (105, 315, 3)


def test_a_model_that_knows_nothing_needs_the_log_of_its_vocabulary() -> None:
    model = built()
    torch.nn.init.zeros_(model.head.weight)
    bits = windows.bits_per_byte(model, Texts(text(50)), BOUNDARY)
    assert bits.bits_per_token == pytest.approx(math.log2(300), rel=1e-6)


@torch.no_grad()
def test_of_a_bfloat16_model_only_the_model_rounds() -> None:
    """Its own logits, but their softmax in float32 at least."""
    model, ids = built(torch.bfloat16), text(CONTEXT)
    tokens = torch.tensor([[BOUNDARY, *ids[:-1]]])
    logits = model(tokens, Causal(torch.arange(CONTEXT)[None]))[0]
    assert logits.dtype == torch.bfloat16
    wanted = F.log_softmax(logits.double(), -1)[torch.arange(CONTEXT), torch.tensor(ids)]
    np.testing.assert_allclose(windows.logprobs(model, ids, BOUNDARY), wanted, atol=1e-5)


def test_scoring_leaves_the_model_ready_to_train() -> None:
    model = built()
    windows.bits_per_byte(model, Texts(text(20)), BOUNDARY)
    model(torch.tensor([1, 2]), Causal(torch.arange(2))).sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())
