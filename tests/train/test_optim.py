"""AdamW is PyTorch's, Muon is its paper's, masters keep what bfloat16 would lose, schedules are at named steps what they say."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tsuzuri import device
from tsuzuri.errors import ConfigError, FormatError
from tsuzuri.model.past import Causal
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.train.optim import Optimizer, OptimSettings, is_matrix, orthogonal, total_norm

SHAPE = Shape(vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, max_position_embeddings=40)
PLAIN = {"weight_decay": 0.0, "clip": 0.0, "schedule": "constant", "warmup": 0.0}


def built(dtype: torch.dtype = torch.float64) -> Transformer:
    return Transformer(SHAPE, dtype=dtype).initialise(1)


def feed(model: nn.Module, step: int, scale: float = 1.0) -> None:
    """Gradients that follow from the step alone."""
    generator = torch.Generator().manual_seed(step)
    for weight in model.parameters():
        weight.grad = (torch.randn(weight.shape, generator=generator, dtype=torch.float64) * scale).to(weight.dtype)


# ── AdamW


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-6)], ids=str)
@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adamw_is_pytorchs(decay: float, clip: float, dtype: torch.dtype, tolerance: float) -> None:
    """Ten steps at changing rates. Decay is for matrices and tables alone. The gradients are large: PyTorch clips by
    clip / (norm + 1e-6), we by clip / norm."""
    mine, theirs = built(dtype), built(dtype)
    settings = OptimSettings(optimizer="adamw", learning_rate=0.01, betas=(0.9, 0.95), epsilon=1e-8, weight_decay=decay, clip=clip)
    optimizer = Optimizer(mine, settings)
    groups = [{"params": [w for w in theirs.parameters() if (w.dim() > 1) == wide], "weight_decay": decay * wide} for wide in (False, True)]
    reference = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), eps=1e-8, foreach=False)
    for step in range(10):
        factor, scale = 1 - step / 20, 10.0 ** (9 - step / 2)
        feed(mine, step, scale)
        feed(theirs, step, scale)
        norm = optimizer.step(factor)
        for group in reference.param_groups:
            group["lr"] = 0.01 * factor
        their_norm = nn.utils.clip_grad_norm_(theirs.parameters(), clip or math.inf)
        reference.step()
        assert norm == pytest.approx(float(their_norm), rel=tolerance)
    for (name, weight), other in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        assert (weight - other).norm() <= tolerance * other.norm(), name


def test_small_gradients_are_not_clipped() -> None:
    model = built()
    feed(model, 0, 1e-9)
    before = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    norm = total_norm(list(before.values()))
    assert norm == pytest.approx(1e-9 * math.sqrt(sum(w.numel() for w in model.parameters())), rel=0.05)
    optimizer = Optimizer(model, OptimSettings(optimizer="adamw", clip=1.0))
    assert optimizer.step(1.0) == norm
    for name, gradient in before.items():
        torch.testing.assert_close(optimizer.state[f"first.{name}"], gradient * 0.1)


def test_gradients_are_spent_by_a_step() -> None:
    model = built()
    feed(model, 0)
    Optimizer(model, OptimSettings()).step(1.0)
    assert all(weight.grad is None for weight in model.parameters())


def test_what_has_no_gradient_stays() -> None:
    """Not even decayed: a frozen weight, as LoRA leaves them."""
    model = built()
    feed(model, 0)
    frozen = model.blocks[0].mixer.query.weight
    frozen.grad, before = None, frozen.detach().clone()
    Optimizer(model, OptimSettings()).step(1.0)
    assert torch.equal(frozen, before)


# ── Muon


@pytest.mark.parametrize("shape", [(48, 32), (32, 48), (40, 40), (3, 24, 16)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_orthogonal_is_nearly_the_orthogonal_factor(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Against U Vᵀ of the singular value decomposition: the same directions, lengths between 0.68 and 1.21; five steps in
    bfloat16 (8 bits), where the machine has it, blur both by a few hundredths."""
    blur = 1e-12 if dtype == torch.float64 else 0.05
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(7), dtype=dtype) * 1e-3
    found = orthogonal(matrices)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else device.dtype("auto"))
    assert found.shape == matrices.shape
    u, s, v = torch.linalg.svd(matrices.double(), full_matrices=False)
    turned = u.mT @ found.double() @ v.mT  # diagonal where the directions are the same
    lengths = turned.diagonal(dim1=-2, dim2=-1)
    kept = s > 0.05 * s.amax(-1, keepdim=True)  # five steps do not lift what is smaller yet
    assert kept.double().mean() > 0.9
    assert lengths[kept].min() > 0.68 - blur and lengths[kept].max() < 1.21 + blur
    off = turned - torch.diag_embed(lengths)
    assert off.abs().max() < blur


def plain_orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """The iteration on the singular values themselves: the twin to read."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.norm()
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ torch.diag(s) @ v


@pytest.mark.parametrize("shape", [(48, 32), (32, 48)], ids=str)
def test_orthogonal_is_the_polynomial_of_the_singular_values(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    torch.testing.assert_close(orthogonal(matrix), plain_orthogonal(matrix), rtol=0, atol=1e-6)


def test_orthogonal_of_nothing_is_nothing() -> None:
    assert not orthogonal(torch.zeros(2, 8, 6)).any()


def plain_muon(weight: Tensor, gradients: list[Tensor], settings: OptimSettings) -> Tensor:
    """One matrix, step by step, as the paper writes it."""
    weight, average, rate = weight.clone(), torch.zeros_like(weight), settings.muon_learning_rate
    for gradient in gradients:
        average = settings.momentum * average + (1 - settings.momentum) * gradient
        ahead = settings.momentum * average + (1 - settings.momentum) * gradient
        weight = (1 - rate * settings.weight_decay) * weight
        weight = weight - rate * max(1, weight.shape[0] / weight.shape[1]) ** 0.5 * plain_orthogonal(ahead)
    return weight


def test_muon_steps_are_the_papers() -> None:
    """Matrices of one shape go together; each must come out as if it went alone."""
    model, settings = built(), OptimSettings(weight_decay=0.3, clip=0.0, muon_learning_rate=0.05)
    start = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer, given = Optimizer(model, settings), {name: [] for name in start}
    for step in range(4):
        feed(model, step)
        for name, weight in model.named_parameters():
            given[name].append(weight.grad.clone())
        optimizer.step(1.0)
    assert len(optimizer.muon) == 14
    for name in optimizer.muon:
        torch.testing.assert_close(model.get_parameter(name).detach(), plain_muon(start[name], given[name], settings), rtol=0, atol=1e-6)


def test_muon_takes_the_matrices_between_and_nothing_else() -> None:
    model = Transformer(Shape(**{**{f: getattr(SHAPE, f) for f in SHAPE.__slots__}, "position": "learned", "attention_bias": True}))
    taken = {name for name, weight in model.named_parameters() if is_matrix(name, weight)}
    left = {name for name, _ in model.named_parameters()} - taken
    assert all("mixer." in name or "feedforward." in name for name in taken)
    assert all("norm" in name or "bias" in name or name in ("embedding.weight", "head.weight", "position.table.weight") for name in left)
    assert Optimizer(model, OptimSettings(optimizer="adamw")).muon == []


# ── masters


def test_masters_gather_what_bfloat16_would_lose() -> None:
    """200 steps of 1e-4 on weights of 1: each is below half a rounding of bfloat16 (0.004), together they are 0.02."""
    model = nn.Linear(4, 4, bias=False, dtype=torch.bfloat16)
    nn.init.ones_(model.weight)
    optimizer = Optimizer(model, OptimSettings(optimizer="adamw", learning_rate=1e-4, epsilon=0, **PLAIN))
    lost = model.weight.detach().clone()
    for _ in range(200):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step(1.0)
        lost -= 1e-4
    assert torch.equal(lost, torch.ones_like(lost))
    torch.testing.assert_close(optimizer.master("weight"), torch.full((4, 4), 0.98), rtol=0, atol=1e-5)
    assert torch.equal(model.weight.detach(), optimizer.master("weight").bfloat16())


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_bfloat16_weights_step_as_float32_ones_do(optimizer: str) -> None:
    """Given the same gradients, the master goes where the float32 weight goes."""
    narrow, wide = built(torch.bfloat16), built(torch.bfloat16).float()
    settings = OptimSettings(optimizer=optimizer)
    first, second = Optimizer(narrow, settings), Optimizer(wide, settings)
    for step in range(5):
        feed(narrow, step)
        for mine, other in zip(narrow.parameters(), wide.parameters(), strict=True):
            other.grad = mine.grad.float()
        assert first.step(1.0) == second.step(1.0)
    for name, weight in wide.named_parameters():
        assert torch.equal(first.master(name), weight), name


# ── schedules


def factors(steps: int, **choices: object) -> list[float]:
    settings = OptimSettings(**choices)
    return [settings.factor(step, steps) for step in range(steps)]


def test_warm_up_stable_decay() -> None:
    found = factors(100, schedule="wsd", warmup=0.1, decay=0.4, final=0.05)
    assert found[:3] == pytest.approx([1 / 11, 2 / 11, 3 / 11])
    assert found[10:61] == [1.0] * 51
    assert found[80] == pytest.approx(0.05 + 0.95 / 2)
    assert found[99] == pytest.approx(0.05 + 0.95 / 40)


def test_cosine() -> None:
    found = factors(100, schedule="cosine", warmup=0.0, final=0.1)
    assert (found[0], found[50]) == (1.0, pytest.approx(0.55))
    assert found[25] == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert found[99] == pytest.approx(0.1, abs=1e-3)


def test_constant() -> None:
    assert factors(10, schedule="constant", warmup=0.0) == [1.0] * 10


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_decay_that_the_schedule_does_not_have_limits_no_warmup(schedule: str) -> None:
    found = factors(10, schedule=schedule, warmup=0.7, decay=0.4)
    assert found[:7] == sorted(found[:7]) and max(found) == pytest.approx(1.0)


@pytest.mark.parametrize("schedule", ["wsd", "cosine", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_every_schedule_rises_then_falls_within_its_bounds(schedule: str, steps: int) -> None:
    found = factors(steps, schedule=schedule)
    top = found.index(max(found))
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    assert all(0 < factor <= 1 for factor in found)


# ── state


def test_state_taken_over_goes_on_exactly() -> None:
    """Saved after three steps and taken over by another optimizer: the next steps are the same bits."""
    model, settings = built(torch.bfloat16), OptimSettings()
    optimizer = Optimizer(model, settings)
    for step in range(3):
        feed(model, step)
        optimizer.step(1.0)
    copy = built(torch.bfloat16)
    copy.load_state_dict(model.state_dict())
    other = Optimizer(copy, settings)
    other.load_state_dict(optimizer.state_dict(), 3)
    for step in range(3, 6):
        feed(model, step)
        feed(copy, step)
        optimizer.step(1.0)
        other.step(1.0)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(model.parameters(), copy.parameters(), strict=True))
    assert all(torch.equal(value, other.state[name]) for name, value in optimizer.state.items())


Change = Callable[[dict[str, Tensor]], object]
CHANGES: dict[str, Change] = {
    "one is missing": lambda state: state.pop("first.norm.weight"),
    "one is unknown": lambda state: state.update({"first.x": torch.zeros(1)}),
    "another size": lambda state: state.update({"first.norm.weight": torch.zeros(5)}),
    "another precision": lambda state: state.update({"first.norm.weight": torch.zeros(32)}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_state_of_another_model_is_refused_by_name(change: Change) -> None:
    optimizer = Optimizer(built(), OptimSettings())
    state = optimizer.state_dict()
    change(state)
    with pytest.raises(FormatError, match=r"first\.(norm\.weight|x)"):
        optimizer.load_state_dict(state, 1)


WRONG = [
    {"learning_rate": -1},
    {"muon_learning_rate": 11},
    {"momentum": 1.5},
    {"weight_decay": -0.1},
    {"clip": -1},
    {"final": 2},
    {"learning_rate": math.nan},
    {"betas": (0.9,)},
    {"betas": (0.9, 1.0)},
    {"warmup": 0.7, "decay": 0.4},
]


@pytest.mark.parametrize("choices", WRONG, ids=str)
def test_impossible_settings_are_refused_by_name(choices: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(choices))):
        OptimSettings(**choices)


# ── scores that are not divided


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_where_scores_are_not_divided_queries_begin_and_move_as_much_less(kind: str) -> None:
    """T5 leaves 1/√E to its weights. Whatever the optimizer: the model is at each step the one whose scores are divided."""
    usual = replace(SHAPE, hidden_size=64, intermediate_size=64)  # E = 16: 1/4 of each weight is exact
    models = [Transformer(replace(usual, attention_scale=scale), dtype=torch.float64).initialise(1) for scale in (None, 1.0)]
    optimizers = [Optimizer(model, OptimSettings(optimizer=kind, epsilon=1e-30, **{**PLAIN, "weight_decay": 0.1})) for model in models]  # type: ignore[arg-type]
    ids = torch.randint(300, (2, 20), generator=torch.Generator().manual_seed(1))
    for model in models:
        for block in model.blocks:  # as long as they are zero nothing reaches the queries
            block.mixer.output.weight.data.copy_(torch.randn(64, 64, generator=torch.Generator().manual_seed(2)) / 8)
    for _ in range(4):
        found = [model(ids, Causal(torch.arange(20).expand(2, 20))) for model in models]
        torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-6)  # Muon divides by the norm + 1e-7; left alone it is 0.06
        for logits, optimizer in zip(found, optimizers, strict=True):
            torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()  # type: ignore[no-untyped-call]
            optimizer.step(1.0)
