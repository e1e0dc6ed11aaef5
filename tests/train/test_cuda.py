"""On CUDA, training takes other ways: documents one after another instead of a mask, large stretches of logits, compiled blocks.

Each must give what the plain way gives. That the rows are cut right is tested everywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tsuzuri.errors import ConfigError
from tsuzuri.model import _stretches
from tsuzuri.model.encoder_decoder import EncoderDecoder, PairShape
from tsuzuri.model.past import Bidirectional, Causal
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.train import loop, loss
from tsuzuri.train.data import IGNORED
from tsuzuri.train.loop import LoopSettings
from tsuzuri.train.objectives import pretrain
from tsuzuri.train.watch import Watch

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="these ways are for an accelerator of NVIDIA; none is here")
SHAPE = Shape(
    vocab_size=300, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, intermediate_size=96,
    max_position_embeddings=64, qk_norm="head", tie_word_embeddings=True,
)  # fmt: skip


def rows(count: int, length: int, seed: int) -> Tensor:
    """(count, length) documents of random lengths, the last of a row often padding, -1"""
    generator = np.random.default_rng(seed)
    found = np.full((count, length), -1)
    for row in found:
        at = 0
        for document in range(int(generator.integers(1, 6))):
            size = int(generator.integers(1, length // 2))
            row[at : at + size] = document
            at += size
    return torch.from_numpy(found)


def test_stretches_are_the_documents_of_each_row() -> None:
    documents = torch.tensor([[0, 0, 1, -1], [0, 0, 0, 0], [0, 1, 1, 2]])
    starts = _stretches.bounds(documents)
    assert starts[:8].tolist() == [0, 2, 3, 4, 8, 9, 11, 12]
    assert len(starts) == _stretches.ROUND and (starts[8:] == 12).all() and starts.dtype == torch.int32


def test_there_is_always_an_end() -> None:
    """As many stretches as bounds are rounded to: one multiple more."""
    starts = _stretches.bounds(torch.arange(_stretches.ROUND)[None])
    assert len(starts) == 2 * _stretches.ROUND and starts[_stretches.ROUND] == _stretches.ROUND


def test_compiled_is_for_what_can_be(tmp_path: Path) -> None:
    pair = EncoderDecoder(PairShape(vocab_size=300, hidden_size=32, num_hidden_layers=1, intermediate_size=48))
    with pytest.raises(ConfigError, match="compiled"):
        loop.train(pair, counting(), LoopSettings(steps=1, batch=2, compiled=True), tmp_path, recipe={})


def test_nothing_of_a_step_breaks_the_compiled_graph() -> None:
    """Where nothing is recorded for CUDA, the tracer alone shows it."""
    model = Transformer(SHAPE, dtype=torch.float64).initialise(1)
    batch = counting().batch([0, 1])
    past = Causal(batch.positions, batch.documents)
    traced = torch.compile(model.hidden, fullgraph=True, backend="eager")
    assert torch.allclose(traced(batch.tokens, past), model.hidden(batch.tokens, past), atol=1e-12, rtol=0)


def counting() -> pretrain.Objective:
    class Documents:
        lengths = np.array([40, 20, 90, 7] * 6)

        def document(self, index: int) -> np.ndarray[Any, Any]:
            return np.arange(index, index + self.lengths[index]) % 299

    return pretrain.Objective(pretrain.Settings(64), Documents(), 299)


def test_what_a_compiler_is_given_is_the_plain_stretch() -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(40, 8, dtype=torch.float64), torch.randn(30, 8, dtype=torch.float64)
    targets = torch.randint(30, (40,)).where(torch.rand(40) > 0.2, torch.tensor(IGNORED))
    for found, wanted in zip(loss.fusable(hidden, head, targets), loss.stretch(hidden, head, targets), strict=True):
        assert torch.allclose(found, wanted, atol=1e-12, rtol=0)


@pytest.mark.gpu
@on_cuda
@pytest.mark.parametrize("window", [None, 9])
@pytest.mark.parametrize("kind", [Causal, Bidirectional])
def test_stretches_are_the_mask(kind: type[Causal] | type[Bidirectional], window: int | None) -> None:
    """Forward and backward, grouped heads; against float32 with a mask, as near as the mask in bfloat16 comes."""
    torch.manual_seed(0)
    documents = rows(5, 200, 1)
    positions = torch.zeros_like(documents)
    told = [torch.randn(5, 200, heads, 64) for heads in (4, 2, 2)]
    slope = torch.randn(5, 200, 4, 64)

    def computed(device: str, dtype: torch.dtype) -> list[Tensor]:
        q, k, v = (x.to(device, dtype).requires_grad_() for x in told)
        out = kind(positions.to(device), documents.to(device)).attend(0, q, k, v, window=window)
        out.backward(slope.to(device, dtype))  # type: ignore[no-untyped-call]
        return [x.detach().float().cpu() for x in (out, q.grad, k.grad, v.grad) if x is not None]

    exact, masked, by_stretches = computed("cpu", torch.float32), computed("cpu", torch.bfloat16), computed("cuda", torch.bfloat16)
    for wanted, rounded, found in zip(exact, masked, by_stretches, strict=True):
        assert (found - wanted).norm() <= 1.5 * (rounded - wanted).norm()
        assert (found - wanted).norm() <= 1e-2 * wanted.norm()


@pytest.mark.gpu
@on_cuda
def test_the_loss_on_cuda_is_the_loss() -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(40_000, 64), torch.randn(500, 64) / 8
    targets = torch.randint(-1, 500, (40_000,)).where(torch.rand(40_000) > 0.1, torch.tensor(-100)).clamp_min(-100)
    targets[targets == -1] = -100

    def computed(device: str, function: Any) -> tuple[float, Tensor, Tensor]:
        h, w = hidden.to(device).requires_grad_(), head.to(device).requires_grad_()
        nats = function(h, w, targets.to(device))
        nats.backward()
        assert h.grad is not None and w.grad is not None
        return float(nats), h.grad.cpu(), w.grad.cpu()

    wanted, found = computed("cpu", loss.plain), computed("cuda", loss.chunked)
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)
    for theirs, ours in zip(wanted[1:], found[1:], strict=True):
        assert (ours - theirs).norm() <= 1e-3 * theirs.norm()  # sums of float32 in another order, and tensor cores


@pytest.mark.gpu
@on_cuda
def test_training_on_cuda_goes_as_on_the_cpu(tmp_path: Path) -> None:
    """Ten steps from the same weights: as on the CPU in float32; compiled and in bfloat16, near it."""

    def losses(name: str, device: str, **chosen: Any) -> list[float]:
        seen: list[float] = []

        class Noting(Watch):
            def step(self, metrics: Any, steps: int) -> None:
                seen.append(metrics.loss)

        model = Transformer(SHAPE).initialise(1).to(device)
        settings = LoopSettings(steps=10, batch=8, checkpoint_every=0, **chosen)
        loop.train(model, counting(), settings, tmp_path / name, recipe={}, family="qwen3", watch=Noting())
        return seen

    plain = losses("plain", "cpu", precision="float32")
    assert losses("cuda", "cuda", precision="float32") == pytest.approx(plain, rel=1e-2)
    narrow = losses("narrow", "cuda", precision="bfloat16")
    assert narrow == pytest.approx(plain, rel=5e-2)
    assert losses("compiled", "cuda", precision="bfloat16", compiled=True) == pytest.approx(narrow, rel=2e-2)
