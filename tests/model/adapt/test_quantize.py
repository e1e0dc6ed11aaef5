"""Quantisation: GGML's numbers, bounded errors, a model that stays a model, and files that are read as they were written."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tsuzuri.errors import ConfigError, FormatError
from tsuzuri.folder import find, names
from tsuzuri.model import safe, weights
from tsuzuri.model.adapt import quantize
from tsuzuri.model.encoder_decoder import EncoderDecoder
from tsuzuri.model.families.ngram import NgramModel
from tsuzuri.model.past import Bidirectional, Causal, Memory
from tsuzuri.model.transformer import Shape, Transformer

sys.path.insert(0, str(Path(__file__).parents[2]))
from test_open_folders import usual

SIZES = {"vocab_size": 50, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
FORMS = list(quantize.BITS)


def built(**choices: object) -> Transformer:
    model = Transformer(Shape(**{**SIZES, "max_position_embeddings": 64, **choices})).requires_grad_(False)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1, generator=generator)
    return model


def logits(model: Transformer) -> torch.Tensor:
    return model(torch.arange(9), Causal(torch.arange(9)))


def random_rows() -> torch.Tensor:
    rows = torch.randn(40, 128, generator=torch.Generator().manual_seed(1)) * torch.logspace(-3, 2, 40)[:, None]
    rows[3, 32:64] = 0
    return rows


@pytest.mark.parametrize(("form", "steps"), [("q8_0", 127 * 2), ("q4_0", 16)])
def test_no_number_is_further_than_its_grid_allows(form: str, steps: int) -> None:
    rows = random_rows()
    found = quantize.dequantised(form, *quantize.FORMS[form](rows))
    groups = rows.unflatten(1, (-1, 32))
    top = groups.abs().amax(-1, keepdim=True)
    bound = top / 127 / 2 if form == "q8_0" else top / 8  # at the far end of q4_0 a number can be a whole step away: 8 is not there
    error = (found.unflatten(1, (-1, 32)) - groups).abs()
    assert bool((error <= bound + top * 2**-10).all()), "half a step, and the rounding of the scale"
    assert len(found[0, :32].unique()) <= steps
    assert found[3, 32:64].abs().max() == 0


@pytest.mark.parametrize("form", ["q8_0", "q4_0"])
def test_the_numbers_are_those_of_ggml(form: str) -> None:
    gguf = pytest.importorskip("gguf")
    rows = random_rows()
    theirs = gguf.quants.quantize(rows.numpy(), getattr(gguf.GGMLQuantizationType, form.upper()))
    blocks = torch.from_numpy(theirs).view(40, 4, -1)  # a float16 scale, then the values
    values, scales = quantize.FORMS[form](rows)
    assert torch.equal(blocks[..., :2].contiguous().view(torch.float16).squeeze(-1), scales)
    assert torch.equal(blocks[..., 2:].flatten(1), values.view(torch.uint8))
    assert torch.equal(
        quantize.dequantised(form, values, scales),
        torch.from_numpy(gguf.quants.dequantize(theirs, getattr(gguf.GGMLQuantizationType, form.upper()))),
    )


def test_nf4_takes_the_nearest_quantile_and_is_nearer_than_q4_on_what_is_normal() -> None:
    rows = torch.randn(64, 256, generator=torch.Generator().manual_seed(2))
    values, scales = quantize.nf4(rows)
    found = quantize.dequantised("nf4", values, scales)
    groups, table = rows.unflatten(1, (-1, 32)), torch.tensor(quantize.NF4)
    top = groups.abs().amax(-1, keepdim=True)
    nearest = table[(groups[..., None] / top[..., None] - table).abs().argmin(-1)] * top.half().float()
    torch.testing.assert_close(found, nearest.flatten(1), rtol=1e-6, atol=1e-6)
    other = quantize.dequantised("q4_0", *quantize.q4_0(rows))
    assert (found - rows).abs().mean() < (other - rows).abs().mean()


@pytest.mark.parametrize("form", FORMS)
def test_a_quantised_model_is_the_model_of_the_rounded_weights(form: str) -> None:
    model, twin = built(), built()
    for weight in twin.parameters():
        if weight.dim() == 2:
            weight.copy_(quantize.dequantised(form, *quantize.FORMS[form](weight)))
    record = quantize.quantize(model, form)
    assert len(record.narrowed) == 2 + 7 * 2 and record.kept == ()
    assert record.bytes_after < record.bytes_before * (0.3 if form == "q8_0" else 0.2)
    assert torch.equal(logits(model), logits(twin))
    assert quantize.count(model) == sum(weight.numel() for weight in twin.parameters())
    assert logits(model.bfloat16()).dtype == torch.bfloat16 and model.embedding.scales.dtype == torch.float16


def test_a_matrix_whose_rows_are_no_multiple_of_32_is_kept_and_named() -> None:
    model = built(intermediate_size=80)
    record = quantize.quantize(model, "q4_0")
    assert record.kept == ("blocks.0.feedforward.down.weight", "blocks.1.feedforward.down.weight")
    assert set(record.kept) <= {name for name, _ in model.named_parameters()}


def test_an_unknown_form_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="「q4_0」"):
        quantize.quantize(built(), "q4_1")


def test_a_model_with_nothing_to_narrow_is_refused() -> None:
    """Counted ones have no matrices, others none whose rows can be cut into groups."""
    tables = [weights.build(find(weights.FAMILIES, name), usual(find(weights.FAMILIES, name))) for name in sorted(TABLES)]
    for model in (built(hidden_size=40, intermediate_size=40), NgramModel.fit([[1, 2, 3]], 5, 2), *tables):
        with pytest.raises(ConfigError, match="32"):
            quantize.quantize(model, "q8_0")  # type: ignore[arg-type]


# ── every family

TABLES = {"hmm"}  # of probabilities, no matrices that inputs are multiplied by
TRAINED = [name for name in names(weights.FAMILIES) if hasattr(find(weights.FAMILIES, name), "names") and name not in TABLES]


def answer(model: Any) -> torch.Tensor:
    ids = torch.arange(9)
    if isinstance(model, EncoderDecoder):
        memory = Memory(model.encode(ids.flip(0), Bidirectional(ids)))
        return model(ids, Causal(ids, memory=memory))
    found: torch.Tensor = model(ids, Causal(ids) if getattr(model.shape, "causal", True) else Bidirectional(ids))
    return found


@pytest.mark.parametrize("name", TRAINED)
def test_every_family_is_rounded_saved_and_read_again(name: str, tmp_path: Path) -> None:
    """From a directory in the family's own layout, packed tensors and all: the model of the rounded weights, to the bit. (What some
    products make of the same bits depends on where in memory they lie, in the last place.)"""
    family = find(weights.FAMILIES, name)
    wide = weights.build(family, usual(family, **{**SIZES, "intermediate_size": 256, "max_position_embeddings": 64, **family.USUAL}))
    generator = torch.Generator().manual_seed(0)
    for weight in wide.requires_grad_(False).parameters():
        torch.nn.init.normal_(weight, std=0.1, generator=generator)
    (tmp_path / "wide").mkdir()
    weights.save(wide, tmp_path / "wide", name)
    for form in FORMS:
        model, twin = (weights.load(tmp_path / "wide") for _ in range(2))
        narrowed = set(quantize.quantize(model, form).narrowed)
        for key, weight in twin.named_parameters():
            if key in narrowed:
                weight.copy_(quantize.dequantised(form, *quantize.FORMS[form](weight)))
        blocks = [key for key, module in twin.named_modules() if isinstance(module, torch.nn.Linear) and "blocks." in key]
        assert blocks and {f"{key}.weight" for key in blocks} <= narrowed
        for key in narrowed:
            assert torch.equal(model.get_submodule(key.rpartition(".")[0]).weight, twin.get_parameter(key)), key
        torch.testing.assert_close(answer(model), answer(twin), rtol=1e-6, atol=1e-6)
        assert float((answer(model) - answer(wide)).abs().max()) > 1e-4
        out = tmp_path / form
        out.mkdir()
        weights.save(model, out, name)
        again = weights.load(out, quantised=True)
        assert again.shape == model.shape
        for (key, one), (other, two) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
            assert key == other and torch.equal(one, two), key
        torch.testing.assert_close(answer(again), answer(model), rtol=1e-6, atol=1e-6)


# ── files


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tied", [True, False])
def test_saved_and_loaded_is_the_same(form: str, tied: bool, tmp_path: Path) -> None:
    model = built(tie_word_embeddings=tied, intermediate_size=80, attention_bias=True)
    quantize.quantize(model, form)
    weights.save(model, tmp_path)
    again = weights.load(tmp_path, quantised=True)
    assert quantize.form_of(again) == form
    assert torch.equal(logits(again), logits(model))
    stored = safe.header(tmp_path / weights.WEIGHTS)
    assert stored["embedding.values"].dtype == ("I8" if form == "q8_0" else "U8") and stored["embedding.scales"].dtype == "F16"
    assert weights.load(tmp_path, dtype=torch.bfloat16, quantised=True).norm.weight.dtype == torch.bfloat16


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what a process has mapped is asked of /proc")
@pytest.mark.parametrize("form", FORMS)
def test_what_was_saved_is_mapped_not_computed(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The narrow numbers of a loaded model are the bytes of the file, where the system has mapped it; nothing is rounded on the way."""
    model = built()
    quantize.quantize(model, form)
    weights.save(model, tmp_path)
    monkeypatch.setitem(quantize.FORMS, form, None)  # whoever would quantise fails
    narrow = [module for module in weights.load(tmp_path, quantised=True).modules() if isinstance(module, quantize.Quantised)]
    spans = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    assert narrow
    for place in (module.values.data_ptr() for module in narrow):
        assert any(int(start, 16) <= place < int(stop, 16) for start, stop in spans)


def test_who_does_not_ask_for_one_gets_none(tmp_path: Path) -> None:
    """Training would move the few weights that are left wide, and an export would be no model for others."""
    saved(tmp_path)
    with pytest.raises(ConfigError, match="q8_0"):
        weights.load(tmp_path)


@pytest.mark.parametrize("form", FORMS)
def test_a_task_begins_at_the_numbers_that_were_rounded_to(form: str, tmp_path: Path) -> None:
    """The body multiplied out, every weight a number that trains; only another head is new."""
    model = built()
    quantize.quantize(model, form)
    weights.save(model, tmp_path)
    body = weights.load_body(tmp_path)
    assert torch.equal(logits(body.model), logits(weights.load(tmp_path, dtype=torch.float32, quantised=True)))
    assert quantize.form_of(body.model) is None and all(weight.requires_grad for weight in body.model.parameters())
    assert (body.new, body.left) == ((), ())


def saved(tmp_path: Path) -> dict[str, torch.Tensor]:
    model = built()
    quantize.quantize(model, "q8_0")
    weights.save(model, tmp_path)
    return safe.read(tmp_path / weights.WEIGHTS)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("embedding.values", lambda t: t[:, :32].contiguous()),
        ("embedding.values", lambda t: t.to(torch.uint8)),
        ("embedding.values", lambda t: t.index_fill(0, torch.tensor([3]), -128)),
        ("embedding.scales", lambda t: t.float()),
        ("embedding.scales", lambda t: t[:1].contiguous()),
        ("embedding.scales", lambda t: None),
        ("norm.weight", lambda t: None),
        ("norm.weight", lambda t: t[:5].contiguous()),
        ("another.values", lambda t: torch.zeros(3)),
    ],
)
def test_what_does_not_fit_is_refused(name: str, change: object, tmp_path: Path) -> None:
    tensors = {key: value.clone() for key, value in saved(tmp_path).items()}
    changed = change(tensors.get(name))  # type: ignore[operator]
    tensors.pop(name, None)
    safe.write(tmp_path / weights.WEIGHTS, tensors if changed is None else {**tensors, name: changed})
    with pytest.raises(FormatError):
        weights.load(tmp_path, quantised=True)


@pytest.mark.parametrize(
    "config", [{"quant_method": "gptq"}, {"quant_method": "tsuzuri", "format": "q8_0", "group_size": 64}, {"bits": 4}, 3]
)
def test_another_quantisation_is_refused_by_name(config: object, tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": config}))
    with pytest.raises(ConfigError, match="quantization_config"):
        weights.load(tmp_path, quantised=True)
