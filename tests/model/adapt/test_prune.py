"""Pruning: zeros where the scores are lowest and nowhere else, as many as asked, in every family; and files that are ordinary ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tsuzuri.errors import ConfigError
from tsuzuri.folder import find, names
from tsuzuri.model import weights
from tsuzuri.model.adapt import prune, quantize
from tsuzuri.model.encoder_decoder import EncoderDecoder
from tsuzuri.model.families.ngram import NgramModel
from tsuzuri.model.past import Bidirectional, Causal, Memory
from tsuzuri.model.transformer import Shape, Transformer

sys.path.insert(0, str(Path(__file__).parents[2]))
from test_open_folders import usual

SIZES = {"vocab_size": 50, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
SAMPLES = [torch.randint(50, (40,), generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
HALF, PAIRS = prune.Plan(sparsity=0.5), prune.Plan(pattern="2:4")


def drawn(model: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    for weight in model.requires_grad_(False).parameters():
        torch.nn.init.normal_(weight, std=0.1, generator=generator)
    return model


def built(**choices: object) -> Transformer:
    return drawn(Transformer(Shape(**{**SIZES, "max_position_embeddings": 64, **choices})))  # type: ignore[arg-type, no-any-return]


def answer(model: Any) -> torch.Tensor:
    ids = torch.arange(9)
    if isinstance(model, EncoderDecoder):
        memory = Memory(model.encode(ids.flip(0), Bidirectional(ids)))
        return model(ids, Causal(ids, memory=memory))
    found: torch.Tensor = model(ids, Causal(ids) if model.shape.causal else Bidirectional(ids))
    return found


def pairs(model: Transformer, twin: Transformer, record: prune.Record) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(model.get_parameter(name), twin.get_parameter(name)) for name in record.zeros]


# ── every family

TRAINED = [name for name in names(weights.FAMILIES) if hasattr(find(weights.FAMILIES, name), "names") and name != "hmm"]


@pytest.mark.parametrize("name", TRAINED)
def test_every_family_is_pruned_saved_and_read_again(name: str, tmp_path: Path) -> None:
    """Half of every matrix: what goes has the smallest size, so it holds at most half of the squares; the rest is untouched."""
    family = find(weights.FAMILIES, name)
    shape = usual(family, **{**SIZES, "intermediate_size": 256, "max_position_embeddings": 64, **family.USUAL})
    model, whole = (drawn(weights.build(family, shape)) for _ in range(2))
    assert sum(prune.prune(model, prune.Plan(sparsity=0)).zeros.values()) == 0
    for one, other in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other), "nothing is nothing"
    for plan in (HALF, PAIRS):
        model = drawn(weights.build(family, shape))
        record = prune.prune(model, plan)
        linear = {f"{key}.weight" for key, module in model.named_modules() if isinstance(module, torch.nn.Linear) and "blocks." in key}
        assert linear and {*record.zeros, *record.kept} == linear and all(".router." in key for key in record.kept)
        assert record.sparsity == pytest.approx(0.5, abs=1e-4) and 0 < record.of_all < 0.5
        for key, weight in whole.named_parameters():
            found = model.get_parameter(key)
            if key not in record.zeros:
                assert torch.equal(found, weight), key
                continue
            gone = found == 0
            assert torch.equal(found[~gone], weight[~gone]), "what stays is as it was"
            assert int(gone.sum()) == record.zeros[key] == weight.numel() // 2
            assert weight[gone].square().sum() <= 0.5 * weight.square().sum()
            if plan is HALF:
                assert weight[gone].abs().max() <= weight[~gone].abs().min()
        assert answer(model).isfinite().all()
        assert float((answer(model) - answer(whole)).abs().max()) > 1e-4
        out = tmp_path / (plan.pattern or "half").replace(":", "-")
        out.mkdir()
        weights.save(model, out, name)
        again = weights.load(out)
        for (key, one), (other, two) in zip(model.named_parameters(), again.named_parameters(), strict=True):
            assert key == other and torch.equal(one, two), key


# ── where


def test_in_every_group_of_four_the_two_largest_stay() -> None:
    model, whole = built(), built()
    for found, weight in pairs(model, whole, prune.prune(model, PAIRS)):
        groups, before = found.view(-1, 4), weight.view(-1, 4)
        assert bool(((groups != 0).sum(-1) == 2).all())
        top = before.abs().topk(2, -1).indices
        assert torch.equal(groups.gather(-1, top), before.gather(-1, top))


def test_of_eight_four_stay_anywhere_among_them() -> None:
    model, whole = built(), built()
    halves = set()
    for found, weight in pairs(model, whole, prune.prune(model, prune.Plan(pattern="4:8"))):
        groups = found.view(-1, 8)
        assert bool(((groups != 0).sum(-1) == 4).all())
        assert float(groups.abs().sum()) == pytest.approx(float(weight.view(-1, 8).abs().topk(4, -1).values.sum()), rel=1e-5)
        halves |= {*(groups[:, :4] != 0).sum(-1).tolist()}
    assert halves == {0, 1, 2, 3, 4}


def test_rows_that_a_pattern_does_not_divide_stay_whole_and_are_named() -> None:
    model = built(intermediate_size=90)
    record = prune.prune(model, PAIRS)
    assert record.kept == ("blocks.0.feedforward.down.weight", "blocks.1.feedforward.down.weight")
    assert bool((model.get_parameter(record.kept[0]) != 0).all())
    assert prune.prune(built(intermediate_size=90), HALF).kept == ()


@pytest.mark.parametrize("share", [0.25, 0.6])
def test_a_share_is_counted_where_the_scope_says(share: float) -> None:
    """In each row, in each matrix, or in all of them together, where the largest that goes is no larger than the smallest that stays."""
    for scope in prune.SCOPES:
        model, whole = built(), built()
        whole.blocks[1].mixer.value.weight.mul_(0.1)
        model.blocks[1].mixer.value.weight.mul_(0.1)
        record = prune.prune(model, prune.Plan(share, scope=scope))  # type: ignore[arg-type]
        found = pairs(model, whole, record)
        rows = [(weight == 0).sum(1) for weight, _ in found]
        alike = [bool((row == round(share * weight.shape[1])).all()) for row, (weight, _) in zip(rows, found, strict=True)]
        each = [int(row.sum()) == round(share * weight.numel()) for row, (weight, _) in zip(rows, found, strict=True)]
        gone = torch.cat([before[weight == 0].abs() for weight, before in found])
        left = torch.cat([before[weight != 0].abs() for weight, before in found])
        total = sum(record.sizes.values())
        assert all(alike) == (scope == "row")
        assert all(each) == (scope == "matrix") or scope == "row"
        assert (bool(gone.max() <= left.min())) == (scope == "model")
        assert len(gone) == pytest.approx(share * total, rel=0.02)
        assert scope != "model" or len(gone) == round(share * total)


def test_of_equals_as_many_go_as_are_asked_for_and_twice_is_once() -> None:
    rows = torch.ones(3, 8)
    assert prune.lowest(rows, 5).sum(-1).tolist() == [5, 5, 5]
    for plan in (HALF, PAIRS, prune.Plan(0.3, scope="row"), prune.Plan(0.3, scope="model")):
        once, twice = built(), built()
        prune.prune(once, plan)
        prune.prune(twice, plan), prune.prune(twice, plan)
        assert all(torch.equal(one, two) for one, two in zip(once.parameters(), twice.parameters(), strict=True))


# ── calibrated


def uneven(**choices: object) -> Transformer:
    """Some inputs are much larger than others, as in trained models."""
    model = built(**choices)
    for name, weight in model.named_parameters():
        if weight.dim() == 1 and "norm" in name:
            weight.add_(1).mul_(torch.where(torch.arange(len(weight)) % 8 == 3, 10.0, 1.0))
    return model


def test_the_scores_are_those_of_the_paper() -> None:
    """|w_ij| · ‖x_j‖ over all tokens of all samples, computed here from the inputs themselves; compared within a row."""
    model, whole = uneven(), uneven()
    read: list[torch.Tensor] = []
    hook = whole.blocks[1].feedforward.down.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    norms = prune.norms_of(whole, SAMPLES)
    hook.remove()
    inputs = torch.cat(read)  # (80, 96)
    assert inputs.shape == (80, 96)
    score = whole.blocks[1].feedforward.down.weight.abs() * inputs.norm(dim=0)
    record = prune.prune(model, HALF, norms)
    assert set(record.calibrated) == set(record.zeros) == set(norms) and len(norms) == 14
    gone = model.blocks[1].feedforward.down.weight == 0
    assert bool((gone.sum(1) == 48).all()), "half of each row"
    for row, mask in zip(score, gone, strict=True):
        assert row[mask].max() <= row[~mask].min()


@pytest.mark.parametrize("plan", [prune.Plan(0.5, scope="row"), PAIRS], ids=["half", "2:4"])
def test_calibrated_the_answers_are_nearer(plan: prune.Plan) -> None:
    whole, plain, weighed = uneven(), uneven(), uneven()
    prune.prune(plain, plan)
    prune.prune(weighed, plan, prune.norms_of(whole, SAMPLES))
    wanted = [whole(ids, Causal(torch.arange(40))) for ids in SAMPLES]
    errors = [
        sum(float((model(ids, Causal(torch.arange(40))) - one).square().mean()) for ids, one in zip(SAMPLES, wanted, strict=True))
        for model in (plain, weighed)
    ]
    assert errors[1] < 0.8 * errors[0]


def test_an_encoder_is_calibrated_looking_both_ways() -> None:
    both, ahead = built(causal=False, position="learned"), built(position="learned")
    found, other = (prune.norms_of(model, SAMPLES) for model in (both, ahead))
    assert set(found) == set(other)
    name = "blocks.1.mixer.query.weight"
    assert not torch.allclose(found[name], other[name], rtol=1e-3)


def test_experts_keep_their_router_and_who_read_nothing_goes_by_magnitude() -> None:
    choices: dict[str, Any] = {"feedforward": "experts", "num_experts": 4, "num_experts_per_tok": 1}
    model, whole = built(**choices), built(**choices)
    for each in (model, whole):
        router = each.blocks[0].feedforward.router.weight
        router[1:] = torch.stack([-router[0], *torch.zeros(2, 64)])  # the first or the second is always above the others
    norms = prune.norms_of(whole, SAMPLES)
    idle = "blocks.0.feedforward.experts.3.down.weight"
    assert idle not in norms and "blocks.0.feedforward.experts.0.down.weight" in norms
    record = prune.prune(model, HALF, norms)
    assert record.kept == tuple(f"blocks.{layer}.feedforward.router.weight" for layer in (0, 1))
    assert idle not in record.calibrated
    for row, before in zip(model.get_parameter(idle), whole.get_parameter(idle), strict=True):
        assert before[row == 0].abs().max() <= before[row != 0].abs().min()


def test_measuring_leaves_no_trace() -> None:
    model, whole = built(), built()
    prune.norms_of(model, SAMPLES)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), whole.parameters(), strict=True))


# ── refusals


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({}, "どちらか一つ"),
        ({"sparsity": 0.5, "pattern": "2:4"}, "どちらか一つ"),
        ({"sparsity": 1.0}, "1.0"),
        ({"sparsity": -0.1}, "-0.1"),
        ({"sparsity": float("nan")}, "nan"),
        ({"pattern": "2:5"}, "「2:4」"),
        ({"sparsity": 0.5, "scope": "rows"}, "「row」"),
        ({"pattern": "2:4", "scope": "row"}, "2:4"),
    ],
)
def test_what_cannot_be_planned_is_refused(choices: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        prune.Plan(**choices)
    assert told in str(caught.value)


def test_a_model_with_nothing_to_prune_is_refused() -> None:
    narrow = built()
    quantize.quantize(narrow, "q8_0")
    hmm = find(weights.FAMILIES, "hmm")
    for model in (narrow, NgramModel.fit([[1, 2, 3]], 5, 2), weights.build(hmm, usual(hmm))):
        with pytest.raises(ConfigError, match="行列"):
            prune.prune(model, HALF)  # type: ignore[arg-type]


def test_calibration_of_a_model_whose_inputs_cannot_be_read_is_refused() -> None:
    for name in ("t5", "gru"):
        family = find(weights.FAMILIES, name)
        with pytest.raises(ConfigError, match="calibrate"):
            prune.norms_of(drawn(weights.build(family, usual(family))), [torch.arange(9)])
