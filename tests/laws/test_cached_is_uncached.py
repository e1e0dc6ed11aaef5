"""Cached = uncached: whatever the parts, however the sequence is cut into calls, after truncation, with recurrent state."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tsuzuri.engine import cache
from tsuzuri.engine.cache import FIRST, Cached
from tsuzuri.engine.engine import LocalEngine
from tsuzuri.engine.sampling import Sampling
from tsuzuri.folder import find, names
from tsuzuri.model.families.ngram import NgramModel
from tsuzuri.model.parts.rotary import Scaling
from tsuzuri.model.past import Causal
from tsuzuri.model.transformer import PARTS, Shape, Transformer
from tsuzuri.types import Model

SHAPE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 700,
}
SCALINGS = [
    Scaling(rope_type="linear", factor=4.0),
    Scaling(rope_type="dynamic", factor=4.0, original_max_position_embeddings=16),
    Scaling(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16),
    Scaling(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, attention_factor=1.1),
    Scaling(
        rope_type="longrope",
        factor=4.0,
        original_max_position_embeddings=16,
        attention_factor=1.2,
        short_factor=(1.0,) * 4,
        long_factor=(1.5, 2.0, 3.0, 4.0),
    ),
]
CHOICES = [
    *({"position": part} for part in names(PARTS) if find(PARTS, part).KIND == "position"),
    *({"num_key_value_heads": heads} for heads in (1, 2)),
    {"sliding_window": 1},
    {"sliding_window": 3},
    {"position": "alibi", "sliding_window": 5, "num_key_value_heads": 2},
    {"qk_norm": "head", "tie_word_embeddings": True, "head_dim": 6},
    {"qk_norm": "token", "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "num_key_value_heads": 2, "attention_scale": 0.3},
    {"layer_types": ("sliding_attention", "full_attention"), "sliding_window": 4, "rope_local_theta": 100.0, "partial_rotary_factor": 0.5},
    {"block": "post_norm", "norm": "layer_norm", "embedding_multiplier": 5.0, "logit_multiplier": 0.5, "head_bias": True},
    *({"max_position_embeddings": 16, "rope_scaling": scaling} for scaling in SCALINGS),
]
CUTS = [[1] * 23, [23], [5, 1, 1, 9, 7], [22, 1]]


def built(dtype: torch.dtype = torch.float64, **choices: object) -> Transformer:
    """Every weight random, so that nothing is hidden behind a zero."""
    model = Transformer(Shape(**{**SHAPE, **choices}))
    generator = torch.Generator().manual_seed(3)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=generator)
    return model.to(dtype).requires_grad_(False)


def tokens(count: int, seed: int = 0) -> Tensor:
    return torch.randint(50, (count,), generator=torch.Generator().manual_seed(seed))


def whole(model: Model, ids: Tensor) -> Tensor:
    return model(ids, Causal(torch.arange(len(ids))))


def in_parts(model: Model, ids: Tensor, cuts: list[int], past: Cached) -> Tensor:
    found = []
    for part in ids.split(cuts):
        past.begin(len(part))
        found.append(model(part, past))
    return torch.cat(found)


@pytest.mark.parametrize("choices", CHOICES, ids=str)
@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_every_model_at_every_cut(choices: dict[str, object], cuts: list[int]) -> None:
    model, ids = built(**choices), tokens(23)
    torch.testing.assert_close(in_parts(model, ids, cuts, Cached(bound=23)), whole(model, ids), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_the_precision_of_the_weights(dtype: torch.dtype) -> None:
    model, ids = built(dtype), tokens(23)
    tolerance = 1e-4 if dtype == torch.float32 else 0.15  # bfloat16 keeps 8 bits of numbers up to about 10
    torch.testing.assert_close(in_parts(model, ids, CUTS[2], Cached()), whole(model, ids), rtol=tolerance, atol=tolerance)


def test_the_buffers_grow() -> None:
    model, ids = built(), tokens(2 * FIRST + 9)
    cuts = [FIRST - 1, 1, 1, FIRST, 8]
    torch.testing.assert_close(in_parts(model, ids, cuts, Cached(bound=23)), whole(model, ids), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("choices", [{}, {"sliding_window": 4}, {"position": "alibi"}], ids=str)
def test_what_was_truncated_leaves_no_trace(choices: dict[str, object]) -> None:
    model, past, ids = built(**choices), Cached(), tokens(20)
    in_parts(model, torch.cat([ids[:12], tokens(9, seed=1)]), [15, 6], past)
    assert past.truncate(12) == 12
    torch.testing.assert_close(in_parts(model, ids[12:], [1, 7], past), whole(model, ids)[12:], rtol=1e-9, atol=1e-9)


def test_recurrent_state_goes_on_and_starts_anew_where_it_cannot_go_back() -> None:
    documents = [tokens(60, seed).numpy() for seed in range(4)]
    model, ids, past = NgramModel.fit(documents, 50, order=4, boundary=0), tokens(23), Cached()
    torch.testing.assert_close(in_parts(model, ids, CUTS[2], past), whole(model, ids))
    assert past.truncate(10) == 0
    torch.testing.assert_close(in_parts(model, ids, CUTS[0], past), whole(model, ids))


@pytest.mark.parametrize("choices", [{}, {"sliding_window": 7, "num_key_value_heads": 2}, {"position": "alibi"}], ids=str)
def test_greedy_text_of_the_engine_is_that_of_the_plain_loop(choices: dict[str, object]) -> None:
    model, prompt = built(**choices), tokens(300).tolist()
    ids = list(prompt)
    for _ in range(20):
        ids.append(int(whole(model, torch.tensor(ids))[-1].argmax()))
    engine = LocalEngine(model, [], 700)
    for _ in range(2):  # from nothing, and with what the first call left
        found = list(engine.stream(prompt, Sampling(temperature=0, max_tokens=20)))
        assert [token.id for token in found] == ids[300:]
    expected = whole(model, torch.tensor(ids)).log_softmax(-1)[299:-1]
    assert [token.logprob for token in found] == pytest.approx(
        [float(row[id]) for row, id in zip(expected, ids[300:], strict=True)], abs=1e-5
    )


# ── a long text with a window

LONG = {"max_position_embeddings": 4000, "num_hidden_layers": 1}


@pytest.mark.parametrize("choices", [{"sliding_window": 7}, {"sliding_window": 7, "position": "alibi", "num_key_value_heads": 2}], ids=str)
def test_what_a_window_lets_go_changes_nothing(choices: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "BACK", 20)
    model, ids, past = built(**choices, **LONG), tokens(1500), Cached(bound=1500)
    found = in_parts(model, ids, [100, *[1] * 300, 128, 128, *[1] * 400, 128, 128, 128, *[1] * 60], past)
    places = max(FIRST, 2 * (128 + 7 + 20))  # and not 1,500
    assert past.nbytes <= 2 * places * (model.shape.num_key_value_heads or 4) * 8 * 8  # float64
    torch.testing.assert_close(found, whole(model, ids), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("back", [1, 10, 20, 21, 600, 1400])
def test_a_window_is_taken_back_where_it_can_be(back: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was let go is not looked at by mistake: it is read again from the start."""
    monkeypatch.setattr(cache, "BACK", 20)
    model, ids, past = built(sliding_window=7, **LONG), tokens(1500), Cached(bound=1500)
    in_parts(model, ids, [100] * 15, past)
    left = past.truncate(1500 - back)
    assert left in (0, 1500 - back)
    if back <= 20:
        assert left == 1500 - back
    rest = ids[left:]
    torch.testing.assert_close(in_parts(model, rest, [50] * (len(rest) // 50) + [len(rest) % 50], past), whole(model, ids)[left:])


def test_a_window_beside_full_attention_keeps_all_of_the_latter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "BACK", 20)
    choices = {"layer_types": ("sliding_attention", "full_attention"), "sliding_window": 4, "max_position_embeddings": 4000}
    model, ids = built(**choices), tokens(1200)
    torch.testing.assert_close(in_parts(model, ids, [100] * 12, Cached(bound=1200)), whole(model, ids), rtol=1e-9, atol=1e-9)
